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
# Bytes that numbers are kept in at a time.
_BLOCK = 2**18


class Values:
    """All the numbers.

    Args:
        length: K, the number of series.
    """

    #: Largest error of a percentile's rank, as a share of the numbers.
    rank_error = 0.0

    def __init__(self, length: int):
        # Blocks of one size, never made larger: many small arrays, or ones that grow, would scatter over memory
        # between a network's large ones. What is not written to yet costs nothing.
        self._shape = (max(1, _BLOCK // (4 * length)), length)
        self._blocks: list[npt.NDArray[np.float32]] = []
        self._count = 0

    def __getstate__(self) -> dict[str, object]:
        """Copied and sent to other processes without the room that is left."""
        return {"rows": self.rows()}

    def __setstate__(self, state: dict[str, npt.NDArray[np.float32]]) -> None:
        """From `__getstate__`."""
        Values.__init__(self, state["rows"].shape[1])
        self.add(state["rows"])

    @property
    def nbytes(self) -> int:
        """Of the numbers."""
        return 4 * self._count * self._shape[1]

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Add numbers [n, K]."""
        while len(rows):
            place = self._count % self._shape[0]
            if place == 0:
                self._blocks.append(np.empty(self._shape, np.float32))
            some = rows[: self._shape[0] - place]
            self._blocks[-1][place : place + len(some)] = some
            self._count += len(some)
            rows = rows[len(some) :]

    def rows(self) -> npt.NDArray[np.float32]:
        """All of them, [n, K]."""
        if not self._blocks:
            return np.zeros((0, self._shape[1]), np.float32)
        return np.concatenate(self._blocks)[: self._count]

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
