"""A failure report in numbers: how far beta tells errors, and how many errors come right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats

__all__ = ["summarise_failures"]

# A rank correlation of fewer samples says nothing.
_LEAST = 3


def summarise_failures(
    samples: Mapping[str, Sequence[Any]],
    failures: Mapping[str, Sequence[Any]],
    search_segments: Sequence[int],
    removals: Sequence[int],
) -> dict[str, Any]:
    """As JSON; None stands for what cannot be said.

    Args:
        samples: columns of all samples.
        failures: columns of the explained errors.
        search_segments: rows of the searches' grids.
        removals: their columns.
    """
    true, predicted = np.array(samples["true_class"], np.int64), np.array(samples["predicted"], np.int64)
    beta = np.array(samples["beta"], np.float64)
    wrong = true != predicted
    surprising, expected = (np.array(samples[name], np.int64) > 0 for name in ("n_surprising", "n_expected"))

    def by_kind(flags: npt.NDArray[np.bool_]) -> dict[str, float | None]:
        return {"errors": _mean(flags[wrong]), "correct": _mean(flags[~wrong])}

    return {
        "samples": len(true),
        "errors": int(wrong.sum()),
        "accuracy": _mean(~wrong),
        "negative_beta": by_kind(beta < 0),
        "surprised": by_kind(surprising),
        "missed": by_kind(expected),
        "spearman": {
            name: _spearman(true, beta, np.array(samples[name], np.float64)) for name in ("logit", "probability")
        },
        "repairs": _repairs(failures, search_segments, removals),
    }


def _mean(flags: npt.NDArray[np.bool_]) -> float | None:
    return float(flags.mean()) if len(flags) else None


def _spearman(
    true: npt.NDArray[np.int64], beta: npt.NDArray[np.float64], other: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Mean over the classes for which it is defined, and how many these are."""
    found = []
    order = np.argsort(true, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(true[order])) + 1):
        values = beta[rows], other[rows]
        if len(rows) >= _LEAST and all(np.ptp(each) > 0 for each in values):
            found.append(float(scipy_stats.spearmanr(*values).statistic))
    return {"mean": float(np.mean(found)) if found else None, "classes": len(found)}


def _repairs(
    failures: Mapping[str, Sequence[Any]], search_segments: Sequence[int], removals: Sequence[int]
) -> dict[str, Any] | None:
    """Of the errors that a repair was searched for; None where none was."""
    rows = [place for place, fixed in enumerate(failures["unfiltered_fixed"]) if fixed is not None]
    if not rows:
        return None
    found: dict[str, Any] = {
        "searched": len(rows),
        "with_filter": sum(failures["repair_fixed"][place] is not None for place in rows),
        "n_segments": list(search_segments),
        "removals": list(removals),
    }
    for name, column in (("filtered", "repair"), ("unfiltered", "unfiltered")):
        fixed = sum(bool(failures[f"{column}_fixed"][place]) for place in rows)
        grid = np.zeros(len(search_segments) * len(removals), np.int64)
        for place in rows:
            # Without a filter there is no grid: nothing is repaired.
            if failures[f"{column}_grid"][place]:
                grid += np.array(failures[f"{column}_grid"][place], np.int64)
        found[name] = {
            "fixed": fixed,
            "share": fixed / len(rows),
            "grid": grid.reshape(len(search_segments), len(removals)).tolist(),
        }
    return found
