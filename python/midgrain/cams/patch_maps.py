"""The maps of Jitter-CAM's patches, by running the network on every patch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from midgrain import ops
from midgrain.cams.base import CAM, FormulaCAM
from midgrain.driver import Target
from midgrain.network.capture import Capture, Site, capture, run_until
from midgrain.ops.arrays import kernel_device
from midgrain.ops.patches import enlarged_size, patch_offset

__all__ = ["Inner", "PatchGrid", "exact_maps", "formula_maps"]


@dataclass(frozen=True)
class PatchGrid:
    """Where the patches lie, per spatial axis."""

    #: m, cells in the map of a patch.
    cells: tuple[int, ...]
    #: d + 1, patches along the axis, one cell apart.
    grid: tuple[int, ...]
    #: p, pixels of a patch: the input's own size.
    patch: tuple[int, ...]

    @property
    def count(self) -> int:
        """All patches."""
        return math.prod(self.grid)

    def window(self, number: int) -> tuple[slice, ...]:
        """Cuts a patch from the enlarged input [B, C, *size]: patch i of an axis begins at floor(i p / m + 1/2)."""
        slices: list[slice] = []
        for p, m, g in reversed(list(zip(self.patch, self.cells, self.grid, strict=True))):
            number, i = divmod(number, g)
            start = patch_offset(p, m, i)
            slices.insert(0, slice(start, start + p))
        return (slice(None), slice(None), *slices)

    @property
    def size(self) -> tuple[int, ...]:
        """Of the enlarged input, as far as the patches reach: p + floor(d p / m + 1/2)."""
        return tuple(enlarged_size(self.patch, self.cells, self.grid))


@dataclass(frozen=True)
class Inner:
    """The inner map, and what is known of the whole input."""

    cam: CAM
    network: nn.Module
    site: Site
    #: The whole input's classes [B], or the user's callable.
    target: Target
    #: The whole input's pass, where the inner map is a formula of activations and gradients.
    seen: Capture | None

    @property
    def needs_activations_only(self) -> bool:
        """Is the gradient the same for every patch, or not used at all?"""
        return self.seen is not None and (self.seen.affine or not self.seen.gradients)


def exact_maps(inner: Inner, x: Tensor, rows: slice, patches: PatchGrid, start: int, count: int) -> Tensor:
    """The maps of `count` patches of samples `rows`, [B, count, *m].

    Args:
        inner: what to make of a patch.
        x: the whole batch [B, C, *S]; on a GPU without kernels the patches are cut on the CPU.
        rows: the samples.
        patches: where they lie.
        start: the first patch.
        count: how many.
    """
    source = x[rows]
    cut = ops.extract_patches(source.to(kernel_device(source)), patches.cells, patches.grid, start=start, count=count)
    flat = cut.to(device=x.device, dtype=x.dtype).flatten(0, 1)
    if inner.seen is not None:
        return formula_maps(inner, inner.network, flat, rows, count, inner.site)
    target = per_patch(inner.target, rows, count)
    (maps,) = inner.cam.layer_maps(inner.network, flat, target).maps
    return maps.reshape(-1, count, *maps.shape[1:])


def formula_maps(
    inner: Inner, run: Callable[[Tensor], Any], flat: Tensor, rows: slice, count: int, site: Site
) -> Tensor:
    """The maps [B, count, *m] of patches that `run` takes as they are, [B * count, ...], and reaches `site` with."""
    assert isinstance(inner.cam, FormulaCAM)
    assert inner.seen is not None
    if not inner.needs_activations_only:
        seen = capture(run, flat, per_patch(inner.target, rows, count), [site])
        (maps,) = inner.cam.formulas(seen)
        return maps.reshape(-1, count, *maps.shape[1:])
    activations = site.layout.maps(run_until(run, flat, site)).float()
    gradients = None
    if inner.seen.gradients:
        gradients = inner.seen.gradients[0][rows].repeat_interleave(count, 0)
    with torch.no_grad():
        maps = inner.cam.formula(activations, gradients)
    return maps.reshape(-1, count, *maps.shape[1:])


def per_patch(target: Target, rows: slice, count: int) -> Target:
    """The whole inputs' classes, once for every patch."""
    return target[rows].repeat_interleave(count) if isinstance(target, Tensor) else target
