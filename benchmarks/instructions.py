"""How many instructions does each kernel take? Counted under valgrind, so that no busy machine can blur the figure.

The figures are compared with `instructions.json` beside this file; growth by more than 2 % is an error (exit code 1).
They hold for one compiler: the file says which, and `--write` renews it. Valgrind has no AVX-512, so the widest
instruction set counted is AVX2. Needs `valgrind` on the path.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from midgrain._kernels import cpu

COMMITTED = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.02
INSTRUCTION_SETS = ("avx2", "baseline")


def picture(frames: int, height: int, width: int) -> np.ndarray:
    """A fixed picture or clip with flat regions, slopes, edges and noise, uint8 [T, H, W, 3]."""
    random = np.random.default_rng(1)
    t, y, x = np.meshgrid(*(np.arange(n) for n in (frames, height, width)), indexing="ij")
    blobs = np.zeros((frames, height, width, 3))
    for _ in range(40):
        cy, cx, r = random.uniform(0, height), random.uniform(0, width), random.uniform(5, height / 4)
        blobs[(y - cy) ** 2 + (x - cx + t) ** 2 < r * r] = random.uniform(0, 255, 3)
    slopes = np.stack([60 * y / height, 60 * x / width, 60 * (x + y) / (height + width)], -1)
    noise = random.normal(0, 4, blobs.shape)
    return np.clip(0.75 * blobs + slopes + noise, 0, 255).astype(np.uint8)


def cases() -> dict[str, Callable[[], None]]:
    """The kernels on fixed inputs, one thread, by name."""
    result: dict[str, Callable[[], None]] = {}

    def clustering(name: str, shape: tuple[int, int, int], wanted: int, channels: int) -> tuple[Any, Any]:
        photo = picture(*shape)
        lab = np.empty((1, 3, photo[..., 0].size), np.float32)
        result[f"Lab, {name}"] = lambda: cpu.rgb_to_lab(photo.reshape(1, -1, 3), lab, True, 1)
        result[f"Lab, {name}"]()
        # Brightness itself is the gradient channel: it has flat parts and edges.
        features = np.concatenate([lab, lab[:, :1]], 1)[:, :channels].reshape(1, channels, *shape)
        features = np.ascontiguousarray(features)
        weights, ranges = [10.0, 10.0, 10.0, 9.0][:channels], [*cpu.LAB_RANGES, (0.0, 100.0)][:channels]
        labels, counts = np.empty((1, *shape), np.int32), np.empty(1, np.int32)
        raw, connected = np.empty_like(labels), np.empty_like(labels)

        def run() -> None:
            cpu.slic(features, weights, ranges, wanted, 10, (1.0, 1.0, 1.0), 0, labels, counts, 1)

        run()
        raw[:] = labels
        least = labels.size // (2 * wanted)
        cpu.enforce_connectivity(raw, least, connected, counts, 1)
        count = int(counts[0])
        result[f"SLIC, {channels} features, {name}"] = run
        if f"connectivity, {name}" not in result:
            result[f"connectivity, {name}"] = lambda: cpu.enforce_connectivity(raw, least, labels, counts, 1)
        return connected.reshape(1, -1), count

    clustering("224 x 224, 300", (1, 224, 224), 300, 3)
    labels, count = clustering("224 x 224, 300", (1, 224, 224), 300, 4)
    clustering("16 x 112 x 112, 120", (16, 112, 112), 120, 4)
    values = np.random.default_rng(2).standard_normal((1, 16, labels.size)).astype(np.float32)
    scores = np.empty((1, 16, count), np.float32)
    painted = np.empty_like(values)
    for reduce in ("mean", "max", "median"):
        result[f"pool {reduce}, 16 planes of 224 x 224"] = lambda r=reduce: cpu.pool(values, labels, r, scores, 1)
    result["paint, 16 planes of 224 x 224"] = lambda: cpu.paint(scores, labels, painted, 1)
    frame, heat = picture(1, 272, 640)[0], values[0, 0].reshape(224, 224)
    regions, colours = labels.reshape(224, 224), np.linspace(0, 127, 768, dtype=np.float32).reshape(256, 3)
    result["overlay, 640 x 272"] = lambda: cpu.draw_overlay(frame, (0, 0, 272, 640), heat, regions, colours, 0.5)
    return result


def run_children(names: list[str]) -> None:
    """In valgrind: once and twice each case with each instruction set, every one in a forked process of its own.

    Imports and inputs are made once; each process's count starts with the same past, so that the difference between
    two calls and one is the second call alone, on warm memory.
    """
    every = cases()
    for isa in INSTRUCTION_SETS:
        if isa not in cpu.available_instruction_sets():
            continue
        cpu.select_instruction_set(isa)
        for name in names or list(every):
            for calls in (1, 2):
                sys.stdout.flush()
                child = os.fork()
                if child == 0:
                    for _ in range(calls):
                        every[name]()
                    os._exit(0)
                os.waitpid(child, 0)
                print(json.dumps([isa, name, calls, child]))


def count(names: list[str]) -> dict[str, dict[str, int]]:
    """Instructions of one call by instruction set and case."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/%p", "-q", sys.executable]
        command += ["-m", "benchmarks.instructions", "--inside", *names]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=Path(__file__).resolve().parent.parent
        )
        if done.returncode != 0:
            raise RuntimeError(f"valgrind failed:\n{done.stderr}")
        totals: dict[tuple[str, str, int], int] = {}
        for line in done.stdout.splitlines():
            isa, name, calls, child = json.loads(line)
            summary = re.search(r"^summary: (\d+)", (Path(folder) / str(child)).read_text(), re.MULTILINE)
            assert summary is not None, f"callgrind left no summary of {name}"
            totals[isa, name, calls] = int(summary[1])
    figures: dict[str, dict[str, int]] = {}
    for (isa, name, calls), total in totals.items():
        if calls == 2:
            figures.setdefault(isa, {})[name] = total - totals[isa, name, 1]
    return figures


