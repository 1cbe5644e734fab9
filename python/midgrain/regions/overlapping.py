"""Regions that overlap: grown labels of several segmentations, as unions of the cells that they cut a picture into."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

__all__ = ["Regions", "overlapping_regions"]

_BITS = 64


@dataclass(frozen=True)
class Regions:
    """Regions of one picture or clip, that may overlap and need not cover it.

    Every pixel belongs to one cell; the pixels of a cell are in the same regions. So sums over regions are sums over
    few cells, and a region that is taken away changes only those that it shares cells with.
    """

    #: int64 [*S], the cell of each pixel, 0 .. n_cells - 1.
    cells: npt.NDArray[np.int64]
    #: int64 [n_cells], pixels in each cell.
    sizes: npt.NDArray[np.int64]
    #: bool [n_cells, n_regions] as compressed rows: which regions a cell is in.
    of_cell: Any
    #: The same as compressed columns: which cells a region consists of.
    of_region: Any

    @property
    def count(self) -> int:
        """How many regions there are."""
        return int(self.of_cell.shape[1])

    def cells_of(self, region: int) -> npt.NDArray[np.int32]:
        """The cells of one region."""
        start, end = self.of_region.indptr[region : region + 2]
        cells: npt.NDArray[np.int32] = self.of_region.indices[start:end]
        return cells

    def pairs_of(self, cells: npt.NDArray[np.integer[Any]]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Every (region, cell) with one of these cells in it: the regions, and the place of the cell in `cells`."""
        starts = self.of_cell.indptr[cells]
        lengths = self.of_cell.indptr[cells + 1] - starts
        places = np.repeat(np.arange(len(cells)), lengths)
        first = np.cumsum(lengths) - lengths
        regions: npt.NDArray[np.int32] = self.of_cell.indices[np.arange(len(places)) + (starts - first)[places]]
        return regions, places


def overlapping_regions(segmentations: Sequence[npt.NDArray[Any]], radii: Sequence[int]) -> Regions:
    """The labels of all segmentations as regions, each grown by a disk (in volumes a ball).

    Memory: one bit per region and pixel.

    Args:
        segmentations: integer labels [*S], each 0 .. n-1 on its own. Regions are numbered through them in this order;
            a label that no pixel has is a region without cells.
        radii: for each segmentation the pixels that its regions grow by in every direction, x^2 + y^2 <= radius^2.

    Example:
        >>> import numpy as np
        >>> from midgrain.regions.overlapping import overlapping_regions
        >>> regions = overlapping_regions([np.array([[0, 0, 0, 1, 1]])], [1])
        >>> regions.cells, [regions.cells_of(region).tolist() for region in range(regions.count)]
        (array([[0, 0, 1, 1, 2]]), [[0, 1], [1, 2]])
    """
    shape = segmentations[0].shape
    counts = [int(labels.max()) + 1 for labels in segmentations]
    # One bit per region: a whole word of them is grown at once.
    words = [
        _grown(word, radius).ravel()
        for labels, count, radius in zip(segmentations, counts, radii, strict=True)
        for word in _bit_masks(labels, count)
    ]
    # Neighbours are mostly in the same regions: only where a run of such pixels begins need words be compared.
    begins = np.zeros(words[0].size, dtype=bool)
    begins[0] = True
    for word in words:
        begins[1:] |= word[1:] != word[:-1]
    starts = begins.nonzero()[0]
    rows = np.stack([word[starts] for word in words], 1)
    order = np.lexsort(rows.T)
    differs = np.concatenate([[False], (rows[order[1:]] != rows[order[:-1]]).any(1)])
    sorted_cells = np.cumsum(differs)
    # Cells are numbered in the order of their first pixels.
    firsts = np.full(sorted_cells[-1] + 1, len(starts))
    np.minimum.at(firsts, sorted_cells, order)
    numbers = np.empty(len(firsts), dtype=np.int64)
    numbers[np.argsort(firsts)] = np.arange(len(firsts))
    cell_of_run = np.empty(len(starts), dtype=np.int64)
    cell_of_run[order] = numbers[sorted_cells]
    lengths = np.diff(starts, append=words[0].size)
    cells = np.repeat(cell_of_run, lengths).reshape(shape)
    sizes = np.bincount(cell_of_run, lengths, len(firsts)).astype(np.int64)
    of_cell = _incidence(rows[np.sort(firsts)], counts)
    return Regions(cells, sizes, of_cell, of_cell.tocsc())


def _bit_masks(labels: npt.NDArray[Any], count: int) -> Iterator[npt.NDArray[np.uint64]]:
    """Bit k of the j-th mask [*S] says: the label is 64 j + k."""
    for start in range(0, count, _BITS):
        bits = np.uint64(1) << (labels % _BITS).astype(np.uint64)
        yield np.where((labels >= start) & (labels < start + _BITS), bits, np.uint64(0))


def _grown(word: npt.NDArray[np.uint64], radius: int) -> npt.NDArray[np.uint64]:
    """Every bit's pixels grown by a disk or ball."""
    if radius == 0:
        return word
    # Rows of the disk: how far it reaches along the last axis, for every step along the others.
    steps = [range(-min(radius, n - 1), min(radius, n - 1) + 1) for n in word.shape[:-1]]
    rows: dict[int, list[tuple[int, ...]]] = {}
    for offset in product(*steps):
        left = radius**2 - sum(step**2 for step in offset)
        if left >= 0:
            rows.setdefault(math.isqrt(left), []).append(offset)
    grown = np.zeros_like(word)
    wide = word.copy()
    for width in range(max(rows) + 1):
        if 0 < width < word.shape[-1]:
            wide[..., width:] |= word[..., :-width]
            wide[..., :-width] |= word[..., width:]
        for offset in rows.get(width, ()):
            here, there = zip(*(_overlap(step) for step in offset), strict=True)
            grown[here] |= wide[there]
    return grown


def _overlap(step: int) -> tuple[slice, slice]:
    """Where pixels lie that have a neighbour so many steps on, and these neighbours."""
    if step >= 0:
        return slice(None, -step or None), slice(step, None)
    return slice(-step, None), slice(None, step)


def _incidence(rows: npt.NDArray[np.uint64], counts: Sequence[int]) -> Any:
    """Bool [cells, regions] from a bit per region."""
    blocks = []
    column = 0
    for count in counts:
        for start in range(0, count, _BITS):
            bits = np.arange(min(_BITS, count - start), dtype=np.uint64)
            blocks.append(sparse.csr_array((rows[:, column, None] >> bits) & np.uint64(1), dtype=bool))
            column += 1
    return sparse.hstack(blocks, format="csr")
