"""Sums, means and variances of float32 numbers that do not depend on the order in which they come.

Each sum is a pair of float64 numbers, the second holding what the first cannot (double-double arithmetic, Dekker
1971): about 106 bits, of which a float32 needs 24 and its square 48. So a mean in float64 is the same whether numbers
come one by one, in batches or from several workers, unless they cancel to below 2^-40 of their sizes.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["ExactSums"]

_Array: TypeAlias = npt.NDArray[np.float64]
_Pair: TypeAlias = tuple[_Array, _Array]
# Splits a float64 into two halves of 26 bits.
_SPLIT = 2.0**27 + 1.0


class ExactSums:
    """The sums of K series of numbers and of their squares.

    Args:
        length: K.
    """

    def __init__(self, length: int):
        self.count = 0
        #: Sum and its rest, sum of squares and its rest: float64 [4, K].
        self.parts: _Array = np.zeros((4, length))

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Add finite numbers [n, K]."""
        if not len(rows):
            return
        self.count += len(rows)
        wide = rows.astype(np.float64)
        for place, numbers in ((0, wide), (2, wide * wide)):  # Squares of float32 are exact in float64.
            self._add(place, _sum(numbers))

    def merge(self, other: ExactSums) -> None:
        """Add what another one has."""
        self.count += other.count
        for place in (0, 2):
            self._add(place, (other.parts[place], other.parts[place + 1]))

    def mean(self) -> _Array:
        """Float64 [K]; NaN of no numbers."""
        return (
            _over((self.parts[0], self.parts[1]), self.count)[0] if self.count else np.full_like(self.parts[0], np.nan)
        )

    def variance(self) -> _Array:
        """Mean squared deviation from the mean, float64 [K]; NaN of no numbers."""
        if not self.count:
            return np.full_like(self.parts[0], np.nan)
        mean = _over((self.parts[0], self.parts[1]), self.count)
        square, rest = _product(mean[0], mean[0])
        squares = _over((self.parts[2], self.parts[3]), self.count)
        high, low = _plus(squares, (-square, -(rest + 2.0 * mean[0] * mean[1])))
        return np.maximum(high + low, 0.0)

    def _add(self, place: int, pair: _Pair) -> None:
        self.parts[place], self.parts[place + 1] = _plus((self.parts[place], self.parts[place + 1]), pair)


def _sum(rows: _Array) -> _Pair:
    """Over the first axis, in pairs of rows, pairs of these, and so on."""
    high, low = rows, np.zeros_like(rows)
    while len(high) > 1:
        half = len(high) // 2
        more = _plus((high[:half], low[:half]), (high[half : 2 * half], low[half : 2 * half]))
        odd = slice(2 * half, None)
        high, low = np.concatenate([more[0], high[odd]]), np.concatenate([more[1], low[odd]])
    return high[0], low[0]


def _two_sum(a: _Array, b: _Array) -> _Pair:
    """A + b and what float64 lost of it, exactly (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _plus(a: _Pair, b: _Pair) -> _Pair:
    high, error = _two_sum(a[0], b[0])
    low, lost = _two_sum(a[1], b[1])
    high, error = _two_sum(high, error + low)
    return _two_sum(high, error + lost)


def _product(a: _Array, b: _Array) -> _Pair:
    """A b and what float64 lost of it (Dekker)."""
    total = a * b
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    return total, ((a1 * b1 - total) + a1 * b2 + a2 * b1) + a2 * b2


def _halves(a: _Array) -> _Pair:
    shifted = _SPLIT * a
    high = shifted - (shifted - a)
    return high, a - high


def _over(pair: _Pair, count: int) -> _Pair:
    """Divided by a whole number."""
    high = pair[0] / count
    whole, rest = _product(high, np.full_like(high, count))
    return _two_sum(high, (pair[0] - whole - rest + pair[1]) / count)
