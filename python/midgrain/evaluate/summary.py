"""Tables of an evaluation: how good, how sure, and does everything agree?"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from midgrain.evaluate.store import require
from midgrain.measures import (
    bootstrap_interval,
    krippendorff_alpha,
    measure_correlations,
    wilcoxon_matrix,
    win_matrix,
)

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

__all__ = ["Summary", "summarise"]

# The bootstrap's interval of so many is the normal one, and would take minutes.
_MANY = 3000


@dataclass(frozen=True, eq=False)
class Summary:
    """An evaluation in tables."""

    #: Samples with at least one row.
    samples: int
    #: Samples that nothing could be said of.
    skipped: int
    #: Columns compared -> "higher" or "lower" is better.
    measures: dict[str, str]
    #: Per explainer and measure: "explainer", "measure", "better", "n", "mean", "low", "high" (bootstrap interval of
    #: the mean; NaN below two samples), best first within a measure.
    table: pandas.DataFrame
    #: Per explainer: "explainer", "n", "seconds" (median of an explanation), "passes" (mean of forward passes; NaN
    #: where not known).
    costs: pandas.DataFrame
    #: Measure -> share of samples on which the row's explainer is better than the column's.
    wins: dict[str, pandas.DataFrame]
    #: Measure -> p-values of Wilcoxon's signed-rank test, corrected for the number of pairs (Holm).
    p_values: dict[str, pandas.DataFrame]
    #: Measure -> Krippendorff's alpha (ordinal): do samples rank the explainers alike?
    alpha: dict[str, float]
    #: Spearman's correlation between measures, each turned so that higher is better: mean over explainers.
    correlations: pandas.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """JSON of everything; None where there is no number."""
        return {
            "samples": self.samples,
            "skipped": self.skipped,
            "measures": self.measures,
            "table": _records(self.table),
            "costs": _records(self.costs),
            "wins": {name: _nested(frame) for name, frame in self.wins.items()},
            "p_values": {name: _nested(frame) for name, frame in self.p_values.items()},
            "alpha": {name: _json(value) for name, value in self.alpha.items()},
            "correlations": _nested(self.correlations),
        }


def summarise(
    frame: pandas.DataFrame,
    explainers: Sequence[str],
    measures: Mapping[str, str],
    *,
    skipped: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
) -> Summary:
    """The tables of `Results.frame()`.

    Args:
        frame: one row per sample and explainer.
        explainers: in the order of the tables.
        measures: columns to compare by -> "higher" or "lower" is better.
        skipped: how many samples are missing.
        confidence: of the intervals.
        seed: of the bootstrap.
    """
    pandas = require("pandas")
    rows: list[dict[str, Any]] = []
    wins, p_values, alpha = {}, {}, {}
    tables: dict[str, npt.NDArray[np.float64]] = {}
    for name, better in measures.items():
        wide = frame.pivot(index="id", columns="explainer", values=name).reindex(columns=list(explainers))
        table = wide.to_numpy(np.float64)
        # No number is missing in a row that no explainer has one in.
        table = table[np.isfinite(table).any(1)]
        tables[name] = wide.to_numpy(np.float64)
        own = []
        for place, explainer in enumerate(explainers):
            values = table[:, place][np.isfinite(table[:, place])]
            mean, low, high = _interval(values, confidence, seed)
            row: dict[str, Any] = {"explainer": explainer, "measure": name, "better": better, "n": len(values)}
            own.append(row | {"mean": mean, "low": low, "high": high})
        worst = -math.inf if better == "higher" else math.inf
        own.sort(key=lambda row: worst if math.isnan(row["mean"]) else row["mean"], reverse=better == "higher")
        rows += own
        if not len(table):
            continue
        square = {"index": list(explainers), "columns": list(explainers)}
        wins[name] = pandas.DataFrame(win_matrix(table, better == "higher"), **square)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of few samples, or of many ties, SciPy says so.
            p_values[name] = pandas.DataFrame(wilcoxon_matrix(table), **square)
        alpha[name] = krippendorff_alpha(table) if min(table.shape) > 1 else float("nan")
    return Summary(
        int(frame["id"].nunique()),
        skipped,
        dict(measures),
        pandas.DataFrame(rows, columns=["explainer", "measure", "better", "n", "mean", "low", "high"]),
        _costs(frame, explainers),
        wins,
        p_values,
        alpha,
        _correlations(tables, measures, len(explainers)),
    )


def _interval(values: npt.NDArray[np.float64], confidence: float, seed: int) -> tuple[float, float, float]:
    nothing = float("nan")
    if len(values) < 2:
        return (float(values[0]) if len(values) else nothing, nothing, nothing)
    if len(values) > _MANY:
        mean = float(values.mean())
        half = float(norm.ppf((1 + confidence) / 2) * values.std(ddof=1) / np.sqrt(len(values)))
        return mean, mean - half, mean + half
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of very few different values SciPy says so, and gives NaN.
        found = bootstrap_interval(values, confidence=confidence, seed=seed)
    return found.mean, found.low, found.high


def _costs(frame: pandas.DataFrame, explainers: Sequence[str]) -> pandas.DataFrame:
    groups = frame.groupby("explainer")
    costs = groups.agg(n=("seconds", "size"), seconds=("seconds", "median"), passes=("passes", "mean"))
    costs["passes"] = costs["passes"].astype("float64")
    found = costs.reindex(list(explainers))
    found["n"] = found["n"].fillna(0).astype(int)
    return found.rename_axis("explainer").reset_index()


def _correlations(
    tables: Mapping[str, npt.NDArray[np.float64]], measures: Mapping[str, str], explainers: int
) -> pandas.DataFrame:
    pandas = require("pandas")
    names = list(measures)
    turned = [table if measures[name] == "higher" else -table for name, table in tables.items()]
    found = []
    for place in range(explainers):
        values = np.stack([table[:, place] for table in turned], 1) if turned else np.empty((0, 0))
        values = values[np.isfinite(values).any(1)] if len(values) else values
        if len(values) > 1:
            found.append(measure_correlations(values))
    if not found:
        return pandas.DataFrame(np.full((len(names),) * 2, np.nan), index=names, columns=names)
    stacked = np.stack(found)
    counted = np.isfinite(stacked).sum(0)
    mean = np.where(counted > 0, np.nansum(stacked, 0) / np.maximum(counted, 1), np.nan)
    return pandas.DataFrame(mean, index=names, columns=names)


def _json(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _records(frame: pandas.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): _json(value) for key, value in row.items()} for row in frame.to_dict("records")]


def _nested(frame: pandas.DataFrame) -> dict[str, dict[str, Any]]:
    return {str(row): {str(key): _json(value) for key, value in frame.loc[row].items()} for row in frame.index}
