"""Jitter-CAM from some of the windows of a shared trunk: what padding does to the others is interpolated."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from midgrain.cams.patch_maps import PatchGrid

__all__ = ["interpolated_maps", "offsets_at", "windows_at"]


def offsets_at(count: int, step: int) -> list[int]:
    """Every step-th of the offsets 0 .. count - 1, the last one included."""
    offsets = list(range(0, count, step))
    return offsets if offsets[-1] == count - 1 else [*offsets, count - 1]


def windows_at(patches: PatchGrid, step: int) -> list[int]:
    """The numbers of the windows at such offsets along every axis, in row-major order."""
    numbers = []
    for offset in itertools.product(*(offsets_at(count, step) for count in patches.grid)):
        number = 0
        for position, count in zip(offset, patches.grid, strict=True):
            number = number * count + position
        numbers.append(number)
    return numbers


def interpolated_maps(known: Tensor, whole: Tensor, patches: PatchGrid, step: int) -> Tensor:
    """The maps of all windows [B, n, *m] from those at every step-th offset.

    A window's map is the whole input's, cut out, but for what the padding around the window does. That difference
    varies slowly as the window moves, at the same place of the window: it is interpolated linearly between windows.

    Args:
        known: the maps of `windows_at(patches, step)` with their signs, [B, k, *m].
        whole: the map of the whole enlarged input with its signs, [B, *(m + d)].
        patches: where the windows lie.
        step: see `offsets_at`.
    """
    axes = len(patches.cells)
    knots = [offsets_at(count, step) for count in patches.grid]
    cut = whole
    for axis, cells in enumerate(patches.cells):
        cut = cut.unfold(axis + 1, cells, 1)  # [B, *(d + 1), *m]
    known = known.reshape(known.shape[0], *(len(each) for each in knots), *known.shape[2:])
    index = torch.meshgrid(*(torch.tensor(each, device=cut.device) for each in knots), indexing="ij")
    here: tuple[Any, ...] = (slice(None), *index)
    effect = known - cut[here]
    for axis, (count, each) in enumerate(zip(patches.grid, knots, strict=True)):
        weights = _linear(count, each).to(effect)
        with torch.autocast(effect.device.type, enabled=False):
            effect = torch.tensordot(effect, weights, dims=([axis + 1], [1])).movedim(-1, axis + 1)
    return (cut + effect).reshape(known.shape[0], -1, *known.shape[1 + axes :])


def _linear(count: int, knots: Sequence[int]) -> Tensor:
    """[count, knots]: the weights of linear interpolation from values at `knots`."""
    weights = torch.zeros(count, len(knots), dtype=torch.float64)
    for position in range(count):
        right = next(k for k, knot in enumerate(knots) if knot >= position)
        left = max(right - 1, 0)
        share = 1.0 if right == left else (position - knots[left]) / (knots[right] - knots[left])
        weights[position, left] += 1.0 - share
        weights[position, right] += share
    return weights
