"""Which scorer, weights and number of superpixels suit SWAG on photographs? A search with half of them held out.

Deletion + (1 - insertion) of every setting on every photograph with two networks. The best setting of one half of the
photographs is compared with the default on the other half, both ways. `--records FILE` keeps what was measured, so
that a search that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import midgrain as mg
from benchmarks.cam_quality import Network, networks
from benchmarks.common import parser, report
from benchmarks.photographs import Photograph, add_options, find_photographs, said
from midgrain.measures import bootstrap_interval

STEPS = 14


@dataclass(frozen=True)
class Setting:
    """One way to run SWAG; `superpixels` None is the scorer's map without any."""

    scorer: str = "guided"
    superpixels: str | None = "image+gradient"
    n_segments: int = 300
    compactness: float = 20.0
    gradient_compactness: float = 9.0

    def __str__(self) -> str:
        if self.superpixels is None:
            return f"{self.scorer}, pixels"
        kind = {"image": "I", "gradient": "G", "image+gradient": "I+G"}[self.superpixels]
        return f"{self.scorer}, {kind}, {self.n_segments}, {self.compactness:g}, {self.gradient_compactness:g}"


DEFAULT = Setting()
#: Name in the tables -> scorer and its options.
SCORERS: dict[str, tuple[str, dict[str, Any]]] = {
    "guided": ("guided", {}),
    "vanilla": ("vanilla", {}),
    "input-x-gradient": ("input-x-gradient", {}),
    "smoothgrad-8": ("smoothgrad", {"n_samples": 8}),
    "smoothgrad-16": ("smoothgrad", {"n_samples": 16}),
    "smoothgrad-8 of guided": ("smoothgrad", {"n_samples": 8, "of": "guided"}),
    "integrated-gradients-16": ("integrated-gradients", {"n_steps": 16}),
    "fullgrad": ("fullgrad", {}),
    "deepmaps": ("deepmaps", {}),
    "gradcam": ("gradcam", {}),
    "jittercam": ("jittercam", {}),
}
#: Scorers whose weights and counts are searched.
SEARCHED = ("guided", "smoothgrad-8")
COMPACTNESS = (4.0, 20.0, 40.0)
GRADIENT_COMPACTNESS = (4.0, 9.0, 20.0)
COUNTS = (100, 300, 600)


def settings(scorers: Sequence[str]) -> list[Setting]:
    """All that are tried with these scorers, each once; the default is among them."""
    found = [DEFAULT]
    found += [
        replace(DEFAULT, scorer=scorer, superpixels=kind) for scorer in scorers for kind in ("image+gradient", None)
    ]
    for scorer in [each for each in SEARCHED if each in scorers]:
        start = replace(DEFAULT, scorer=scorer)
        found += [replace(start, superpixels=kind) for kind in ("image", "gradient")]
        found += [
            replace(start, compactness=colour, gradient_compactness=gradient)
            for colour in COMPACTNESS
            for gradient in GRADIENT_COMPACTNESS
        ]
        found += [replace(start, n_segments=count) for count in COUNTS]
    return list(dict.fromkeys(found))


def measure(
    network: Network, photo: Photograph, wanted: Sequence[Setting]
) -> Iterator[tuple[Setting, dict[str, float]]]:
    """Deletion, insertion and combined score of each setting; a scorer's map is made once."""
    x = network.preprocess(photo.picture)
    with torch.no_grad():
        target = int(network.model(x).argmax(1))
    maps: dict[str, Tensor] = {}
    for setting in wanted:
        if setting.scorer not in maps:
            name, options = SCORERS[setting.scorer]
            scorer = mg.explainer(
                name, network.model, mean=network.preprocess.mean, std=network.preprocess.std, **options
            )
            maps[setting.scorer] = scorer(x, target).heatmap
        heatmap = maps[setting.scorer]
        if setting.superpixels is not None:
            explainer = mg.SWAG(
                network.model,
                superpixels=setting.superpixels,
                scorer=lambda *_, ready=heatmap: ready,
                n_segments=setting.n_segments,
                compactness=setting.compactness,
                gradient_compactness=setting.gradient_compactness,
                mean=network.preprocess.mean,
                std=network.preprocess.std,
            )
            heatmap = explainer(x, target).heatmap
        result = mg.measures.combined(network.model, x, heatmap, target, steps=STEPS)
        yield (
            setting,
            {
                "deletion": float(result.deletion.auc),
                "insertion": float(result.insertion.auc),
                "combined": float(result.score),
            },
        )


class Records:
    """What was measured, one JSON line each; those of an earlier run are taken over."""

    def __init__(self, path: Path | None):
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path is not None and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            # A line without its end was being written when the run was stopped.
            self.rows = [json.loads(line) for line in lines if line.endswith("\n")]
            path.write_text("".join(line for line in lines if line.endswith("\n")), encoding="utf-8")

    def add(self, row: dict[str, Any]) -> None:
        """Keeps one."""
        self.rows.append(row)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def known(self, network: str, photograph: str) -> set[Setting]:
        """The settings measured there."""
        return {
            Setting(**row["setting"])
            for row in self.rows
            if row["network"] == network and row["photograph"] == photograph
        }


