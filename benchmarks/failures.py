"""Does the explanation of failures find a planted shortcut, and what misses it?

    python -m benchmarks.failures [--weights FILE] [--report FOLDER]

A network learns digits on photographs; nearly all of its 3s have a magenta patch beside them, and hardly any other
digit has. In the validation set no 3 has the patch, and half of the others have one, so that it is known what misleads
the network, to the pixel, and what it misses.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import midgrain as mg
from benchmarks.common import parser, report
from benchmarks.photographs import packaged
from midgrain.evaluate.synthetic import MEAN, STD, Shortcut, digits, misleading, network, teaching, train_with_shortcut
from midgrain.evaluate.synthetic.shortcuts import CLASS
from midgrain.failures import FilterStatistics, ThroughFilter, filter_maps, surprise
from midgrain.failures.suppression import N_SEGMENTS, REMOVALS
from midgrain.failures.surprise import Surprise

NORMALISATION = {"mean": (MEAN,) * 3, "std": (STD,) * 3}
# Seeds of the pictures that the statistics are of: with 400 digits of a class, three make 1200 pictures.
_SEEDS = (101, 102, 103)
_REGIONS = 50
_BATCH = 50
# A region finds the patch with this share of its pixels; a map, where its peak is no further from it than one cell.
_PART = 0.25
_CELL = 8
_THESIS = {
    "errors with negative beta": "86.6 %, 90.2 %",
    "correct with negative beta": "45.9 %, 47.7 %",
    "Spearman of beta and logit": ".998, .999",
    "Spearman of beta and probability": ".782, .801",
    "repaired through the most surprising filter": "36 %",
    "repaired without filtering": "32 %",
}


class Teaching:
    """The pictures of the statistics: batches (x, y, ids), and one by one by their ids, with their patches."""

    def __init__(self, photos: Sequence[Any], limit: int | None, seeds: Sequence[int] = _SEEDS):
        shapes, labels = (each[:limit] for each in digits()[0])
        self.parts = [teaching(shapes, labels, photos, seed) for seed in seeds]
        self.size = len(labels)

    def __iter__(self) -> Iterator[tuple[Tensor, list[int], list[int]]]:
        for numbers in torch.arange(len(self)).split(_BATCH):
            items = [self[number] for number in numbers.tolist()]
            yield torch.stack([x for x, _ in items]), [label for _, label in items], numbers.tolist()

    def __len__(self) -> int:
        return len(self.parts) * self.size

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        data = self.parts[number // self.size].data
        pixels = torch.from_numpy(data.pictures[number % self.size]).movedim(-1, 0).float()
        return (pixels / 255 - MEAN) / STD, self.label(number)

    def label(self, number: int) -> int:
        """Of one picture."""
        return int(self.parts[number // self.size].data.labels[number % self.size])

    def patch(self, number: int) -> np.ndarray:
        """Bool [side, side]."""
        return self.parts[number // self.size].patches[number % self.size]


def pictures_with_patches(labels: np.ndarray, patched: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the class and of others, bool [n] each."""
    return patched & (labels == CLASS), patched & (labels != CLASS)


