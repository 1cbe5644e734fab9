"""How many passes does LIME need, and how many are saved by knowing where the network sees what?

Networks with ImageNet weights from packages (MobileNetV2, EfficientNet-Lite0) on real photographs: deletion, insertion
and combined score, 28 steps, removed pixels 0, each photograph's predicted class. All rows with superpixels have 50 of
SLIC. What `lime-prior` does by default was chosen on every other photograph, from the first on ("chosen on"); the
others were held out.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import midgrain as mg
from benchmarks.cam_quality import Network, networks
from benchmarks.common import parser, report
from benchmarks.photographs import Photograph, add_options, find_photographs, said
from midgrain.files import write_whole
from midgrain.measures import bootstrap_interval

STEPS = 28
REFERENCE = "LIME-200"
#: Row -> method and options.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "Grad-CAM": ("gradcam", {}),
    "Jitter-CAM": ("jittercam", {"shared_trunk": True}),
    **{f"LIME-{n}": ("lime-i", {"n_samples": n}) for n in (25, 50, 100, 200)},
    "LIME-200, log-odds": ("lime-i", {"n_samples": 200, "output": "log-odds"}),
    **{f"prior Grad-CAM, {n}": ("lime-prior", {"prior": "gradcam", "n_samples": n}) for n in (25, 50, 100)},
    **{f"prior cells, {n}": ("lime-prior", {"n_samples": n}) for n in (25, 50, 100)},
    "prior cells, 50, unblended": ("lime-prior", {"n_samples": 50, "blend": 0.0}),
    "prior cells, 25, unblended": ("lime-prior", {"n_samples": 25, "blend": 0.0}),
}
#: By name only (`--rows`).
SLOW = {"LIME-1000": ("lime-i", {"n_samples": 1000})}


def frozen(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The same network, faster: batch norms folded away; its outputs agree within rounding."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is on its way out.
        traced = torch.jit.trace(model.eval(), torch.zeros(4, 3, 224, 224))
        made = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        for _ in range(2):
            made(torch.zeros(4, 3, 224, 224))
    return lambda x: made(x)


def records_of(
    network: Network, fast: Callable[[Tensor], Tensor], photo: Photograph, number: int, rows: Sequence[str]
) -> list[dict[str, Any]]:
    """One record per row."""
    x = network.preprocess(photo.picture)
    with torch.no_grad():
        target = int(network.model(x).argmax())
    records = []
    for row in rows:
        name, options = (ROWS | SLOW)[row]
        model = fast if name == "lime-i" else network.model
        preprocess = network.preprocess
        explained = mg.explainer(name, model, mean=preprocess.mean, std=preprocess.std, **options)(x, target)
        result = mg.measures.combined(fast, x, explained.heatmap, target, steps=STEPS)
        records.append(
            {
                "network": network.name,
                "photograph": photo.name,
                "chosen on": number % 2 == 0,
                "row": row,
                "deletion": float(result.deletion.auc),
                "insertion": float(result.insertion.auc),
                "combined": float(result.score),
            }
        )
    return records


def difference(records: Sequence[Mapping[str, Any]], row: str) -> str:
    """The row's combined score less the reference's, drawn by photograph."""
    own, reference = (
        {(each["network"], each["photograph"]): each["combined"] for each in records if each["row"] == name}
        for name in (row, REFERENCE)
    )
    keys = [key for key in own if key in reference]
    if row == REFERENCE or len({photograph for _, photograph in keys}) < 2:
        return "0" if row == REFERENCE else "too few"
    return str(bootstrap_interval([own[key] - reference[key] for key in keys], units=[key[1] for key in keys]))


def table(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means per row, in the rows' order."""
    rows = []
    for row in [name for name in ROWS | SLOW if any(each["row"] == name for each in records)]:
        own = [each for each in records if each["row"] == row]
        means = {key: f"{np.mean([each[key] for each in own]):.3f}" for key in ("deletion", "insertion", "combined")}
        rows.append({"": row, **means, f"combined less {REFERENCE}'s [95 %]": difference(records, row)})
    return rows


def options() -> argparse.Namespace:
    """The command line."""
    found = parser("lime_quality", __doc__)
    add_options(found)
    found.add_argument("--rows", nargs="+", metavar="ROW", help=f"these only, of {', '.join(ROWS | SLOW)}")
    found.add_argument("--network", metavar="NAME", help="this one only")
    found.add_argument("--half", choices=["chosen", "held-out"], help="these photographs only")
    found.add_argument("--limit", type=int, metavar="N", help="at most so many photographs")
    found.add_argument(
        "--records", type=Path, metavar="FILE", help="write results here as they come, and go on from it"
    )
    found.add_argument("--threads", type=int, default=1, metavar="N", help="of the networks (default 1)")
    arguments: argparse.Namespace = found.parse_args()
    unknown = set(arguments.rows or []) - (ROWS | SLOW).keys()
    if unknown:
        found.error(f"--rows: expected some of {', '.join(ROWS | SLOW)}, got {', '.join(sorted(unknown))}")
    if arguments.quick:
        arguments.limit, arguments.rows = 2, ["Grad-CAM", "LIME-25", "prior cells, 25"]
    return arguments


def main() -> None:
    """Print the tables."""
    arguments = options()
    torch.set_num_threads(arguments.threads)
    photos = find_photographs(arguments.photos)
    numbered = list(enumerate(photos))
    if arguments.half:
        numbered = [(number, photo) for number, photo in numbered if (number % 2 == 0) == (arguments.half == "chosen")]
    numbered = numbered[: arguments.limit]
    records: list[dict[str, Any]] = []
    if arguments.records and arguments.records.exists():
        records = json.loads(arguments.records.read_text(encoding="utf-8"))
    chosen_nets = [each for each in networks() if arguments.network in (None, each.name)]
    if not chosen_nets:
        raise SystemExit(
            f"--network: expected {' or '.join(each.name for each in networks())}, got {arguments.network}"
        )
    nets = [(network, frozen(network.model)) for network in chosen_nets[: 1 if arguments.quick else None]]
    for number, photo in numbered:
        for network, fast in nets:
            done = {
                each["row"] for each in records if (each["network"], each["photograph"]) == (network.name, photo.name)
            }
            rows = [row for row in arguments.rows or ROWS if row not in done]
            records += records_of(network, fast, photo, number, rows)
            if arguments.records:
                text = json.dumps(records).encode()
                write_whole(arguments.records, lambda file, text=text: file.write(text))
    tables = {}
    for half, chosen in (("held out", False), ("chosen on", True)):
        for names in (
            *([network.name] for network, _ in nets),
            *([[network.name for network, _ in nets]] if len(nets) > 1 else []),
        ):
            own = [each for each in records if each["chosen on"] == chosen and each["network"] in names]
            if own:
                count = len({each["photograph"] for each in own})
                tables[f"{' and '.join(names)}, {count} photographs {half}"] = table(own)
    report(
        arguments,
        tables,
        [
            said(photos, []),
            f"Scores of {STEPS} steps in float32, pixels of one value removed together, removed pixels 0, for the "
            "class predicted; combined is deletion + (1 - insertion), lower is better. The number in a row's name is "
            "its passes through the network. Differences are paired, their 95 % intervals bootstrapped (BCa) by "
            "photograph.",
        ],
        {"records": records},
    )


if __name__ == "__main__":
    main()