def scores(rows: Sequence[Mapping[str, Any]], setting: Setting, key: str = "combined") -> dict[tuple[str, str], float]:
    """A setting's values by photograph and network."""
    wanted = asdict(setting)
    return {(row["photograph"], row["network"]): row[key] for row in rows if row["setting"] == wanted}


def against_default(rows: Sequence[Mapping[str, Any]], setting: Setting, photographs: Sequence[str]) -> str:
    """The combined score less the default's on these photographs, with its interval."""
    mine, theirs = scores(rows, setting), scores(rows, DEFAULT)
    keys = [key for key in mine if key[0] in photographs]
    if setting == DEFAULT or len({key[0] for key in keys}) < 2:
        return "0" if setting == DEFAULT else "too few"
    return str(bootstrap_interval([mine[key] - theirs[key] for key in keys], units=[key[0] for key in keys]))


def setting_rows(rows: Sequence[Mapping[str, Any]], tried: Sequence[Setting]) -> list[dict[str, Any]]:
    """Every setting on all photographs, best combined score first."""
    photographs = list(dict.fromkeys(row["photograph"] for row in rows))
    table = []
    for setting in tried:
        means = {key: np.mean([*scores(rows, setting, key).values()]) for key in ("deletion", "insertion", "combined")}
        table.append(
            {
                "scorer, superpixels, number, w_c, w_g": str(setting),
                **{key: f"{mean:.3f}" for key, mean in means.items()},
                "combined less the default's [95 %]": against_default(rows, setting, photographs),
            }
        )
    return sorted(table, key=lambda row: row["combined"])


def held_out_rows(
    rows: Sequence[Mapping[str, Any]], tried: Sequence[Setting], photographs: Sequence[str]
) -> list[dict[str, Any]]:
    """The best setting of one half against the default on the other half: over all scorers, and for guided alone."""
    halves = (photographs[::2], photographs[1::2])
    table = []
    for what in ("all", *SEARCHED):
        candidates = [setting for setting in tried if what in ("all", setting.scorer)]
        if not candidates:
            continue
        for chosen_on, judged_on in (halves, halves[::-1]):
            best = min(
                candidates,
                key=lambda setting: np.mean(
                    [value for key, value in scores(rows, setting).items() if key[0] in chosen_on]
                ),
            )
            table.append(
                {
                    "among": what,
                    "best of one half": str(best),
                    "less the default's on the other half [95 %]": against_default(rows, best, judged_on),
                }
            )
    return table


def options() -> argparse.Namespace:
    """The command line."""
    found = parser("swag_search", __doc__)
    add_options(found)
    found.add_argument("--records", type=Path, metavar="FILE", help="keep what is measured here, and go on from it")
    found.add_argument("--scorers", nargs="+", choices=SCORERS, default=list(SCORERS), help="these only")
    found.add_argument("--limit", type=int, metavar="N", help="the first so many photographs only")
    found.add_argument("--threads", type=int, default=1, metavar="N", help="of the networks (default 1)")
    arguments: argparse.Namespace = found.parse_args()
    if arguments.quick:
        arguments.limit = 2
    return arguments


def main() -> None:
    """Print the tables."""
    arguments = options()
    torch.set_num_threads(arguments.threads)
    photos = find_photographs(arguments.photos)
    photos = photos[: arguments.limit]
    print(said(photos, []), flush=True)
    tried = settings(arguments.scorers)
    if arguments.quick:
        tried = [DEFAULT, replace(DEFAULT, n_segments=100), replace(DEFAULT, scorer="vanilla", superpixels=None)]
    nets = networks()[: 1 if arguments.quick else None]
    records = Records(arguments.records)
    for photo in photos:
        for network in nets:
            known = records.known(network.name, photo.name)
            for setting, values in measure(network, photo, [each for each in tried if each not in known]):
                records.add({"network": network.name, "photograph": photo.name, "setting": asdict(setting), **values})
    names = [photo.name for photo in photos]
    rows = [
        row
        for row in records.rows
        if row["photograph"] in names and row["network"] in [network.name for network in nets]
    ]
    report(
        arguments,
        {
            "All photographs": setting_rows(rows, tried),
            "Chosen on one half, judged on the other": held_out_rows(rows, tried, names),
        },
        [
            said(photos, []),
            f"{', '.join(network.name for network in nets)}; {STEPS} steps, removed pixels 0, for the class predicted; "
            "combined is deletion + (1 - insertion), lower is better; differences are paired, their intervals "
            "bootstrapped (BCa) by photograph. The halves are every other photograph.",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