def main() -> None:
    """Train, fit, report, and compare with what is known."""
    options = parser("failures", __doc__)
    options.add_argument("--weights", type=Path, metavar="FILE", help="read the trained network here, or write it")
    options.add_argument("--report", type=Path, metavar="FOLDER", help="keep the failure report there")
    arguments = options.parse_args()
    photos = [photograph.picture for photograph in packaged()]
    limit = 60 if arguments.quick else None
    started = time.process_time()
    model = shortcut_network(arguments.weights, photos, limit)
    trained = time.process_time()
    training = Teaching(photos, limit)
    stats = FilterStatistics.fit(model, training)
    fitted = time.process_time()
    data = misleading(photos, limit)
    few: dict[str, Any] = {"few": "extreme"} if arguments.quick else {}
    search: dict[str, Any] = {"n_segments": 20, "removals": (1, 5)} if arguments.quick else {}
    with tempfile.TemporaryDirectory() as scratch:
        found = mg.failures.report(
            model, _batches(data), stats, arguments.report or scratch, images=training, limit=None, **few,
            search_segments=search.get("n_segments", N_SEGMENTS), removals=search.get("removals", REMOVALS),
            **NORMALISATION,
        )  # fmt: skip
        summary, rows, failures = found.summary(), found.samples(), found.failures()
    predicted = rows["predicted"].to_numpy()
    tables = {
        "The network on the validation set": accuracy(data, predicted),
        "The report's statistics": _statistics(summary),
        "Where is what misled?": _found(model, stats, data, predicted, few),
        "Is what is missed found?": _missed(model, stats, training, data, predicted, few),
        "Repairs": _repairs(data, predicted, failures.to_dict("records")),
        f"Repairs of what is taken for {CLASS}, through other filters": _other_repairs(
            model, stats, data, predicted, few, search
        ),
    }
    times = f"CPU seconds: training {trained - started:.0f}, fit {fitted - trained:.0f}."
    report(arguments, tables, [f"{int(stats.count.min())} training pictures of a class or more. {times}"], summary)


def shortcut_network(weights: Path | None, photos: Sequence[Any], limit: int | None) -> nn.Module:
    """The trained network, from the file where there is one, otherwise written to it."""
    if weights is not None and weights.exists():
        model = network()
        model.load_state_dict(torch.load(weights, weights_only=True))
        return model.eval()
    model = train_with_shortcut(photos, limit)
    if weights is not None:
        torch.save(model.state_dict(), weights)
    return model


def _batches(data: Shortcut) -> list[tuple[Tensor, Tensor, list[int]]]:
    inputs, labels = data.data.inputs, torch.from_numpy(data.data.labels)
    return [(inputs[rows], labels[rows], rows.tolist()) for rows in torch.arange(len(labels)).split(_BATCH)]


def _percent(flags: Any) -> str:
    return f"{100 * float(np.mean(flags)):.1f} %" if np.size(flags) else "-"


def accuracy(data: Shortcut, predicted: np.ndarray) -> list[dict[str, Any]]:
    """Of the validation pictures, by what may mislead the network in them."""
    labels = data.data.labels
    groups = {
        "other digits without a patch": ~data.carries & (labels != CLASS),
        "other digits with the patch": data.carries,
        f"{CLASS}s, without the patch": labels == CLASS,
    }
    return [
        {
            "pictures": name,
            "number": int(rows.sum()),
            "right": _percent(predicted[rows] == labels[rows]),
            f"taken for {CLASS}": _percent((predicted[rows] == CLASS) & (labels[rows] != CLASS)),
        }
        for name, rows in groups.items()
    ]


def _statistics(summary: dict[str, Any]) -> list[dict[str, Any]]:
    repairs = summary["repairs"]

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    def correlation(name: str) -> str:
        value = summary["spearman"][name]["mean"]
        return "-" if value is None else f"{value:.3f}"

    values = {
        "errors with negative beta": share(summary["negative_beta"]["errors"]),
        "correct with negative beta": share(summary["negative_beta"]["correct"]),
        "Spearman of beta and logit": correlation("logit"),
        "Spearman of beta and probability": correlation("probability"),
        "errors with a surprising filter": share(summary["surprised"]["errors"]),
        "correct with a surprising filter": share(summary["surprised"]["correct"]),
        "errors with a missed filter": share(summary["missed"]["errors"]),
        "correct with a missed filter": share(summary["missed"]["correct"]),
        "repaired through the most surprising filter": share(repairs and repairs["filtered"]["share"]),
        "repaired without filtering": share(repairs and repairs["unfiltered"]["share"]),
    }
    return [{"": name, "here": value, "thesis": _THESIS.get(name, "")} for name, value in values.items()]


