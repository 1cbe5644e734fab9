"""The ops as torch custom operators `midgrain::...`, so that torch.compile, export and autograd know them.

Importing this module registers them. Shapes here are the kernels' own; the public functions do the reshaping.
The default number of threads is looked up when an op runs, not when it is compiled.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from midgrain.ops import torch_cuda
from midgrain.ops.arrays import as_numpy
from midgrain.ops.color import rgb_to_lab_numpy
from midgrain.ops.patches import (
    aggregate_patches_numpy,
    extract_patches_backward_numpy,
    extract_patches_numpy,
)
from midgrain.ops.pool import paint_numpy, pool_numpy
from midgrain.ops.shapes import labels_shape
from midgrain.ops.slic import enforce_connectivity_numpy, slic_numpy
from midgrain.ops.slic_pictures import slic_pictures_numpy

__all__ = [
    "aggregate_patches",
    "enforce_connectivity",
    "extract_patches",
    "extract_patches_backward",
    "paint",
    "pool",
    "rgb_to_lab",
    "slic",
    "slic_pictures",
]

Tensor = torch.Tensor

_library = torch.library.Library("midgrain", "DEF")
_library.define(
    "slic(Tensor features, float[] weights, int n_segments, int max_num_iter, float[] spacing, float[]? ranges, "
    "int min_size, int? num_threads) -> (Tensor labels, Tensor counts)"
)
_library.define(
    "slic_pictures(Tensor? images, Tensor? gradient, int channel_axis, float[] std, float[] mean, float[] weights, "
    "int n_segments, int max_num_iter, float[] spacing, int min_size, int? num_threads) "
    "-> (Tensor labels, Tensor counts)"
)
_library.define("enforce_connectivity(Tensor labels, int min_size, int? num_threads) -> (Tensor labels, Tensor counts)")
_library.define("rgb_to_lab(Tensor rgb, int channel_axis, int? num_threads) -> Tensor")
_library.define(
    "pool(Tensor values, Tensor labels, str reduce, SymInt n, int? num_threads, bool channels_last=False) -> Tensor"
)
_library.define("paint(Tensor scores, Tensor labels, int? num_threads, bool channels_last=False) -> Tensor")
_library.define(
    "extract_patches(Tensor images, SymInt[] patch_size, SymInt[] cells, SymInt[] grid, SymInt[] size, SymInt start, "
    "SymInt count, int? num_threads) -> Tensor"
)
_library.define(
    "extract_patches_backward(Tensor patches, SymInt[] image_size, SymInt[] cells, SymInt[] grid, SymInt[] size, "
    "SymInt start, int? num_threads) -> Tensor"
)
_library.define("aggregate_patches(Tensor maps, SymInt[] grid, SymInt[] size, int? num_threads) -> Tensor")

slic: Any = torch.ops.midgrain.slic
slic_pictures: Any = torch.ops.midgrain.slic_pictures
enforce_connectivity: Any = torch.ops.midgrain.enforce_connectivity
rgb_to_lab: Any = torch.ops.midgrain.rgb_to_lab
pool: Any = torch.ops.midgrain.pool
paint: Any = torch.ops.midgrain.paint
extract_patches: Any = torch.ops.midgrain.extract_patches
extract_patches_backward: Any = torch.ops.midgrain.extract_patches_backward
aggregate_patches: Any = torch.ops.midgrain.aggregate_patches


def _slic_cpu(features: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    labels, counts = slic_numpy(as_numpy(features, "features"), *arguments)
    return torch.from_numpy(labels), torch.from_numpy(counts)


def _slic_pictures_cpu(images: Tensor | None, gradient: Tensor | None, *arguments: Any) -> tuple[Tensor, Tensor]:
    pictures = None if images is None else as_numpy(images, "images")
    maps = None if gradient is None else as_numpy(gradient, "gradient")
    labels, counts = slic_pictures_numpy(pictures, maps, *arguments)
    return torch.from_numpy(labels), torch.from_numpy(counts)


def _enforce_connectivity_cpu(labels: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    connected, counts = enforce_connectivity_numpy(as_numpy(labels, "labels"), *arguments)
    return torch.from_numpy(connected), torch.from_numpy(counts)


def _rgb_to_lab_cpu(rgb: Tensor, channel_axis: int, num_threads: int | None) -> Tensor:
    return torch.from_numpy(rgb_to_lab_numpy(as_numpy(rgb, "rgb"), channel_axis, num_threads))


def _pool_cpu(values: Tensor, labels: Tensor, *arguments: Any) -> Tensor:
    return torch.from_numpy(pool_numpy(as_numpy(values, "values"), as_numpy(labels, "labels"), *arguments))


def _paint_cpu(scores: Tensor, labels: Tensor, *arguments: Any) -> Tensor:
    return torch.from_numpy(paint_numpy(as_numpy(scores, "scores"), as_numpy(labels, "labels"), *arguments))


def _extract_patches_cpu(images: Tensor, *arguments: Any) -> Tensor:
    return torch.from_numpy(extract_patches_numpy(as_numpy(images, "images"), *arguments))


def _extract_patches_backward_cpu(patches: Tensor, *arguments: Any) -> Tensor:
    return torch.from_numpy(extract_patches_backward_numpy(as_numpy(patches, "patches"), *arguments))


def _aggregate_patches_cpu(maps: Tensor, *arguments: Any) -> Tensor:
    return torch.from_numpy(aggregate_patches_numpy(as_numpy(maps, "maps"), *arguments))


for _name, _on_cpu, _on_cuda in (
    ("slic", _slic_cpu, torch_cuda.slic),
    ("slic_pictures", _slic_pictures_cpu, torch_cuda.slic_pictures),
    ("enforce_connectivity", _enforce_connectivity_cpu, torch_cuda.enforce_connectivity),
    ("rgb_to_lab", _rgb_to_lab_cpu, torch_cuda.rgb_to_lab),
    ("pool", _pool_cpu, torch_cuda.pool),
    ("paint", _paint_cpu, torch_cuda.paint),
    ("extract_patches", _extract_patches_cpu, torch_cuda.extract_patches),
    ("extract_patches_backward", _extract_patches_backward_cpu, torch_cuda.extract_patches_backward),
    ("aggregate_patches", _aggregate_patches_cpu, torch_cuda.aggregate_patches),
):
    _library.impl(_name, _on_cpu, "CPU")
    _library.impl(_name, _on_cuda, "CUDA")


def _kernel_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.is_floating_point and dtype.itemsize <= 4 else torch.float64


@torch.library.register_fake("midgrain::slic")
def _slic_fake(features: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    labels = features.new_empty([features.shape[0], *features.shape[2:]], dtype=torch.int32)
    return labels, features.new_empty([features.shape[0]], dtype=torch.int32)


@torch.library.register_fake("midgrain::slic_pictures")
def _slic_pictures_fake(
    images: Tensor | None, gradient: Tensor | None, channel_axis: int, *_: Any
) -> tuple[Tensor, Tensor]:
    like = images if images is not None else gradient
    assert like is not None
    shape = labels_shape(images, gradient, channel_axis)
    return like.new_empty(shape, dtype=torch.int32), like.new_empty(shape[:1], dtype=torch.int32)


@torch.library.register_fake("midgrain::enforce_connectivity")
def _enforce_connectivity_fake(labels: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return labels.new_empty(labels.shape, dtype=torch.int32), labels.new_empty([labels.shape[0]], dtype=torch.int32)


@torch.library.register_fake("midgrain::rgb_to_lab")
def _rgb_to_lab_fake(rgb: Tensor, channel_axis: int, num_threads: int | None) -> Tensor:
    spatial = rgb.shape[2:] if channel_axis == 1 else rgb.shape[1:-1]
    return rgb.new_empty([rgb.shape[0], 3, *spatial], dtype=torch.float32)


def _with_length(array: Tensor, length: int, channels_last: bool) -> Tensor:
    """An empty result of pooling or painting."""
    shape = [array.shape[0], length, array.shape[2]] if channels_last else [*array.shape[:2], length]
    return array.new_empty(shape, dtype=_kernel_dtype(array.dtype))


@torch.library.register_fake("midgrain::pool")
def _pool_fake(
    values: Tensor, labels: Tensor, reduce: str, n: int, num_threads: int | None, channels_last: bool = False
) -> Tensor:
    return _with_length(values, n, channels_last)


@torch.library.register_fake("midgrain::paint")
def _paint_fake(scores: Tensor, labels: Tensor, num_threads: int | None, channels_last: bool = False) -> Tensor:
    return _with_length(scores, labels.shape[1], channels_last)


@torch.library.register_fake("midgrain::extract_patches")
def _extract_patches_fake(
    images: Tensor, patch_size: Any, cells: Any, grid: Any, size: Any, start: Any, count: Any, num_threads: int | None
) -> Tensor:
    shape = [images.shape[0], count, images.shape[1], *patch_size]
    return images.new_empty(shape, dtype=_kernel_dtype(images.dtype))


@torch.library.register_fake("midgrain::extract_patches_backward")
def _extract_patches_backward_fake(patches: Tensor, image_size: Any, *_: Any) -> Tensor:
    return patches.new_empty([patches.shape[0], patches.shape[2], *image_size], dtype=_kernel_dtype(patches.dtype))


@torch.library.register_fake("midgrain::aggregate_patches")
def _aggregate_patches_fake(maps: Tensor, grid: Any, size: Any, num_threads: int | None) -> Tensor:
    return maps.new_empty([maps.shape[0], *size], dtype=_kernel_dtype(maps.dtype))


def _pool_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, labels, ctx.reduce, ctx.n, ctx.num_threads, ctx.channels_last = inputs
    ctx.values_dtype = values.dtype
    if ctx.reduce in ("max", "min"):
        ctx.save_for_backward(labels, values, output)
    else:
        ctx.save_for_backward(labels)


def _sizes(ctx: Any, labels: Tensor, gradient: Tensor) -> Tensor:
    """The pixels of every region, at least 1, in a shape that divides the gradient."""
    ones = labels.new_ones(labels.shape, dtype=gradient.dtype)[:, None]
    sizes: Tensor = pool(ones, labels, "sum", ctx.n, ctx.num_threads).clamp(min=1)
    if ctx.channels_last:
        sizes = sizes.repeat_interleave(gradient.shape[0] // labels.shape[0], 0).swapaxes(1, 2)
    return sizes


def _pool_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None, None, None]:
    labels = ctx.saved_tensors[0]
    how = (ctx.num_threads, ctx.channels_last)
    gradient = gradient.contiguous()
    if ctx.reduce == "sum":
        result = paint(gradient, labels, *how)
    elif ctx.reduce == "mean":
        result = paint(gradient / _sizes(ctx, labels, gradient), labels, *how)
    elif ctx.reduce in ("max", "min"):
        _, values, extreme = ctx.saved_tensors
        # In place: another array as large as the values costs more than the arithmetic.
        hit = paint(extreme.detach(), labels, *how).eq_(values.detach())
        ties = pool(hit, labels, "sum", ctx.n, *how)
        result = paint(gradient / ties.clamp(min=1), labels, *how).mul_(hit)
    else:
        raise NotImplementedError(f"pool(reduce={ctx.reduce!r}) is not differentiable; mean, sum, max and min are")
    return result.to(ctx.values_dtype), None, None, None, None, None


def _paint_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    scores, labels, ctx.num_threads, ctx.channels_last = inputs
    ctx.n, ctx.scores_dtype = scores.shape[1 if ctx.channels_last else 2], scores.dtype
    ctx.save_for_backward(labels)


def _paint_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    (labels,) = ctx.saved_tensors
    summed = pool(gradient.contiguous(), labels, "sum", ctx.n, ctx.num_threads, ctx.channels_last)
    return summed.to(ctx.scores_dtype), None, None, None


def _extract_patches_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    images, _, *ctx.layout, _, ctx.num_threads = inputs
    ctx.image_size, ctx.images_dtype = images.shape[2:], images.dtype


def _extract_patches_gradient(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    result = extract_patches_backward(gradient, ctx.image_size, *ctx.layout, ctx.num_threads)
    return result.to(ctx.images_dtype), *[None] * 7


def _extract_patches_backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    patches, _, *ctx.layout, ctx.num_threads = inputs
    ctx.count, ctx.patch_size, ctx.patches_dtype = patches.shape[1], patches.shape[3:], patches.dtype


def _extract_patches_backward_gradient(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    result = extract_patches(gradient, ctx.patch_size, *ctx.layout, ctx.count, ctx.num_threads)
    return result.to(ctx.patches_dtype), *[None] * 6


def _aggregate_patches_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    maps, ctx.grid, ctx.size, ctx.num_threads = inputs
    ctx.cells, ctx.maps_dtype = maps.shape[2:], maps.dtype


def _aggregate_patches_gradient(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    # Enlarging is the extraction of a single patch; the maps lie in the whole as patches one pixel apart.
    gradient = gradient[:, None]
    ones, whole = [1] * len(ctx.size), [m + g - 1 for m, g in zip(ctx.cells, ctx.grid, strict=True)]
    if whole != list(ctx.size):
        gradient = extract_patches_backward(gradient[:, None], whole, ones, ones, ctx.size, 0, ctx.num_threads)
    counts = torch.ones([], dtype=torch.int64, device=gradient.device)
    for m, g in zip(ctx.cells, ctx.grid, strict=True):
        cell = torch.arange(m + g - 1, device=gradient.device)
        counts = counts[..., None] * (cell.minimum(cell.flip(0)).clamp(max=min(m, g) - 1) + 1)
    n = math.prod(ctx.grid)
    shared = gradient / counts
    result = extract_patches(shared, ctx.cells, ctx.cells, ctx.grid, whole, 0, n, ctx.num_threads)
    return result[:, :, 0].to(ctx.maps_dtype), None, None, None


for _name, _gradient, _setup in (
    ("pool", _pool_backward, _pool_setup),
    ("paint", _paint_backward, _paint_setup),
    ("extract_patches", _extract_patches_gradient, _extract_patches_setup),
    ("extract_patches_backward", _extract_patches_backward_gradient, _extract_patches_backward_setup),
    ("aggregate_patches", _aggregate_patches_gradient, _aggregate_patches_setup),
):
    torch.library.register_autograd(f"midgrain::{_name}", _gradient, setup_context=_setup)
