"""Which of several methods is better, how sure is that, and do measures and images agree on it?

Tables are [images, methods]: one measure's value of every method on every image. NaN stands for what is missing; pairs
of methods are compared on the images where both are there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, wilcoxon
from torch import Tensor

from midgrain.ops.checks import check_bool
from midgrain.stability import rank_correlation

__all__ = ["krippendorff_alpha", "measure_correlations", "wilcoxon_matrix", "win_matrix"]


def win_matrix(table: Any, higher_is_better: bool = True) -> npt.NDArray[np.float64]:
    """On which share of the images is one method better than another?

    Args:
        table: [images, methods], at least one of each.
        higher_is_better: False for deletion and the like.

    Returns:
        [methods, methods]: row i, column j is the share of images on which i is better than j, a draw counting half;
        NaN on the diagonal, and where no image has both.

    Raises:
        TypeError, ValueError: no such table, or infinity in it.

    Source: DeepMaps (2021), figure 7 (there less a half).

    Example:
        >>> import midgrain as mg
        >>> mg.measures.win_matrix([[0.9, 0.1], [0.8, 0.3], [0.2, 0.4], [0.5, 0.5]])
        array([[  nan, 0.625],
               [0.375,   nan]])
    """
    values = _table(table)
    values = values if check_bool(higher_is_better, "higher_is_better") else -values
    wins = np.full((values.shape[1],) * 2, np.nan)
    for i, j, mine, theirs in _pairs(values):
        wins[i, j] = np.mean((mine > theirs) + 0.5 * (mine == theirs))
        wins[j, i] = 1.0 - wins[i, j]
    return wins


def wilcoxon_matrix(table: Any, correct: bool = True) -> npt.NDArray[np.float64]:
    """Could the differences between two methods be chance? Wilcoxon's signed-rank test, two-sided, for every pair.

    Args:
        table: [images, methods].
        correct: correct for the number of pairs (Holm 1979), so that all p-values hold together.

    Returns:
        p-values [methods, methods], symmetric; 1 for methods that never differ, NaN on the diagonal and where no image
        has both.

    Raises:
        TypeError, ValueError: see `win_matrix`.

    Example:
        >>> import numpy as np, midgrain as mg
        >>> better = np.linspace(0.5, 0.9, 12)
        >>> mg.measures.wilcoxon_matrix(np.stack([better, better - 0.2], 1))[0, 1] < 0.001
        np.True_
    """
    values = _table(table)
    found = np.full((values.shape[1],) * 2, np.nan)
    for i, j, mine, theirs in _pairs(values):
        found[i, j] = found[j, i] = 1.0 if np.array_equal(mine, theirs) else wilcoxon(mine, theirs).pvalue
    upper = np.triu_indices(len(found), 1)
    if check_bool(correct, "correct"):
        found[upper] = _holm(found[upper])
        found.T[upper] = found[upper]
    return found


def krippendorff_alpha(table: Any) -> float:
    """Do images rank the methods alike? Krippendorff's alpha (ordinal) of the methods' ranks.

    Args:
        table: [images, methods], at least two of each; an image's missing methods have no rank.

    Returns:
        1 where all images rank the methods alike, about 0 where they rank them by chance, below 0 where they
        contradict each other; NaN where no image tells any two methods apart.

    Raises:
        TypeError, ValueError: see `win_matrix`; fewer than two images or methods.
        ModuleNotFoundError: the package krippendorff is not installed.

    Source: Tomsett et al., "Sanity checks for saliency metrics", 2020; DeepMaps (2021), appendix D.

    Example:
        >>> import midgrain as mg
        >>> mg.measures.krippendorff_alpha([[0.9, 0.5, 0.1], [0.8, 0.3, 0.2], [0.7, 0.6, 0.5]])
        1.0
    """
    values = _table(table)
    if min(values.shape) < 2:
        raise ValueError(f"table: expected at least two images and two methods, got shape {list(values.shape)}")
    try:
        import krippendorff
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "krippendorff_alpha: the package krippendorff is not installed; pip install 'midgrain[evaluate]'"
        ) from error
    ranks = rankdata(values, axis=1, nan_policy="omit")
    distinct = np.unique(ranks[np.isfinite(ranks)])
    if len(distinct) < 2:
        return float("nan")
    return float(krippendorff.alpha(reliability_data=ranks, level_of_measurement="ordinal"))


def measure_correlations(values: Any) -> npt.NDArray[np.float64]:
    """Do measures say the same of one method's explanations? Spearman's rank correlation for every pair of measures.

    Args:
        values: [images, measures].

    Returns:
        [measures, measures], symmetric, 1 on the diagonal; NaN where fewer than two images have both.

    Raises:
        TypeError, ValueError: see `win_matrix`.

    Source: DeepMaps (2021), figure 11.

    Example:
        >>> import midgrain as mg
        >>> mg.measures.measure_correlations([[1.0, 30.0], [2.0, 20.0], [3.0, 10.0]])
        array([[ 1., -1.],
               [-1.,  1.]])
    """
    table = _table(values)
    found = np.full((table.shape[1],) * 2, np.nan)
    for i, j, mine, theirs in _pairs(table):
        if len(mine) > 1:
            found[i, j] = found[j, i] = rank_correlation(mine, theirs)
    np.fill_diagonal(found, 1.0)
    return found


def _holm(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Holm's step-down correction; NaN are no tests."""
    tests = np.isfinite(p)
    order = np.argsort(p[tests], kind="stable")
    factors = len(order) - np.arange(len(order))
    stepped = np.minimum(np.maximum.accumulate(p[tests][order] * factors), 1.0)
    corrected = p.copy()
    corrected[np.flatnonzero(tests)[order]] = stepped
    return corrected


def _pairs(values: npt.NDArray[np.float64]) -> list[tuple[int, int, npt.NDArray[Any], npt.NDArray[Any]]]:
    """Every pair of columns, and their values where both have one."""
    found = []
    for i in range(values.shape[1]):
        for j in range(i + 1, values.shape[1]):
            both = np.isfinite(values[:, i]) & np.isfinite(values[:, j])
            if both.any():
                found.append((i, j, values[both, i], values[both, j]))
    return found


def _table(table: Any) -> npt.NDArray[np.float64]:
    array = table.detach().cpu().double().numpy() if isinstance(table, Tensor) else np.asarray(table)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"table: expected real numbers, got dtype {array.dtype}")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"table: expected [images, methods], at least one of each, got shape {list(array.shape)}")
    array = array.astype(np.float64)
    if np.isinf(array).any():
        raise ValueError("table: expected finite numbers or NaN, got infinity")
    return array