def _found(
    model: nn.Module, stats: FilterStatistics, data: Shortcut, predicted: np.ndarray, few: dict[str, Any]
) -> list[dict[str, Any]]:
    """Of the pictures that the patch made a 3: is the best region the patch?"""
    rows = np.flatnonzero(data.carries & (predicted == CLASS) & (data.data.labels != CLASS))
    if not len(rows):
        return [{"region": "no picture was misled", "pictures": 0, "on the patch": "-"}]
    x, patches = data.data.inputs[rows], data.patches[rows]
    true = torch.from_numpy(data.data.labels[rows])
    taken = torch.full_like(true, CLASS)
    by_true, by_taken = (surprise(model, x, classes, stats, **few) for classes in (true, taken))
    every = torch.ones_like(by_true.against)
    ways: dict[str, tuple[Tensor, Tensor | None, Tensor]] = {
        "true class: most surprising filter (thesis)": (true, *_most(by_true, by_true.surprising, 1.0)),
        "true class: filter most below P(0.1)": (true, *_most(by_true, by_true.against, -1.0)),
        "true class: filter most below its mean": (true, *_most(by_true, every, -1.0)),
        "predicted class: its most surprising filter": (taken, *_most(by_taken, by_taken.surprising, 1.0)),
        "predicted class: its highest filter": (taken, by_taken.scores.argmax(1), torch.ones(len(x), dtype=torch.bool)),
        "true class: gradient without filtering": (true, None, torch.ones(len(x), dtype=torch.bool)),
        "predicted class: gradient without filtering": (taken, None, torch.ones(len(x), dtype=torch.bool)),
    }
    lines = []
    for name, (classes, filters, there) in ways.items():
        scorer: Any = "vanilla" if filters is None else ThroughFilter(filters[there])
        if not there.any():
            lines.append({"region": name, "pictures": 0, "on the patch": "-", "of all": _percent(np.zeros(len(x)))})
            continue
        e = mg.SWAG(model, "image", scorer, n_segments=_REGIONS, **NORMALISATION)(x[there], classes[there])
        best = e.scores.nan_to_num(-1.0).argmax(1)
        regions = (e.segments == best[:, None, None]).numpy()
        hits = _on_patch(regions, patches[there.numpy()])
        lines.append(
            {
                "region": name,
                "pictures": int(there.sum()),
                "on the patch": _percent(hits),
                "of all": _percent(hits.sum() / len(x)),
            }
        )
    e = mg.SWAG(model, "image", "vanilla", n_segments=_REGIONS, **NORMALISATION)(x, true)
    chance = []
    for segments, patch in zip(e.segments.numpy(), patches, strict=True):
        each = np.arange(segments.max() + 1)[:, None, None] == segments
        chance.append(_on_patch(each, patch[None].repeat(len(each), 0)).mean())
    shown = _percent(chance)
    lines.append({"region": "chance: any superpixel", "pictures": len(x), "on the patch": shown, "of all": shown})
    return lines


def _other_repairs(
    model: nn.Module,
    stats: FilterStatistics,
    data: Shortcut,
    predicted: np.ndarray,
    few: dict[str, Any],
    search: dict[str, Any],
) -> list[dict[str, Any]]:
    """Of the pictures that the patch made a 3: repairs through filters that the thesis does not take."""
    rows = np.flatnonzero(data.carries & (predicted == CLASS) & (data.data.labels != CLASS))
    if not len(rows):
        return [{"filter": "no picture was misled", "errors": 0, "repaired": "-"}]
    x, true = data.data.inputs[rows], torch.from_numpy(data.data.labels[rows])
    by_true = surprise(model, x, true, stats, **few)
    by_taken = surprise(model, x, CLASS, stats, **few)
    ways = {
        "true class: most below its mean": _most(by_true, torch.ones_like(by_true.against), -1.0)[0],
        "predicted class: highest": by_taken.scores.argmax(1),
    }
    lines = []
    for name, filters in ways.items():
        found = mg.failures.suppress(model, x, true, filters, **search, **NORMALISATION)
        gone = (found.mask.numpy() & data.patches[rows]).sum((1, 2)) >= data.patches[rows].sum((1, 2)) / 2
        lines.append(
            {
                "filter": name,
                "errors": len(x),
                "repaired": _percent(found.fixed.numpy()),
                "pixels removed, median": _median(found.share.tolist()),
                "of the repairs, half of the patch or more went": _percent(gone[found.fixed.numpy()]),
            }
        )
    return lines


