"""Pooling values over superpixels, and painting scores back onto pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain import _kernels
from midgrain.ops.arrays import as_floats, as_int32, as_pair, is_integral, is_torch, wrap_like
from midgrain.ops.checks import check_int
from midgrain.ops.device_arrays import takes_device_arrays

__all__ = ["REDUCTIONS", "paint", "paint_numpy", "pool", "pool_numpy"]

#: Reductions that `pool` offers; "l1" and "abs-sum" are the same.
REDUCTIONS = ("mean", "sum", "abs-sum", "max", "min", "l1", "l2", "var", "std", "median")


@takes_device_arrays("values", "labels")
def pool(
    values: Any,
    labels: Any,
    reduce: str = "mean",
    *,
    n: int | None = None,
    spatial_dims: int | None = None,
    channel_axis: int = 1,
    num_threads: int | None = None,
) -> Any:
    """One number per superpixel (Thesis eq. 3.1 and table 3.6), and per channel where there are several.

    With labels of one image [H, W] or volume [T, H, W], values are [..., *labels.shape] and the result [..., n].
    With a batch of labels [B, H, W] or [B, T, H, W], values are [B, ..., H, W] or [B, ..., T, H, W] and the
    result [B, ..., n]. Where values and labels are both [A, H, W] they are read as one volume; `spatial_dims=2`
    says that they are a batch of images. With `channel_axis=-1` the channels come last: values [..., *S, C] give
    [..., n, C]. Values in either order are read where they lie, also tensors in torch's channels_last memory format
    (whose result then lies in memory in that order too).

    Sums are exact in 64-bit fixed point scaled by the plane's largest magnitude, so they do not depend on threads
    or batch; the error per value is below 2^-46 of that magnitude for 224 x 224 pixels.

    Args:
        values: real numbers; floats keep their dtype, half floats give float32, integers and bools float64.
        labels: integers in 0 .. n - 1.
        reduce: "mean", "sum", "abs-sum" (= "l1"), "l2", "var" and "std" (of the population), "max", "min", "median".
        n: number of superpixels, by default the largest label + 1.
        spatial_dims: 2 (images) or 3 (volumes), where the shapes leave it open.
        channel_axis: 1 (channels, where there are any, come before the spatial axes) or -1 (they come last).
        num_threads: see `midgrain.ops.slic`.

    Returns:
        The kind of array that came in. A superpixel without pixels has 0 for the sums and norms, NaN otherwise.
        With torch tensors, mean, sum, max and min are differentiable with respect to `values` (max and min share
        the gradient among equal pixels).

    Raises:
        TypeError: wrong kinds or dtypes.
        ValueError: shapes that do not fit or fit twice, labels out of range, NaN or infinity, an unknown `reduce`.

    Example:
        >>> import numpy as np, midgrain as mg
        >>> mg.pool(np.array([[1.0, 3.0], [5.0, 5.0]]), np.array([[0, 0], [1, 1]]))
        array([2., 5.])
        >>> mg.pool(np.ones((2, 2, 64)), np.array([[0, 0], [1, 1]]), channel_axis=-1).shape
        (2, 64)
    """
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce: expected one of {', '.join(REDUCTIONS)}, got {reduce!r}")
    like = values
    values, labels = _checked_arrays(values, labels, ("values", "labels"))
    outer, channels = _split_channels(values, "values", channel_axis)
    batched, spatial = _match(outer, list(labels.shape), spatial_dims)
    leading = outer[: len(outer) - len(spatial)]
    threads = _kernels.check_threads(num_threads)
    in_memory = _with_axis_last(values, len(leading) - 1) if leading and not channels else None
    if in_memory is not None:
        result = pool(in_memory, labels, reduce, n=n, spatial_dims=len(spatial), channel_axis=-1, num_threads=threads)
        return result.swapaxes(-1, -2)
    labels_2d = labels.reshape(-1, math.prod(spatial)) if batched else labels.reshape(1, -1)
    n = _count_labels(labels) if n is None else check_int(n, "n", 1, 2**31 - 1)
    grouped = values.reshape(_kernel_shape(labels_2d.shape[0], labels_2d.shape[1], channels))
    shape = [*leading, n, *channels]
    if is_torch(values):
        from midgrain.ops import torch_library

        return torch_library.pool(grouped, labels_2d, reduce, n, threads, bool(channels)).reshape(shape)
    return wrap_like(pool_numpy(grouped, labels_2d, reduce, n, threads, bool(channels)).reshape(shape), like)


@takes_device_arrays("scores", "labels")
def paint(
    scores: Any,
    labels: Any,
    *,
    spatial_dims: int | None = None,
    channel_axis: int = 1,
    num_threads: int | None = None,
) -> Any:
    """Give every pixel its superpixel's score: the inverse of `pool`.

    With labels [H, W] or [T, H, W], scores are [..., n] and the result [..., *labels.shape]. With a batch of labels
    [B, H, W] or [B, T, H, W], scores are [B, ..., n]. Scores [A, n] with labels [A, H, W] are read as a batch of
    images; `spatial_dims=3` says that the labels are one volume. With `channel_axis=-1` scores [..., n, C] give
    [..., *S, C].

    Args:
        scores: real numbers, NaN allowed; dtypes as in `pool`.
        labels: integers in 0 .. n - 1.
        spatial_dims: 2 (images) or 3 (volumes), where the shapes leave it open.
        channel_axis: 1 (channels, where there are any, come before n) or -1 (they come last).
        num_threads: see `midgrain.ops.slic`.

    Returns:
        The kind of array that came in. Differentiable with respect to `scores` for torch tensors.

    Raises:
        TypeError: wrong kinds or dtypes.
        ValueError: shapes that do not fit, labels out of range.

    Example:
        >>> import numpy as np, midgrain as mg
        >>> mg.paint(np.array([2.0, 5.0]), np.array([[0, 0], [1, 1]]))
        array([[2., 2.],
               [5., 5.]])
    """
    like = scores
    scores, labels = _checked_arrays(scores, labels, ("scores", "labels"))
    outer, channels = _split_channels(scores, "scores", channel_axis)
    batched = _paint_is_batched(outer, list(labels.shape), spatial_dims)
    spatial = list(labels.shape[1:] if batched else labels.shape)
    labels_2d = labels.reshape(-1, math.prod(spatial)) if batched else labels.reshape(1, -1)
    grouped = scores.reshape(_kernel_shape(labels_2d.shape[0], outer[-1], channels))
    shape = [*outer[:-1], *spatial, *channels]
    threads = _kernels.check_threads(num_threads)
    if is_torch(scores):
        from midgrain.ops import torch_library

        return torch_library.paint(grouped, labels_2d, threads, bool(channels)).reshape(shape)
    return wrap_like(paint_numpy(grouped, labels_2d, threads, bool(channels)).reshape(shape), like)


def pool_numpy(
    values: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    reduce: str,
    n: int,
    num_threads: int | None,
    channels_last: bool = False,
) -> npt.NDArray[Any]:
    """`pool` on values [groups, planes, pixels], or [items, pixels, channels], and labels [groups, pixels]."""
    source = as_floats(values, "values")
    shape = (source.shape[0], n, source.shape[2]) if channels_last else (*source.shape[:2], n)
    out = np.empty(shape, source.dtype)
    threads = _kernels.num_threads(num_threads)
    _kernels.cpu.pool(source, as_int32(labels, "labels"), reduce, out, threads, channels_last)
    return out


def paint_numpy(
    scores: npt.NDArray[Any], labels: npt.NDArray[Any], num_threads: int | None, channels_last: bool = False
) -> npt.NDArray[Any]:
    """`paint` on scores [groups, planes, n], or [items, n, channels], and labels [groups, pixels]."""
    source = as_floats(scores, "scores")
    pixels = labels.shape[1]
    shape = (source.shape[0], pixels, source.shape[2]) if channels_last else (*source.shape[:2], pixels)
    out = np.empty(shape, source.dtype)
    threads = _kernels.num_threads(num_threads)
    _kernels.cpu.paint(source, as_int32(labels, "labels"), out, threads, channels_last)
    return out


def _split_channels(array: Any, name: str, channel_axis: object) -> tuple[list[int], list[int]]:
    """The shape without its last axis and that axis alone with `channel_axis=-1`, else the whole shape and nothing."""
    if check_int(channel_axis, "channel_axis", -1, 1) == 0:
        raise ValueError("channel_axis: expected 1 or -1, got 0")
    shape = list(array.shape)
    if channel_axis == 1:
        return shape, []
    if not shape:
        raise ValueError(f"{name}: expected channels along the last axis, got a single number")
    return shape[:-1], shape[-1:]


def _kernel_shape(groups: int, length: int, channels: list[int]) -> list[int]:
    """[items, length, C] with the channels last, else [groups, planes, length]."""
    return [-1, length, *channels] if channels else [groups, -1, length]


def _with_axis_last(array: Any, axis: int) -> Any:
    """A view with this axis last, where memory is in that order already; None where it is not."""
    if is_torch(array):
        if array.is_contiguous():
            return None
        view = array.movedim(axis, -1)
        return view if view.is_contiguous() else None
    if array.flags.c_contiguous:
        return None
    view = np.moveaxis(array, axis, -1)
    return view if view.flags.c_contiguous else None


def _checked_arrays(first: Any, second: Any, names: tuple[str, str]) -> tuple[Any, Any]:
    first, second = as_pair(first, second, names)
    for array, name in ((first, names[0]), (second, names[1])):
        if 0 in array.shape:
            raise ValueError(f"{name}: expected no empty axis, got shape {list(array.shape)}")
    return first, second


def _count_labels(labels: Any) -> int:
    """The largest label + 1."""
    if not (is_integral(labels) if is_torch(labels) else labels.dtype.kind in "iu"):
        raise TypeError(f"labels: expected integers, got dtype {labels.dtype}")
    # torch lacks max for some unsigned types.
    largest = int((labels.long() if is_torch(labels) else labels).max())
    if not 0 <= largest < 2**31 - 1:
        raise ValueError(f"labels: expected values in 0 .. 2^31 - 2, got {largest}")
    return largest + 1


def _check_spatial_dims(spatial_dims: int | None, labels: list[int]) -> None:
    if spatial_dims is not None and len(labels) - check_int(spatial_dims, "spatial_dims", 2, 3) not in (0, 1):
        raise ValueError(
            f"spatial_dims: expected labels with {spatial_dims} axes, or one more for a batch, got shape {labels}"
        )
    if len(labels) not in (2, 3, 4):
        raise ValueError(f"labels: expected [H, W], [T, H, W] or a batch of these, got shape {labels}")


def _match(values: list[int], labels: list[int], spatial_dims: int | None) -> tuple[bool, list[int]]:
    """Are the labels a batch, and what is their spatial shape? See `pool` for the rules."""
    _check_spatial_dims(spatial_dims, labels)
    shared = len(labels) <= 3 and values[-len(labels) :] == labels
    batched = len(labels) >= 3 and values[:1] == labels[:1] and values[1:][-(len(labels) - 1) :] == labels[1:]
    if spatial_dims is not None:
        shared = shared and spatial_dims == len(labels)
        batched = batched and spatial_dims == len(labels) - 1
    if shared and batched and values != labels:
        raise ValueError(
            f"labels: shape {labels} fits values {values} both as one volume and as a batch of images; pass "
            "spatial_dims=3 or spatial_dims=2"
        )
    if not shared and not batched:
        raise ValueError(
            f"labels: expected the trailing shape of values {values}, or a batch along its first axis, got {labels}"
        )
    return (False, labels) if shared else (True, labels[1:])


def _paint_is_batched(scores: list[int], labels: list[int], spatial_dims: int | None) -> bool:
    _check_spatial_dims(spatial_dims, labels)
    if not scores:
        raise ValueError("scores: expected [..., n], got a single number")
    can_be_batch = len(labels) >= 3 and len(scores) >= 2 and scores[0] == labels[0]
    batched = can_be_batch if spatial_dims is None else spatial_dims == len(labels) - 1
    if (batched and not can_be_batch) or (not batched and len(labels) == 4):
        raise ValueError(f"scores: expected [{labels[0]}, ..., n] for labels {labels}, got {scores}")
    return batched
