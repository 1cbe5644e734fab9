"""Windows that slide over an image or clip and together cover it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

__all__ = ["Windows"]


class Windows:
    """Windows of one size at every multiple of a stride, the last along an axis cut at the border.

    Along an axis of n pixels there are ceil((n - window) / stride) + 1 of them, which cover every pixel as long as
    the stride is no longer than the window. They are numbered in raster order, the last axis fastest.

    Args:
        size: pixels along each axis.
        window: pixels of a window along each axis, 1 .. size.
        stride: pixels from one to the next, 1 .. window.
        device: where masks and sums are wanted.
    """

    def __init__(self, size: Sequence[int], window: Sequence[int], stride: Sequence[int], device: torch.device):
        #: How many there are along each axis.
        self.counts = tuple(math.ceil((n - w) / s) + 1 for n, w, s in zip(size, window, stride, strict=True))
        # Per axis bool [windows, pixels]: which pixels each of them covers.
        self._covers = [
            _covered(n, w, s, count, device) for n, w, s, count in zip(size, window, stride, self.counts, strict=True)
        ]

    def __len__(self) -> int:
        return math.prod(self.counts)

    def masks(self, numbers: Sequence[int]) -> Tensor:
        """Bool [n, *size], true inside the windows of these numbers."""
        places = torch.unravel_index(torch.tensor(list(numbers), device=self._covers[0].device), self.counts)
        lines = [cover[place] for cover, place in zip(self._covers, places, strict=True)]
        return reduce(lambda mask, line: mask[..., None] & _broadcast(line, mask), lines[1:], lines[0])

    def mean(self, values: Tensor) -> Tensor:
        """Per pixel the mean value of the windows that cover it.

        Args:
            values: float64 [..., windows].

        Returns:
            float64 [..., *size].
        """
        batch = values.shape[:-1]
        sums = values.reshape(*batch, *self.counts)
        with torch.autocast(values.device.type, enabled=False):
            for cover in self._covers:
                # The first of the remaining axes becomes pixels and moves to the end.
                sums = torch.tensordot(sums, cover.to(values.dtype), dims=([len(batch)], [0]))
        shares = [cover.sum(0).to(values.dtype) for cover in self._covers]
        counts = reduce(lambda product, line: product[..., None] * line, shares[1:], shares[0])
        return sums / counts


def _covered(pixels: int, window: int, stride: int, count: int, device: torch.device) -> Tensor:
    start = torch.arange(count, device=device)[:, None] * stride
    place = torch.arange(pixels, device=device)
    return (place >= start) & (place < start + window)


def _broadcast(line: Tensor, mask: Tensor) -> Tensor:
    """[n, pixels] to the rank of [n, ..., 1] with its pixels last."""
    return line.reshape(len(line), *[1] * (mask.ndim - 1), line.shape[-1])
