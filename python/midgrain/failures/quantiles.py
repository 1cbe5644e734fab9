"""Percentiles of many series of numbers: all numbers kept, or sketches of them, for what lies between the extremes."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Sketches", "Values", "can_sketch", "largest_sketch", "lerp"]

# The size of a sketch in the datasketches library: the smallest that it makes, and one that is as good as is needed,
# since extremes are kept apart.
_SMALLEST, _LARGEST = 8, 200
# Bytes of a sketch of size k in memory, measured: at most 700 + 14 k.
_BYTES, _BYTES_PER_SIZE = 700, 14
_FIRST_ROOM = 16


class Values:
    """All the numbers.

    Args:
        length: K, the number of series.
    """

    #: Largest error of a percentile's rank, as a share of the numbers.
    rank_error = 0.0

    def __init__(self, length: int):
        # Room for more than there are, at most twice as many: memory that is not written to yet costs nothing, and
        # many small arrays between a network's large ones would scatter over all of it.
        self._room = np.empty((_FIRST_ROOM, length), np.float32)
        self._count = 0

    @property
    def nbytes(self) -> int:
        """Of the numbers."""
        return self.rows().nbytes

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Add numbers [n, K]."""
        count = self._count + len(rows)
        if count > len(self._room):
            room = np.empty((max(count, 2 * len(self._room)), self._room.shape[1]), np.float32)
            room[: self._count] = self.rows()
            self._room = room
        self._room[self._count : count] = rows
        self._count = count

    def rows(self) -> npt.NDArray[np.float32]:
        """All of them, [n, K]."""
        return self._room[: self._count]

    def percentile(self, q: float) -> npt.NDArray[np.float64]:
        """Of every series, [K]; between two numbers a straight line."""
        found: npt.NDArray[np.float64] = np.percentile(self.rows().astype(np.float64), q, axis=0)
        return found

    def sketched(self, size: int) -> Sketches:
        """Sketches of them."""
        made = Sketches(self.rows().shape[1], size)
        made.add(self.rows())
        return made


class Sketches:
    """A KLL sketch of each series (Karnin, Lang, Liberty 2016), by Apache DataSketches.

    Args:
        length: K, the number of series.
        size: of a sketch, k.
        kept: what `serialised` gave.
    """

    def __init__(self, length: int, size: int, kept: Sequence[bytes] = ()):
        self.length, self.size = length, size
        library: Any = importlib.import_module("datasketches")
        self._sketches = library.vector_of_kll_floats_sketches(size, length)
        for place, each in enumerate(kept):
            self._sketches.deserialize(each, place)
        #: Largest error of a percentile's rank, as a share of the numbers, with a probability of 99 %.
        self.rank_error = float(library.kll_floats_sketch.get_normalized_rank_error(size, False))

    def __reduce__(self) -> tuple[type[Sketches], tuple[int, int, list[bytes]]]:
        """Copied and sent to other processes in the library's format."""
        return Sketches, (self.length, self.size, self.serialised())

    @property
    def nbytes(self) -> int:
        """Of memory, at most."""
        return self.length * (_BYTES + _BYTES_PER_SIZE * self.size)

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Add numbers [n, K]."""
        if len(rows):
            self._sketches.update(np.ascontiguousarray(rows))

    def merge(self, other: Sketches) -> None:
        """Add what another one has."""
        self._sketches.merge(other._sketches)

    def percentile(self, q: float) -> npt.NDArray[np.float64]:
        """Of every series, [K]: a number whose rank is off by no more than `rank_error`."""
        found: npt.NDArray[np.float64] = self._sketches.get_quantiles(q / 100.0).astype(np.float64)[:, 0]
        return found

    def serialised(self) -> list[bytes]:
        """In the library's own format, which its other languages read too."""
        kept: list[bytes] = self._sketches.serialize()
        return kept


def can_sketch() -> bool:
    """Is the library there?"""
    return importlib.util.find_spec("datasketches") is not None


def largest_sketch(series: int, memory: int) -> int | None:
    """The size of sketches of so many series that fit into so many bytes; None where the smallest do not."""
    size = (memory // series - _BYTES) // _BYTES_PER_SIZE
    return None if size < _SMALLEST else min(size, _LARGEST)


def lerp(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.float64]:
    """Between two numbers, rounded as `numpy.percentile` does it."""
    step = high - low
    return high - step * (1.0 - share) if share >= 0.5 else low + step * share
