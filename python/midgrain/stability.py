"""When has an estimate that more samples only refine settled?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

__all__ = ["Stability", "check_stop_at", "rank_correlation"]


class Stability:
    """Compares successive estimates of the same scores.

    Args:
        threshold: Spearman's rank correlation of one estimate with the one before from which they count as the same;
            None never settles.
        patience: so many times in a row.

    Raises:
        TypeError, ValueError: see `check_stop_at`.
    """

    def __init__(self, threshold: float | None, patience: int = 2):
        self.threshold = check_stop_at(threshold)
        self.patience = patience
        self._last: npt.NDArray[np.float64] | None = None
        self._in_a_row = 0

    def settled(self, scores: npt.ArrayLike) -> bool:
        """Takes the next estimate, of any shape; True once enough of them agreed in a row."""
        if self.threshold is None:
            return False
        now = np.asarray(scores, dtype=np.float64).ravel()
        agree = self._last is not None and rank_correlation(self._last, now) >= self.threshold
        self._in_a_row = self._in_a_row + 1 if agree else 0
        self._last = now.copy()
        return self._in_a_row >= self.patience


def check_stop_at(value: object) -> float | None:
    """A rank correlation from which an estimate has settled, or None.

    Raises:
        TypeError: no number.
        ValueError: not in 0 .. 1.
    """
    if value is None:
        return None
    if isinstance(value, bool | np.bool_) or not isinstance(value, float | int | np.number):
        raise TypeError(f"stop_at: expected None or a rank correlation, got {type(value).__name__}")
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"stop_at: expected None or a rank correlation in 0 .. 1, got {value}")
    return float(value)


def rank_correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Spearman's rank correlation; of a constant with a constant 1, with anything else 0.

    Example:
        >>> from midgrain.stability import rank_correlation
        >>> rank_correlation([1.0, 2.0, 3.0], [10.0, 20.0, 90.0])
        1.0
    """
    ranks = [rankdata(np.asarray(each, dtype=np.float64).ravel()) for each in (a, b)]
    first, second = (each - each.mean() for each in ranks)
    spread = float(np.sqrt((first @ first) * (second @ second)))
    if spread == 0.0:
        return float(not first.any() and not second.any())
    return float(np.clip(first @ second / spread, -1.0, 1.0))
