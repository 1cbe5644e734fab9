"""How fast are the CUDA kernels, beside others, beside the network's own passes, and beside what the device can do?

Times are taken by CUDA events, of inputs that take turns, after a warm-up; medians, and where the middle 80 % of the
runs lie. Every result is compared with the CPU's first. Writes gpu.json and gpu.md after every part, so that an
interrupted run leaves what it had. Needs a CUDA device and a build with CUDA kernels; `--device cpu` runs what can be
run without one, which says that the script works and nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import midgrain as mg
from benchmarks import gpu_models, gpu_slic
from benchmarks.common import environment, markdown
from benchmarks.gpu_timing import Clock

PARTS = ("slic", "kernels", "peers", "models")
NOT_A_MEASUREMENT = "NOT A MEASUREMENT: run on a CPU, to see that the script works."

Tables = dict[str, list[dict[str, Any]]]


def why_not(device: str) -> str | None:
    """Why this device cannot be measured here."""
    if device == "cpu":
        return None
    cuda = mg.build_info()["cuda"]
    if not cuda["usable"]:
        return str(cuda["reason"])
    return None if torch.cuda.is_available() else "torch sees no CUDA device"


def part_slic(device: torch.device, clock: Clock, quick: bool, _: float) -> tuple[Tables, list[str]]:
    """Latency and throughput."""
    cases = gpu_slic.QUICK if quick else gpu_slic.CASES
    rows = [
        gpu_slic.slic_row(case, device, clock, 2 if quick or case.items > 1 else gpu_slic.ROTATED) for case in cases
    ]
    tables = {"SLIC, connectivity included": rows, "Aims on an H200": gpu_slic.aims(rows, device)}
    return tables | {"Operations": gpu_slic.stage_rows(device, clock, quick)}, []


def part_kernels(device: torch.device, clock: Clock, quick: bool, _: float) -> tuple[Tables, list[str]]:
    """Kernel by kernel, beside the floors."""
    return gpu_slic.kernel_tables(device, clock, quick)


def part_peers(device: torch.device, clock: Clock, quick: bool, _: float) -> tuple[Tables, list[str]]:
    """Other SLICs."""
    rows, notes = gpu_slic.peer_rows(device, clock, quick)
    return {"Beside other SLICs": rows, "Published, on other devices": gpu_slic.published_rows()}, notes


def part_models(device: torch.device, clock: Clock, quick: bool, end: float) -> tuple[Tables, list[str]]:
    """SWAG beside forward and backward."""
    rows, notes = gpu_models.rows(device, clock, quick, end)
    return {"SWAG beside the network's own passes": rows}, notes


def device_info(device: torch.device) -> dict[str, Any]:
    """What was measured."""
    if device.type != "cuda":
        return {"name": "cpu"}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory [GiB]": properties.total_memory / 2**30,
        "torch": torch.__version__,
        "torch's CUDA": torch.version.cuda,
        "tf32 in convolutions": torch.backends.cudnn.allow_tf32,
        "midgrain": mg.build_info()["cuda"],
    }


class Report:
    """Tables and notes, written anew after every part."""

    def __init__(self, folder: Path | None, device: torch.device, quick: bool):
        self.folder = folder
        self.content: dict[str, Any] = {
            "measurement": device.type == "cuda",
            "quick": quick,
            "device": device_info(device),
            "environment": environment(),
            "parts": {},
            "tables": {},
            "notes": [],
        }
        if device.type != "cuda":
            self.content["notes"].append(NOT_A_MEASUREMENT)

    def add(self, part: str, seconds: float, tables: Tables, notes: list[str]) -> None:
        """One part's results; printed, and written where there is a folder."""
        self.content["parts"][part] = seconds
        self.content["tables"] |= tables
        self.content["notes"] += notes
        for title, rows in tables.items():
            print(f"\n**{title}**\n\n{markdown(rows) if rows else 'nothing'}", flush=True)
        for note in notes:
            print(f"\n{note}", flush=True)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "gpu.json").write_text(json.dumps(self.content, indent=2) + "\n", encoding="utf-8")
            (self.folder / "gpu.md").write_text(self.text(), encoding="utf-8")

    def text(self) -> str:
        """The whole as Markdown."""
        lines = [f"# {self.content['device']['name']}", *(note for note in self.content["notes"])]
        for title, rows in self.content["tables"].items():
            lines.append(f"## {title}\n\n{markdown(rows) if rows else 'nothing'}")
        return "\n\n".join(lines) + "\n"


def run(arguments: argparse.Namespace) -> int:
    """All parts that are wanted and that there is time for; 1 where one failed."""
    device = torch.device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    end = time.monotonic() + arguments.budget
    report = Report(arguments.out, device, arguments.quick)
    print(f"{report.content['device']['name']}{'' if device.type == 'cuda' else ': ' + NOT_A_MEASUREMENT}")
    makers: dict[str, Callable[..., tuple[Tables, list[str]]]] = {
        name: globals()[f"part_{name}"] for name in arguments.parts
    }
    failed = False
    for name, make in makers.items():
        start = time.monotonic()
        if start > end:
            report.add(name, 0.0, {}, [f"{name}: no time left of {arguments.budget:g} s."])
            continue
        try:
            tables, notes = make(device, Clock(device, arguments.seconds), arguments.quick, end)
        except Exception as error:
            # The other parts are still worth having, and what went wrong belongs to the record.
            tables, notes = {}, [f"{gpu_models.FAILED} {name}: {type(error).__name__}: {error}"]
        failed |= any(note.startswith(gpu_models.FAILED) for note in notes)
        report.add(name, time.monotonic() - start, tables, notes)
    return 1 if failed else 0


def main() -> int:
    """Parse, run; 2 without a device to measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write gpu.json and gpu.md here")
    parser.add_argument("--quick", action="store_true", help="the smallest form: does it run?")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: not a measurement")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seconds", type=float, help="for each measurement; by default 1, quickly 0.02")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds after which nothing new is begun")
    arguments = parser.parse_args()
    if arguments.seconds is None:
        arguments.seconds = 0.02 if arguments.quick else 1.0
    reason = why_not(arguments.device)
    if reason is not None:
        print(f"gpu: nothing to measure: {reason}", file=sys.stderr)
        return 2
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
