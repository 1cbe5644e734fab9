"""What one class's images gave at every filter: sums, the most extreme values and the images they are of."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt

from midgrain.failures.exact_sums import ExactSums
from midgrain.failures.quantiles import Sketches, Values, lerp

__all__ = ["NO_IMAGE", "ClassStatistics"]

#: In place of an image's number, where there are fewer.
NO_IMAGE = -1


class ClassStatistics:
    """Grows with every batch; order and batches do not matter.

    Args:
        filters: K.
        keep: t, how many of the greatest and of the least values are kept for every filter.
    """

    def __init__(self, filters: int, keep: int):
        self.sums = ExactSums(filters)
        #: Greatest first, and the images they are of; of equal values the image with the lower number first.
        self.high = np.full((filters, keep), -np.inf, np.float32)
        self.high_images = np.full((filters, keep), NO_IMAGE, np.int64)
        #: Least first.
        self.low = np.full((filters, keep), np.inf, np.float32)
        #: What is between; None where there was no room.
        self.between: Values | Sketches | None = Values(filters)

    @property
    def count(self) -> int:
        """Images."""
        return self.sums.count

    def add(self, values: npt.NDArray[np.float32], images: npt.NDArray[np.int64]) -> None:
        """Add images: their values [n, K] and numbers [n]."""
        self.sums.add(values)
        if self.between is not None:
            self.between.add(values)
        self._keep_high(values.T, np.broadcast_to(images, values.T.shape))
        self._keep_low(values.T)

    def merged(self, other: ClassStatistics) -> ClassStatistics:
        """Both together, but for what is between; neither is changed."""
        made = ClassStatistics(*self.high.shape)
        made.sums = copy.deepcopy(self.sums)
        made.sums.merge(other.sums)
        made.high, made.high_images, made.low = self.high.copy(), self.high_images.copy(), self.low.copy()
        made._keep_high(other.high, other.high_images)
        made._keep_low(other.low)
        made.between = None
        return made

    def shares_images(self, other: ClassStatistics) -> npt.NDArray[np.int64]:
        """Numbers of images that both have among the greatest values of one filter."""
        same = (self.high_images[:, :, None] == other.high_images[:, None, :]) & (
            self.high_images[:, :, None] != NO_IMAGE
        )
        found: npt.NDArray[np.int64] = np.unique(self.high_images[same.any(2)])
        return found

    def percentile(self, q: float) -> npt.NDArray[np.float64] | None:
        """Of every filter, [K]; None where neither the extremes nor what is between say it.

        Exact where all values are kept, and where the percentile lies among the extremes.
        """
        place = (q / 100.0) * (self.count - 1)
        below = int(np.floor(place))
        ends = [self._ranked(below), self._ranked(min(below + 1, self.count - 1))]
        if ends[0] is not None and ends[1] is not None:
            return lerp(ends[0], ends[1], place - below)
        return None if self.between is None else self.between.percentile(q)

    def _ranked(self, place: int) -> npt.NDArray[np.float64] | None:
        """The value with so many below it."""
        kept = self.high.shape[1]
        if place < kept:
            return self.low[:, place].astype(np.float64)
        if self.count - 1 - place < kept:
            return self.high[:, self.count - 1 - place].astype(np.float64)
        return None

    def _keep_high(self, values: npt.NDArray[np.float32], images: npt.NDArray[np.int64]) -> None:
        """Values [K, n] and their images' numbers."""
        rows = np.flatnonzero((values >= self.high[:, -1:]).any(1))  # Later on few filters see a new extreme.
        if not len(rows):
            return
        everything = np.concatenate([self.high[rows], values[rows]], 1)
        numbers = np.concatenate([self.high_images[rows], images[rows]], 1)
        # Places without an image go last.
        order = np.lexsort((np.where(numbers == NO_IMAGE, np.iinfo(np.int64).max, numbers), -everything))
        order = order[:, : self.high.shape[1]]
        self.high[rows] = np.take_along_axis(everything, order, 1)
        self.high_images[rows] = np.take_along_axis(numbers, order, 1)

    def _keep_low(self, values: npt.NDArray[np.float32]) -> None:
        rows = np.flatnonzero((values < self.low[:, -1:]).any(1))
        if len(rows):
            everything = np.concatenate([self.low[rows], values[rows]], 1)
            everything.sort(1)
            self.low[rows] = everything[:, : self.low.shape[1]]
