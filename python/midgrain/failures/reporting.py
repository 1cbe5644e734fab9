"""The failure report of a validation set: beta of every sample, and why the wrong ones are wrong."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midgrain import driver
from midgrain.baseline import Baseline
from midgrain.failures.explaining import THROUGH, Failure, Finding, ImagesById, explain
from midgrain.failures.report_pictures import drawn_failure, drawn_input
from midgrain.failures.report_plan import Plan
from midgrain.failures.report_results import FailureReport
from midgrain.failures.report_store import KIND, ReportStore
from midgrain.failures.statistics import FilterStatistics
from midgrain.failures.suppression import N_SEGMENTS, REMOVALS, Suppression
from midgrain.failures.surprise import HIGH, LOW, surprise
from midgrain.files import encodable
from midgrain.identity import described, environment, fingerprint
from midgrain.network.altered import probabilities
from midgrain.network.batches import LabelledBatch, labelled_batches
from midgrain.network.modules import model_device, unwrapped
from midgrain.normalisation import Normalisation
from midgrain.ops.checks import check_bool, check_int
from midgrain.parts import Line
from midgrain.progress import progress_bar

__all__ = ["report"]

# The journal becomes a part of the tables after so many samples or seconds.
_PART_SAMPLES, _PART_SECONDS = 4096, 60.0


def report(
    model: Any,
    loader: Iterable[Any],
    stats: FilterStatistics,
    out: str | os.PathLike[str] = "failures",
    *,
    images: ImagesById | None = None,
    classes: Sequence[str] | None = None,
    limit: int | None = 100,
    drawn: int = 24,
    n_filters: int = 3,
    n_examples: int = 3,
    n_segments: int = 50,
    low: float = LOW,
    high: float = HIGH,
    few: str = "error",
    repair: bool = True,
    through: str = "surprising",
    search_segments: int | Sequence[int] = N_SEGMENTS,
    removals: int | Sequence[int] = REMOVALS,
    baseline: Baseline = 0.0,
    guided: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    progress: bool = False,
) -> FailureReport:
    """How typical the samples of a validation set are, which are predicted wrongly, and why.

    The set is read twice. First every sample gets its beta and its surprising and missed filters: a forward pass, and a
    backward pass to the layer. Then errors are explained, see `explain`: `limit` of them, half with the lowest and
    half with the highest beta. What is done stays: the same call goes on where a killed one ended, and a higher
    `limit` explains further errors.

    Args:
        model: the network of the statistics.
        loader: gives batches (x, y) or (x, y, ids) as `FilterStatistics.fit` takes them, the same each time it is read.
        stats: of the training set.
        out: the folder of the report.
        images: gives the training images, to show those that speak for a filter; None leaves them out.
        classes: names by class number.
        limit: errors that are explained; None explains them all.
        drawn: how many of these are drawn, half with the lowest and half with the highest beta.
        n_filters: see `explain`.
        n_examples: see `explain`.
        n_segments: see `explain`.
        low: see `surprise`.
        high: see `surprise`.
        few: see `surprise`.
        repair: search for repairs, which takes by far the longest.
        through: which filter, see `explain`.
        search_segments: see `suppress`.
        removals: see `suppress`.
        baseline: see `suppress`.
        guided: see `explain`.
        batch_size: see `explain`.
        seed: see `explain`.
        mean: normalisation of x, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.
        progress: show bars.

    Returns:
        The report: tables, a summary (also in summary.json), and the page report.html, which needs nothing else.

    Raises:
        TypeError, ValueError: arguments of other kinds; a loader that can be read once only, or that gives an id twice
            or other samples than before; statistics of another network or without a class; see `surprise` about
            classes of few images; a folder that holds something else.
        ModuleNotFoundError: the extra `evaluate` is not installed.

    Source: T. Hartley's PhD thesis, 6.3 and 6.4.

    Example:
        >>> import tempfile, torch, midgrain as mg
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(8, 4))
        >>> data = torch.utils.data.TensorDataset(torch.rand(40, 3, 24, 24), torch.arange(40) % 4)
        >>> loader = torch.utils.data.DataLoader(data, batch_size=10)
        >>> stats = mg.failures.FilterStatistics.fit(model, loader)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = mg.failures.report(model, loader, stats, folder, limit=2, low=10, high=90, repair=False)
        ...     summary = found.summary()
        >>> summary["samples"], summary["errors"]
        (40, 30)
    """
    driver.check_model(model)
    _check_loader(loader)
    limit = None if limit is None else check_int(limit, "limit", 0)
    drawn, progress = check_int(drawn, "drawn", 0), check_bool(progress, "progress")
    if not isinstance(stats, FilterStatistics):
        raise TypeError(f"stats: expected FilterStatistics, got {type(stats).__name__}")
    if images is not None and not callable(images) and not hasattr(images, "__getitem__"):
        raise TypeError(f"images: expected a data set or a callable from ids, got {type(images).__name__}")
    if through not in THROUGH:
        raise ValueError(f"through: expected one of {', '.join(THROUGH)}, got {through!r}")
    if classes is not None and (isinstance(classes, str) or len(classes) < stats.n_classes):
        raise ValueError(f"classes: expected the names of {stats.n_classes} classes, got {classes!r:.60}")
    stats.check_model(model)
    thresholds = {"low": low, "high": high, "few": few}
    options: dict[str, Any] = {
        "n_filters": check_int(n_filters, "n_filters", 1),
        "n_segments": check_int(n_segments, "n_segments", 1),
        "repair": check_bool(repair, "repair"),
        "through": through,
        "search_segments": _listed(search_segments),
        "removals": _listed(removals),
        "baseline": baseline,
        "guided": check_bool(guided, "guided"),
        "seed": seed,
        "mean": mean,
        "std": std,
    }
    configuration = {
        "configuration": {
            "kind": KIND,
            "model": fingerprint(unwrapped(model)),
            "statistics": _identity(stats),
            **{name: described(value) for name, value in {**thresholds, **options}.items()},
        },
        "classes": None if classes is None else [str(name) for name in classes],
        "environment": environment(),
    }
    folder = ReportStore(Path(out))
    with folder.writing(configuration):
        run = _Run(model, loader, stats, folder, thresholds, progress)
        run.measure()
        explained = options | {"n_examples": n_examples, "batch_size": batch_size}
        run.explain(limit, drawn, images, Normalisation(mean, std), explained)
    found = FailureReport(Path(out))
    found.write()
    return found


@dataclass(frozen=True, eq=False)
class _Run:
    model: Any
    loader: Iterable[Any]
    stats: FilterStatistics
    folder: ReportStore
    thresholds: Mapping[str, Any]
    progress: bool

    def measure(self) -> None:
        """The row of every sample that has none."""
        table = self.folder.table("samples", ["id", "checksum"])
        known = dict(zip(table["id"].to_pylist(), table["checksum"].to_pylist(), strict=True))
        seen: set[str] = set()
        fresh, last = 0, time.monotonic()
        for batch, names in self._batches("measuring"):
            sums = _checksums(batch)
            for name, checksum in zip(names, sums, strict=True):
                if name in seen:
                    raise ValueError(f"loader: expected every id once, got {name!r} twice")
                seen.add(name)
                if known.get(name, checksum) != checksum:
                    raise ValueError(
                        f"loader: sample {name!r} is another one than when the report in {str(self.folder.folder)!r} "
                        "was begun; use another folder"
                    )
            rows = [row for row, name in enumerate(names) if name not in known]
            if not rows:
                continue
            for line in self._measured(batch, names, sums, rows):
                self.folder.write(line)
            fresh += len(rows)
            if fresh >= _PART_SAMPLES or time.monotonic() - last > _PART_SECONDS:
                self.folder.compact()
                fresh, last = 0, time.monotonic()
        gone = sorted(set(known) - seen)
        if gone:
            raise ValueError(
                f"loader: {len(gone)} sample(s) of the report in {str(self.folder.folder)!r} are missing, {gone[0]!r} "
                "for one; use another folder"
            )
        self.folder.compact()

    def _measured(
        self, batch: LabelledBatch, names: Sequence[str], sums: Sequence[int], rows: Sequence[int]
    ) -> Iterator[Line]:
        labels = batch.y[rows]
        found = surprise(self.model, batch.x[rows], labels, self.stats, **self.thresholds)
        outputs = found.outputs.detach().cpu().float()
        chances = probabilities(outputs)
        beta = found.beta.cpu()
        surprising, expected = (flags.sum(1).tolist() for flags in (found.surprising, found.expected))
        for place, row in enumerate(rows):
            if not (torch.isfinite(outputs[place]).all() and torch.isfinite(beta[place])):
                raise ValueError(
                    f"model: the outputs or the filters' scores of sample {names[row]!r} are NaN or infinite; half "
                    "precision is the usual cause"
                )
            true, predicted = int(labels[place]), int(outputs[place].argmax())
            values = {
                "id": names[row],
                "true_class": true,
                "predicted": predicted,
                "logit": float(outputs[place, true]),
                "probability": float(chances[place, true]),
                "predicted_probability": float(chances[place, predicted]),
                "beta": float(beta[place]),
                "n_surprising": surprising[place],
                "n_expected": expected[place],
                "checksum": sums[row],
            }
            yield Line(names[row], {"samples": [values]})

    def explain(
        self,
        limit: int | None,
        drawn: int,
        images: ImagesById | None,
        normalisation: Normalisation,
        options: Mapping[str, Any],
    ) -> None:
        """The row of every chosen error that has none, and what is drawn."""
        plan = Plan.of(self.folder, limit, drawn)
        left = set(plan.wanted)
        # An empty reading costs as much as a full one.
        for batch, names in self._batches("explaining") if left else ():
            for row, name in enumerate(names):
                if name not in left:
                    continue
                left.discard(name)
                x = batch.x[row : row + 1]
                if name in plan.companions:
                    beside = [{"title": "", "pictures": [["", drawn_input(x[0], normalisation)]]}]
                    self.folder.write(Line(name, {}), {"rows": beside})
                    continue
                shown = images if name in plan.drawn else None
                label = batch.y[row : row + 1]
                (found,) = explain(self.model, x, label, self.stats, images=shown, **options, **self.thresholds)
                pictures = drawn_failure(x[0], found, normalisation) if name in plan.drawn else None
                lines = {} if name in plan.explained else {"failures": [_row(name, found)]}
                self.folder.write(Line(name, lines), None if pictures is None else {"rows": pictures})
            if not left:
                break

    def _batches(self, description: str) -> Iterator[tuple[LabelledBatch, list[str]]]:
        """The loader's batches with the names of their samples."""
        count = len(self.loader) if isinstance(self.loader, Sized) else None
        first = 0
        with progress_bar(description, count, shown=self.progress) as advance:
            for batch in labelled_batches(self.loader, model_device(self.model)):
                names = [f"{first + row:06d}" for row in range(len(batch.y))]
                yield batch, names if batch.ids is None else [encodable(str(each)) for each in batch.ids]
                first += len(batch.y)
                advance(1)


