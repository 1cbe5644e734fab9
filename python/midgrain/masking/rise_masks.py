"""RISE's masks: random grids of bits, enlarged linearly and cut out at a random place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["RiseMasks"]

# Masks are drawn so many at a time, however many are used at once: the n-th mask depends on seed and size alone.
_DRAWN_AT_ONCE = 256


class RiseMasks:
    """Masks of one size, each made when it is needed (Petsiuk et al. 2018, section 3.2).

    Along an axis of n pixels with s cells a cell is ceil(n / s) pixels. The grid is resized to s + 1 cells, linearly
    and mirrored at its ends, and n pixels are cut out from a shift of 0 .. cell - 1 on: what
    `skimage.transform.resize(grid, (s + 1) * cell, order=1, mode="reflect")` gives, axis by axis.

    Args:
        size: pixels along each axis.
        grid: cells along each axis.
        share: the probability that a cell is kept.
        seed: of grids and shifts.
        device: where the masks are wanted.
    """

    def __init__(self, size: Sequence[int], grid: Sequence[int], share: float, seed: int, device: torch.device):
        self.size, self.grid, self.share, self.device = tuple(size), tuple(grid), share, device
        self.cell = tuple(math.ceil(n / s) for n, s in zip(self.size, self.grid, strict=True))
        self._lines = [
            _windows(_resizing(cells, (cells + 1) * cell), cell, pixels).to(device)
            for pixels, cells, cell in zip(self.size, self.grid, self.cell, strict=True)
        ]
        self._generator = torch.Generator().manual_seed(seed)
        self._grids = torch.empty(0, *self.grid, dtype=torch.float32)
        self._shifts = torch.empty(0, len(self.size), dtype=torch.int64)

    def next(self, count: int) -> Tensor:
        """The next `count` masks, float32 [count, *size] in 0 .. 1."""
        while len(self._grids) < count:
            grids, shifts = self._draw()
            self._grids, self._shifts = torch.cat([self._grids, grids]), torch.cat([self._shifts, shifts])
        grids, self._grids = self._grids.split([count, len(self._grids) - count])
        shifts, self._shifts = self._shifts.split([count, len(self._shifts) - count])
        return self.enlarged(grids, shifts)

    def enlarged(self, grids: Tensor, shifts: Tensor) -> Tensor:
        """The masks of given grids and shifts.

        Args:
            grids: float32 [n, *grid].
            shifts: int64 [n, axes], each 0 .. cell - 1 of its axis.

        Returns:
            float32 [n, *size].
        """
        masks, shifts = grids.to(self.device), shifts.to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            for axis, lines in enumerate(self._lines):
                chosen = lines[shifts[:, axis]]  # [n, pixels, cells]
                before, cells, after = math.prod(self.size[:axis]), self.grid[axis], math.prod(self.grid[axis + 1 :])
                if after > 1:
                    masks = chosen[:, None] @ masks.reshape(-1, before, cells, after)
                else:  # One large product instead of many small ones.
                    masks = masks.reshape(-1, before, cells) @ chosen.mT
        return masks.reshape(-1, *self.size)

    def _draw(self) -> tuple[Tensor, Tensor]:
        grids = torch.rand((_DRAWN_AT_ONCE, *self.grid), generator=self._generator, dtype=torch.float32) < self.share
        shifts = [torch.randint(cell, (_DRAWN_AT_ONCE,), generator=self._generator) for cell in self.cell]
        return grids.float(), torch.stack(shifts, 1)


def _resizing(cells: int, pixels: int) -> Tensor:
    """Linear interpolation of `cells` values at the centres of `pixels` equal parts, mirrored at the ends.

    The mirror lies on the centre of the outer cell: beyond it, the value of the next cell comes in again.

    Returns:
        float64 [pixels, cells], rows that sum to 1.
    """
    places = ((torch.arange(pixels, dtype=torch.float64) + 0.5) * (cells / pixels) - 0.5).abs()
    places = torch.where(places > cells - 1, 2 * (cells - 1) - places, places).clamp(0, cells - 1)
    low = places.floor().long().clamp(max=max(cells - 2, 0))
    part = places - low
    matrix = torch.zeros(pixels, cells, dtype=torch.float64)
    rows = torch.arange(pixels)
    matrix[rows, low] += 1.0 - part
    matrix[rows, (low + 1).clamp(max=cells - 1)] += part
    return matrix


def _windows(matrix: Tensor, count: int, length: int) -> Tensor:
    """The first `count` windows of `length` rows, float32 [count, length, cells]."""
    return torch.stack([matrix[start : start + length] for start in range(count)]).float()
