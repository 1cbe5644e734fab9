"""XRAI's ranking: of overlapping regions, again and again the one whose new pixels have the highest mean score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from midgrain.regions.overlapping import Regions

__all__ = ["MODES", "Ranking", "rank_regions"]

#: "full" looks at what each region would still add, "fast" only once at each region as a whole.
MODES = ("full", "fast")

_Floats: TypeAlias = npt.NDArray[np.float64]

# Integers up to here are exact in float64, and so are their sums.
_EXACT_BITS = 53
_NONE = -1


@dataclass(frozen=True)
class Ranking:
    """Which pixels were added together, and how much they count."""

    #: int64 [*S], 0 .. n-1: highest gain first (of equal ones the first added); what no region added comes last.
    labels: npt.NDArray[np.int64]
    #: float64 [n], the mean attribution of each label's pixels.
    gains: _Floats


def rank_regions(
    attribution: npt.NDArray[np.floating[Any]],
    regions: Regions,
    *,
    mode: str = "full",
    min_pixel_diff: int = 50,
    area_threshold: float = 1.0,
) -> Ranking:
    """Add regions by their gain: the mean attribution of the pixels that they add (Kapishnikov et al. 2019).

    The same regions in the same order as `saliency.core.xrai` 0.2.1, which passes over all pixels of all regions for
    every region that it adds. Here sums are kept per region; adding a region touches only those that share cells with
    it. Attributions are rounded to multiples of 2^(bits of the pixel count - 53) of the largest, so that all sums are
    exact and equal gains are found equal (the first region wins).

    Args:
        attribution: finite [*S].
        regions: of the same pixels.
        mode: one of `MODES`.
        min_pixel_diff: a region that adds fewer pixels is dropped.
        area_threshold: "full" ends as soon as more than this share of the pixels is covered.

    Example:
        >>> import numpy as np
        >>> from midgrain.regions.overlapping import overlapping_regions
        >>> from midgrain.regions.region_growing import rank_regions
        >>> regions = overlapping_regions([np.array([[0, 0, 1, 1, 1]]), np.array([[0, 0, 0, 0, 1]])], [0, 0])
        >>> ranking = rank_regions(np.array([[1.0, 2.0, 4.0, 4.0, 7.0]]), regions, min_pixel_diff=1)
        >>> ranking.labels, ranking.gains
        (array([[2, 2, 1, 1, 0]]), array([7. , 4. , 1.5]))
    """
    whole, shift = _as_integers(attribution)
    sums = _totals(regions.cells.ravel(), whole.ravel(), len(regions.sizes))
    growing = _Growing(regions, sums)
    if mode == "full":
        growing.add_best(min_pixel_diff, area_threshold)
    else:
        growing.add_in_order(min_pixel_diff)
    gains = np.array(growing.gains, dtype=np.float64)
    order = np.argsort(-gains, kind="stable")
    ranks = np.empty(len(gains) + 1, dtype=np.int64)
    ranks[order] = np.arange(len(gains))
    ranks[_NONE] = len(gains)  # The cells that no region added have this number.
    gains = gains[order]
    left = growing.added_by == _NONE
    if left.any():
        gains = np.append(gains, sums[left].sum() / regions.sizes[left].sum())
    return Ranking(ranks[growing.added_by][regions.cells], np.ldexp(gains, -shift))


class _Growing:
    """What each region would still add."""

    def __init__(self, regions: Regions, sums: _Floats):
        self.regions = regions
        self.cell_sums = sums
        #: Per cell when the region that added it was added; -1 for none.
        self.added_by = np.full(len(sums), _NONE, dtype=np.int64)
        #: Per region sum of attributions and pixels that it would add.
        self.sums, self.pixels = self._in_regions(np.arange(len(sums)))
        self.gains: list[float] = []

    def add_best(self, min_pixel_diff: int, area_threshold: float) -> None:
        """Always the one with the highest gain."""
        covered = 0
        while covered / self.regions.cells.size <= area_threshold:
            self.pixels[self.pixels < min_pixel_diff] = 0
            open_regions = self.pixels.nonzero()[0]
            if not len(open_regions):
                break
            best = open_regions[np.argmax(self.sums[open_regions] / self.pixels[open_regions])]
            covered += int(self.pixels[best])
            new = self._add(best, self.sums[best], self.pixels[best])
            sums, pixels = self._in_regions(new)
            self.sums -= sums
            self.pixels -= np.minimum(pixels, self.pixels)  # Those dropped stay at 0.

    def add_in_order(self, min_pixel_diff: int) -> None:
        """Highest gain as a whole first."""
        inside = self.pixels > 0
        gains = np.divide(self.sums, self.pixels, out=np.full(len(inside), -np.inf), where=inside)
        for region in np.argsort(-gains, kind="stable"):
            cells = self._new_cells(region)
            pixels = self.regions.sizes[cells].sum()
            if pixels >= min_pixel_diff:
                self._add(region, self.cell_sums[cells].sum(), pixels)

    def _add(self, region: np.int64, total: np.float64, pixels: np.float64) -> npt.NDArray[np.int32]:
        new = self._new_cells(region)
        self.added_by[new] = len(self.gains)
        self.gains.append(float(total / pixels))
        return new

    def _new_cells(self, region: np.int64) -> npt.NDArray[np.int32]:
        cells = self.regions.cells_of(int(region))
        new: npt.NDArray[np.int32] = cells[self.added_by[cells] == _NONE]
        return new

    def _in_regions(self, cells: npt.NDArray[Any]) -> tuple[_Floats, _Floats]:
        """Sums of attributions and pixels of these cells, in each region."""
        regions, places = self.regions.pairs_of(cells)
        sums = _totals(regions, self.cell_sums[cells][places], self.regions.count)
        return sums, _totals(regions, self.regions.sizes[cells][places], self.regions.count)


def _totals(numbers: npt.NDArray[Any], values: npt.NDArray[Any], count: int) -> _Floats:
    """The sum of the values of each number 0 .. count - 1."""
    return np.bincount(numbers, values, count).astype(np.float64, copy=False)


def _as_integers(attribution: npt.NDArray[np.floating[Any]]) -> tuple[_Floats, int]:
    """Attributions times a power of two, rounded, such that no sum of them exceeds 2^53; and that power."""
    values = attribution.astype(np.float64)
    largest = float(np.abs(values).max())
    shift = _EXACT_BITS - attribution.size.bit_length() - int(np.frexp(largest)[1]) if largest > 0 else 0
    return np.rint(np.ldexp(values, shift)), shift