def _check_loader(loader: object) -> None:
    if not isinstance(loader, Iterable) or isinstance(loader, str | bytes | Tensor):
        raise TypeError(f"loader: expected an iterable of (x, y) batches, got {type(loader).__name__}")
    if isinstance(loader, Iterator):
        raise TypeError(
            f"loader: expected one that can be read twice, like a DataLoader or a list, got {type(loader).__name__}"
        )


def _listed(numbers: object) -> Any:
    return tuple(numbers) if isinstance(numbers, list | tuple) else (numbers,)


def _identity(stats: FilterStatistics) -> dict[str, Any]:
    """What tells these statistics from others, as JSON."""
    names = ("layer", "measure", "output", "keep")
    return {name: getattr(stats, name) for name in names} | {
        "count": described(stats.count),
        "mean": described(stats.mean),
    }


def _checksums(batch: LabelledBatch) -> list[int]:
    """Of each sample's class and some of its values."""
    some = batch.some_values().numpy()
    return [zlib.crc32(row.tobytes(), label) for row, label in zip(some, batch.y.tolist(), strict=True)]


def _row(name: str, found: Failure) -> dict[str, Any]:
    return {
        "id": name,
        **_filters("surprising", found.surprising),
        **_filters("expected", found.expected),
        **_search("repair", found.repair),
        **_search("unfiltered", found.unfiltered_repair),
    }


def _filters(name: str, findings: Sequence[Finding]) -> dict[str, Any]:
    deviations = [each.deviation for each in findings]
    return {name: [each.filter for each in findings], f"{name}_deviations": deviations}


def _search(name: str, repair: Suppression | None) -> dict[str, Any]:
    if repair is None:
        return {}
    fixed = bool(repair.fixed[0])
    segments, removals = repair.setting[0].tolist()
    return {
        f"{name}_fixed": fixed,
        f"{name}_grid": repair.grid[0].flatten().int().tolist(),
        **(
            {
                f"{name}_segments": segments,
                f"{name}_removals": removals,
                f"{name}_share": float(repair.share[0]),
                f"{name}_probability": float(repair.probability[0]),
            }
            if fixed
            else {}
        ),
    }
