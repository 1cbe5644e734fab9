"""Statistics of filter scores over the images of each class, from all of them at once, in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

__all__ = ["mean_and_variance", "top"]


def mean_and_variance(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every column of [n, K], rounded once at the end."""
    means, variances = [], []
    for column in values.T:
        numbers = [Fraction(float(each)) for each in column]
        mean = sum(numbers) / len(numbers)
        variance = sum((each - mean) ** 2 for each in numbers) / len(numbers)
        means.append(float(mean))
        variances.append(float(variance))
    return np.array(means), np.array(variances)


def top(column: np.ndarray, ids, n: int) -> list[tuple]:
    """The ids of the greatest values, of equal ones the first in `ids`."""
    order = sorted(range(len(column)), key=lambda place: (-column[place], place))
    return [(ids[place], float(column[place])) for place in order[:n]]
