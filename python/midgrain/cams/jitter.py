"""Jitter-CAM: a class activation map of higher resolution, from overlapping patches of the enlarged input."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from midgrain import driver, ops
from midgrain.cams.base import CAM, FormulaCAM, LayerMaps, resize_maps
from midgrain.cams.gradient import GradCAM
from midgrain.cams.layers import Layer, Reshape
from midgrain.cams.patch_maps import Inner, PatchGrid, exact_maps
from midgrain.cams.shared_trunk import CannotShare, SharedTrunk
from midgrain.cams.window_steps import interpolated_maps, windows_at
from midgrain.driver import Target
from midgrain.network.capture import capture
from midgrain.network.modules import unwrapped
from midgrain.ops.arrays import kernel_device
from midgrain.ops.checks import check_bool, check_int, check_int_per_axis, check_positive
from midgrain.ops.patches import MAX_PIXELS
from midgrain.progress import progress_bar

__all__ = ["JitterCAM"]

#: One number for all axes, or one for each.
PerAxis: TypeAlias = int | Sequence[int]

# Patches, or windows of a shared trunk, that go through the network together.
_CPU_PATCHES, _CPU_WINDOWS, _ELSEWHERE = 4, 16, 64
# Shared trunks remembered: networks, sizes of inputs, scales.
_MOST_TRUNKS = 16


class JitterCAM(CAM):
    """Jitter-CAM (Thesis 5.3), for images of any aspect and for clips.

    A network that sees p pixels as m cells sees the input enlarged by d cells, p + d p / m pixels, in (d + 1)^2
    overlapping patches one cell apart; each cell of the (m + d)^2 map is the mean of the patches' maps that cover it.
    The class is the whole input's for every patch, and patches' maps are not rescaled before they are averaged.

    Args:
        inner: the class activation map of a patch: one of `midgrain.methods()`, or a CAM of one layer.
        scale: the finer map's side, relative to the inner one's: 2 doubles it.
        map_size: the finer map's size instead, at least the inner one's: one number for height and width, or one for
            every axis.
        scales: several scales instead; their maps are enlarged to the finest and averaged.
        temporal_scale: likewise for the time axis of clips, which keeps its cells by default.
        shared_trunk: True runs the network up to its last down-sampling once on the enlarged input, and only the rest
            for every patch, which is many times faster and nearly the same; False runs every patch alone; None shares
            where that was found to be as good, see `SharedTrunk.suits`.
        split: with a shared trunk, the module that ends it, or its dotted name; by default it is found.
        window_step: with a shared trunk, run only every so many-th window along each axis; what the padding of the
            others does is interpolated. 2 takes about half the time of the windows' part and is a little less exact.
        batch_size: patches that go through the network together; None chooses.
        progress: show a progress bar on the standard error.
        layer: of the inner map, where it is given by name, see `CAM`.
        reshape: likewise.
        **options: likewise, of the inner map.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=4, padding=1), torch.nn.ReLU(),
        ...                             torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> e = mg.explainer("jittercam", model, scale=2.0)(torch.rand(2, 3, 32, 48))
        >>> e.cam.shape, e.heatmap.shape
        (torch.Size([2, 16, 24]), torch.Size([2, 32, 48]))
    """

    at_layer = False

    def __init__(
        self,
        inner: str | CAM = "gradcam",
        scale: float = 2.0,
        *,
        map_size: PerAxis | None = None,
        scales: Sequence[float] | None = None,
        temporal_scale: float = 1.0,
        shared_trunk: bool | None = None,
        split: Layer | None = None,
        window_step: int = 1,
        batch_size: int | None = None,
        progress: bool = False,
        layer: Layer | Sequence[Layer] | None = None,
        reshape: Reshape | None = None,
        **options: Any,
    ):
        inner = _inner(inner, options, layer=layer, reshape=reshape)
        super().__init__(inner.layers, inner.reshape)
        if inner.layers is not None and len(inner.layers) > 1:
            raise ValueError("layer: expected one layer for 'jittercam', whose cells the patches are laid on")
        if not inner.at_layer:
            raise ValueError(f"inner: expected a map at its layer's resolution, got {type(inner).__name__}")
        if shared_trunk is not None and not isinstance(shared_trunk, bool):
            raise TypeError(f"shared_trunk: expected True, False or None, got {type(shared_trunk).__name__}")
        if split is not None and shared_trunk is False:
            raise ValueError("split: it goes with shared_trunk=True")
        self.shared_trunk = True if split is not None else shared_trunk
        if self.shared_trunk and not isinstance(inner, FormulaCAM):
            raise ValueError(
                f"shared_trunk: {type(inner).__name__} runs the network on more than the patches; use "
                "shared_trunk=False"
            )
        self.window_step = check_int(window_step, "window_step", 1)
        if self.window_step > 1 and (shared_trunk is False or type(inner) is not GradCAM or inner.temporal != "clip"):
            raise ValueError(
                f"window_step: expected 1 without a shared trunk of 'gradcam', got {window_step}; what padding does is "
                "known there"
            )
        self.inner = inner
        self.map_size = map_size
        self.scales = _checked_scales(scale, scales)
        if map_size is not None and (scales is not None or scale != 2.0):
            raise ValueError("map_size: expected without scale or scales, which say the same")
        self.temporal_scale = _at_least_one(temporal_scale, "temporal_scale")
        if self.window_step > 1:
            self.shared_trunk = True
        self.split = split
        self.batch_size = None if batch_size is None else check_int(batch_size, "batch_size", 1)
        self.progress = check_bool(progress, "progress")
        self._trunks: dict[Any, SharedTrunk | CannotShare] = {}

    def layer_maps(self, model: Any, x: Tensor, target: Target) -> LayerMaps:
        """One pass of the whole input, then of its patches.

        Raises:
            TypeError, ValueError: see the inner map; a map size below the inner one's; a shared trunk that is asked
                for and impossible; a network that does not take its input again.
        """
        network = unwrapped(model)
        (site,) = self.inner.sites(network, x, target)
        shape = self.inner.trace(network, x, target).of(site.module)[site.call].shapes[site.item]
        cells = tuple(site.layout.maps(x.new_zeros(shape)).shape[2:])
        grids = self._grids(cells, x)
        whole = None
        if isinstance(self.inner, FormulaCAM):
            whole = capture(network, x, target, [site], backward=self.inner.backward)
        result = driver.forward(network, x, target) if whole is None else whole.result
        inner = Inner(self.inner, network, site, target if result.target is None else result.target, whole)
        with progress_bar("jittercam", x.shape[0] * sum(grid.count for grid in grids), shown=self.progress) as advance:
            maps = [self._finer(inner, x, grid, advance) for grid in grids]
        finest = tuple(max(sizes) for sizes in zip(*(each.shape[1:] for each in maps), strict=True))
        alike = [each if tuple(each.shape[1:]) == finest else resize_maps(each, finest) for each in maps]
        return LayerMaps((torch.stack(alike).mean(0),), result)

    def _grids(self, cells: tuple[int, ...], x: Tensor) -> list[PatchGrid]:
        """The patches of every scale for a map of `cells`.

        Raises:
            ValueError: a map size below `cells`, or an enlarged input that is too large.
        """
        if self.map_size is not None:
            finer = _per_axis(self.map_size, cells)
            increases = [[f - m for f, m in zip(finer, cells, strict=True)]]
        else:
            time = [self.temporal_scale] * (len(cells) - 2)
            increases = [
                [round((factor - 1.0) * m) for factor, m in zip([*time, scale, scale], cells, strict=True)]
                for scale in self.scales
            ]
        grids = [PatchGrid(cells, tuple(d + 1 for d in increase), tuple(x.shape[2:])) for increase in increases]
        for grid in grids:
            if math.prod(grid.size) > MAX_PIXELS:
                name = "scale" if self.map_size is None else "map_size"
                raise ValueError(f"{name}: expected an enlarged input of fewer than 2^31 pixels, got {list(grid.size)}")
        return grids

    def _finer(self, inner: Inner, x: Tensor, patches: PatchGrid, advance: Callable[[int], None]) -> Tensor:
        """The map [B, *(m + d)] from the maps of all patches."""
        samples = x.shape[0]
        if patches.count == 1 and inner.seen is not None:
            assert isinstance(inner.cam, FormulaCAM)
            advance(samples)
            return inner.cam.formulas(inner.seen)[0]
        trunk = self._trunk(inner, x, patches)
        on_cpu = _CPU_PATCHES if trunk is None else _CPU_WINDOWS
        batch = self.batch_size or (on_cpu if x.device.type == "cpu" else _ELSEWHERE)
        # A callable may pick a class for each sample, so it always sees all of them, one patch of each.
        together = samples if callable(inner.target) else min(batch, samples)
        count = 1 if callable(inner.target) else max(1, batch // together)
        finer = []
        for first in range(0, samples, together):
            rows = slice(first, min(first + together, samples))
            if trunk is None:
                maps = self._exact(inner, x, rows, patches, count, advance)
            else:
                maps = self._shared(trunk, inner, x, rows, patches, count, advance)
            finer.append(ops.aggregate_patches(maps.to(kernel_device(maps)), patches.grid).to(x.device))
        return torch.cat(finer)

    def _exact(
        self, inner: Inner, x: Tensor, rows: slice, patches: PatchGrid, count: int, advance: Callable[[int], None]
    ) -> Tensor:
        """The maps of all patches of some samples, [B, n, *m], each run alone."""
        maps = []
        for start in range(0, patches.count, count):
            number = min(count, patches.count - start)
            maps.append(exact_maps(inner, x, rows, patches, start, number))
            advance(number * (rows.stop - rows.start))
        return torch.cat(maps, 1)

    def _shared(
        self,
        trunk: SharedTrunk,
        inner: Inner,
        x: Tensor,
        rows: slice,
        patches: PatchGrid,
        count: int,
        advance: Callable[[int], None],
    ) -> Tensor:
        """Likewise with a shared trunk."""
        features = trunk.features(x[rows], patches)
        numbers = windows_at(patches, self.window_step)
        relu = isinstance(inner.cam, GradCAM) and inner.cam.relu
        if self.window_step > 1:
            if not inner.needs_activations_only:
                raise ValueError(
                    f"window_step: expected 1 for a network whose score is no affine function of {inner.site.name}, "
                    f"got {self.window_step}"
                )
            inner = replace(inner, cam=_with_signs(inner.cam))
        maps = []
        for start in range(0, len(numbers), count):
            some = numbers[start : start + count]
            maps.append(trunk.maps(inner, features, rows, patches, some))
            advance(len(some) * (rows.stop - rows.start))
        known = torch.cat(maps, 1)
        if self.window_step == 1:
            return known
        every = interpolated_maps(known, trunk.whole_maps(inner, features, rows, patches), patches, self.window_step)
        return every.clamp(min=0) if relu else every

    def _trunk(self, inner: Inner, x: Tensor, patches: PatchGrid) -> SharedTrunk | None:
        """The shared trunk, None where every patch runs alone."""
        if self.shared_trunk is False or not isinstance(inner.cam, FormulaCAM):
            return None
        key = (inner.network, inner.site, tuple(x.shape[1:]), x.dtype, x.device, patches)
        found = self._trunks.get(key)
        if found is None:
            trace = inner.cam.trace(inner.network, x, inner.target)
            try:
                found = SharedTrunk(inner.network, trace, x, inner.site, patches, self.split)
            except CannotShare as error:
                found = CannotShare(str(error))  # without its traceback, which holds tensors
            if len(self._trunks) >= _MOST_TRUNKS:
                self._trunks.clear()
            self._trunks[key] = found
        if isinstance(found, CannotShare):
            if self.shared_trunk:
                raise found
            return None
        if self.shared_trunk is None and not found.suits(inner):
            return None
        return found


def _inner(inner: str | CAM, options: dict[str, Any], **of_layer: Any) -> CAM:
    if isinstance(inner, str):
        from midgrain.cams import make_cam  # It knows this class too.

        return make_cam(inner, **of_layer, **options)
    if not isinstance(inner, CAM):
        raise TypeError(f"inner: expected a method's name or a CAM, got {type(inner).__name__}")
    given = options | {name: value for name, value in of_layer.items() if value is not None}
    if given:
        raise TypeError(f"inner: a CAM has its own options, got {', '.join(sorted(given))} too")
    return inner


def _with_signs(cam: CAM) -> CAM:
    """The same map before its ReLU."""
    assert isinstance(cam, GradCAM)
    signed = copy.copy(cam)
    signed.relu = False
    return signed


def _per_axis(map_size: PerAxis, cells: tuple[int, ...]) -> list[int]:
    if isinstance(map_size, list | tuple | np.ndarray) or len(cells) == 2:
        finer = check_int_per_axis(map_size, "map_size", len(cells), 1)
    else:
        finer = [cells[0], *check_int_per_axis(map_size, "map_size", 2, 1)]
    if any(f < m for f, m in zip(finer, cells, strict=True)):
        raise ValueError(f"map_size: expected at least the inner map's {list(cells)}, got {finer}")
    return finer


def _checked_scales(scale: float, scales: Sequence[float] | None) -> tuple[float, ...]:
    if scales is None:
        return (_at_least_one(scale, "scale"),)
    if not isinstance(scales, list | tuple | np.ndarray):
        raise TypeError(f"scales: expected a sequence of numbers, got {type(scales).__name__}")
    if scale != 2.0:
        raise ValueError("scales: expected without scale, which says the same")
    if not scales:
        raise ValueError("scales: expected at least one number, got none")
    return tuple(_at_least_one(each, "scales") for each in scales)


def _at_least_one(value: float, name: str) -> float:
    number = check_positive(value, name)
    if number < 1.0:
        raise ValueError(f"{name}: expected 1 or more, got {value}")
    return number