def compare(
    figures: Mapping[str, Mapping[str, int]], committed: Mapping[str, Mapping[str, int]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The table, and a sentence for each figure that grew too much."""
    rows, grown = [], []
    for isa, counted in figures.items():
        for name, value in counted.items():
            before = committed.get(isa, {}).get(name)
            growth = None if before is None else value / before - 1
            if growth is not None and growth > TOLERANCE:
                grown.append(f"{name} ({isa}): {before} -> {value}, {growth:+.1%}")
            rows.append(
                {
                    "kernel, one call": name,
                    "instruction set": isa,
                    "instructions [10^6]": value / 1e6,
                    "committed": "" if before is None else before / 1e6,
                    "change": "new" if growth is None else f"{growth:+.2%}",
                }
            )
    return rows, grown


def main() -> int:
    """Count, print, compare; 1 if a figure grew, 2 without valgrind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__.split("\n")[0])
    parser.add_argument("case", nargs="*", help="only these (names as in the table)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--write", action="store_true", help=f"renew {COMMITTED.name}")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        run_children(arguments.case)
        return 0
    known = cases() if arguments.case else {}
    unknown = [name for name in arguments.case if name not in known]
    if unknown:
        parser.error(f"case: expected some of {', '.join(map(repr, known))}, got {unknown[0]!r}")
    if shutil.which("valgrind") is None:
        print("instructions: valgrind is not installed", file=sys.stderr)
        return 2

    from benchmarks.common import compiler, markdown

    figures = count(arguments.case)
    saved = json.loads(COMMITTED.read_text(encoding="utf-8")) if COMMITTED.is_file() else {}
    rows, grown = compare(figures, saved.get("instructions", {}))
    print(markdown(rows))
    here = {"compiler": compiler(), "instructions": figures}
    for target in ([arguments.json] if arguments.json else []) + ([COMMITTED] if arguments.write else []):
        target.write_text(json.dumps(here, indent=2) + "\n", encoding="utf-8")
    if arguments.write:
        return 0
    if saved.get("compiler") not in (None, here["compiler"]):
        print(f"\nCommitted figures are {saved['compiler']}'s, these {here['compiler']}'s.")
    for line in grown:
        print(f"grew: {line}", file=sys.stderr)
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