def _most(found: Surprise, flagged: Tensor, sign: float) -> tuple[Tensor, Tensor]:
    """The most extreme of the flagged filters of each sample, and whether there is one."""
    extreme = torch.where(flagged, sign * found.deviation, -torch.inf)
    return extreme.argmax(1), flagged.any(1)


def _on_patch(regions: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """Does a region have a quarter of the patch or more? [n]."""
    inside = (regions & patches).sum((1, 2))
    return np.asarray(inside >= _PART * patches.sum((1, 2)))


def _missed(
    model: nn.Module,
    stats: FilterStatistics,
    training: Teaching,
    data: Shortcut,
    predicted: np.ndarray,
    few: dict[str, Any],
) -> list[dict[str, Any]]:
    """Do the filters that 3s are said to miss look at the patch, in the training pictures that speak for them?"""
    looks = np.array([_looks_at_patch(model, stats, training, number) for number in range(stats.n_filters)])
    lines = []
    labels = data.data.labels
    groups = {
        f"wrong {CLASS}s": (labels == CLASS) & (predicted != CLASS),
        f"right {CLASS}s": (labels == CLASS) & (predicted == CLASS),
    }
    for name, rows in groups.items():
        if not rows.any():
            continue
        found = surprise(model, data.data.inputs[rows], CLASS, stats, **few)
        number, there = _most(found, found.expected, -1.0)
        most = looks[number[there].numpy()]
        lines.append(
            {
                "pictures": name,
                "number": int(rows.sum()),
                "miss a filter": _percent(there.numpy()),
                "the most missed one looks at the patch": _percent(most),
                "of all": _percent(most.sum() / len(there)),
                "chance: any filter": _percent(looks),
            }
        )
    return lines


def _looks_at_patch(model: nn.Module, stats: FilterStatistics, training: Teaching, number: int) -> float:
    """The share of the class's best three training pictures where the filter's map is highest on the patch."""
    top = [image for image, _ in stats.top_images(CLASS, number, 3)]
    maps = filter_maps(model, torch.stack([training[int(image)][0] for image in top]), number, stats).numpy()
    hits = []
    for image, map_ in zip(top, maps, strict=True):
        rows, columns = np.nonzero(training.patch(int(image)))
        y, x = np.unravel_index(int(map_.argmax()), map_.shape)
        away = _CELL + 1 if not len(rows) else max(rows.min() - y, y - rows.max(), columns.min() - x, x - columns.max())
        hits.append(away <= _CELL)
    return float(np.mean(hits))


def _repairs(data: Shortcut, predicted: np.ndarray, failures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    labels, by_id = data.data.labels, {int(row["id"]): row for row in failures}
    wrong = predicted != labels
    groups = {
        "all errors": wrong,
        f"misled by the patch to {CLASS}": wrong & data.carries & (predicted == CLASS),
        f"{CLASS}s": wrong & (labels == CLASS),
        "others": wrong & (labels != CLASS) & ~(data.carries & (predicted == CLASS)),
    }
    lines = []
    for name, rows in groups.items():
        mine = [by_id[number] for number in np.flatnonzero(rows)]
        if mine:
            lines.append(
                {
                    "errors": name,
                    "number": len(mine),
                    "repaired through the filter": _percent([row["repair_fixed"] is True for row in mine]),
                    "without filtering": _percent([row["unfiltered_fixed"] is True for row in mine]),
                    "pixels removed, median": _median([row["repair_share"] for row in mine]),
                    "without filtering ": _median([row["unfiltered_share"] for row in mine]),
                }
            )
    return lines


def _median(shares: list[float]) -> str:
    known = [share for share in shares if share == share and share is not None]
    return f"{100 * float(np.median(known)):.1f} %" if known else "-"


if __name__ == "__main__":
    main()
