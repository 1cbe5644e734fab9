"""The ops as torch custom operators `midgrain::...`, so that torch.compile, export and autograd know them.

Importing this module registers them. Shapes here are the kernels' own; the public functions do the reshaping.
The default number of threads is looked up when an op runs, not when it is compiled.
"""

from __future__ import annotations

from typing import Any

import torch

from midgrain import _kernels
from midgrain.ops.arrays import as_numpy
from midgrain.ops.color import rgb_to_lab_numpy
from midgrain.ops.pool import paint_numpy, pool_numpy
from midgrain.ops.slic import slic_numpy

__all__ = ["paint", "pool", "rgb_to_lab", "slic"]

Tensor = torch.Tensor

_library = torch.library.Library("midgrain", "DEF")
_library.define(
    "slic(Tensor features, float[] weights, int n_segments, int max_num_iter, float[] spacing, float[]? ranges, "
    "int min_size, int? num_threads) -> (Tensor labels, Tensor counts)"
)
_library.define("rgb_to_lab(Tensor rgb, int channel_axis, int? num_threads) -> Tensor")
_library.define(
    "pool(Tensor values, Tensor labels, str reduce, SymInt n, int? num_threads, bool channels_last=False) -> Tensor"
)
_library.define("paint(Tensor scores, Tensor labels, int? num_threads, bool channels_last=False) -> Tensor")

slic: Any = torch.ops.midgrain.slic
rgb_to_lab: Any = torch.ops.midgrain.rgb_to_lab
pool: Any = torch.ops.midgrain.pool
paint: Any = torch.ops.midgrain.paint


def _slic_cpu(features: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    labels, counts = slic_numpy(as_numpy(features, "features"), *arguments)
    return torch.from_numpy(labels), torch.from_numpy(counts)


def _rgb_to_lab_cpu(rgb: Tensor, channel_axis: int, num_threads: int | None) -> Tensor:
    return torch.from_numpy(rgb_to_lab_numpy(as_numpy(rgb, "rgb"), channel_axis, num_threads))


def _pool_cpu(values: Tensor, labels: Tensor, *arguments: Any) -> Tensor:
    return torch.from_numpy(pool_numpy(as_numpy(values, "values"), as_numpy(labels, "labels"), *arguments))


def _paint_cpu(scores: Tensor, labels: Tensor, *arguments: Any) -> Tensor:
    return torch.from_numpy(paint_numpy(as_numpy(scores, "scores"), as_numpy(labels, "labels"), *arguments))


def _refuse_cuda(*_: Any, **__: Any) -> Any:
    return _kernels.for_device("cuda")


for _name, _kernel in (
    ("slic", _slic_cpu),
    ("rgb_to_lab", _rgb_to_lab_cpu),
    ("pool", _pool_cpu),
    ("paint", _paint_cpu),
):
    _library.impl(_name, _kernel, "CPU")
    _library.impl(_name, _refuse_cuda, "CUDA")


def _kernel_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.is_floating_point and dtype.itemsize <= 4 else torch.float64


@torch.library.register_fake("midgrain::slic")
def _slic_fake(features: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    labels = features.new_empty([features.shape[0], *features.shape[2:]], dtype=torch.int32)
    return labels, features.new_empty([features.shape[0]], dtype=torch.int32)


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


torch.library.register_autograd("midgrain::pool", _pool_backward, setup_context=_pool_setup)
torch.library.register_autograd("midgrain::paint", _paint_backward, setup_context=_paint_setup)
