"""The operators on torch tensors of a CUDA device, as `torch_library` registers them.

Memory, temporary memory included, comes from torch's allocator and everything is put on torch's current stream of the
tensors' device, so that calls can be captured in CUDA graphs. What the kernels find wrong with values goes to
`deferred.report`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from midgrain import _kernels
from midgrain.ops.arrays import is_integral, plain, require_real, require_same_device
from midgrain.ops.color import check_picture_shape
from midgrain.ops.deferred import report
from midgrain.ops.shapes import labels_shape, triple, volume

__all__ = [
    "aggregate_patches",
    "enforce_connectivity",
    "extract_patches",
    "extract_patches_backward",
    "paint",
    "pool",
    "power_of_two",
    "rgb_to_lab",
    "slic",
    "slic_pictures",
]

Tensor = torch.Tensor

_TYPES = {torch.uint8: "|u1", torch.int32: "<i4", torch.float32: "<f4", torch.float64: "<f8"}
_INT32_MAX = 2**31 - 1


class _Memory:
    """A tensor's memory as the kernels take it; torch's own ways of sharing cost more than a launch."""

    __slots__ = ("__cuda_array_interface__",)

    def __init__(self, tensor: Tensor) -> None:
        # "device" is midgrain's own entry: asking the driver for a pointer's device can disturb a capture.
        self.__cuda_array_interface__ = {
            "shape": tuple(tensor.shape),
            "typestr": _TYPES[tensor.dtype],
            "data": (tensor.data_ptr(), False),
            "strides": None,
            "version": 3,
            "device": tensor.get_device(),
        }


def _call(name: str, like: Tensor, *arguments: Any) -> None:
    """Calls a kernel on the current stream of the tensor's device."""
    shared = [_Memory(argument) if isinstance(argument, torch.Tensor) else argument for argument in arguments]
    getattr(_kernels.for_device("cuda"), name)(*shared, _stream(like))


def _stream(like: Tensor) -> int:
    return int(torch.cuda.current_stream(like.device).cuda_stream)


def _allocate(count: int, like: Tensor) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, device=like.device)


def _workspace(name: str, like: Tensor, *arguments: Any) -> Tensor:
    """Temporary memory for the kernel of this name, 256 bytes aligned as all memory of torch's CUDA allocator is.

    Raises:
        torch.OutOfMemoryError: with a note on what the memory was for.
    """
    needed = int(getattr(_kernels.for_device("cuda"), f"{name}_workspace_bytes")(*arguments))
    try:
        return _allocate(max(needed, 1), like)
    except torch.OutOfMemoryError as error:
        error.add_note(f"midgrain: {name} needs {needed:,} bytes of temporary memory; fewer items at once need less")
        raise


def _status(items: int, like: Tensor) -> Tensor:
    return torch.empty(items, dtype=torch.int32, device=like.device)


def _as_float32(tensor: Tensor) -> Tensor:
    """Contiguous float32. Values beyond float32 become infinite, which the kernels refuse."""
    narrow: Tensor = plain(tensor).to(torch.float32).contiguous()
    return narrow


def _as_floats(tensor: Tensor, name: str) -> Tensor:
    """Contiguous float32 for floats of up to 32 bits, else float64."""
    require_real(tensor, name)
    is_single = tensor.is_floating_point() and tensor.dtype.itemsize <= 4
    floats: Tensor = plain(tensor).to(torch.float32 if is_single else torch.float64).contiguous()
    return floats


def _as_labels(tensor: Tensor) -> Tensor:
    """Contiguous int32 of integers; those that do not fit become labels outside, which the kernels report."""
    _check_integers(tensor)
    wide = tensor.detach()
    if wide.dtype.itemsize >= 4 and wide.dtype != torch.int32:
        # As unsigned 64-bit integers, the largest would be negative: outside, too.
        wide = wide.to(torch.int64).clamp(-1, _INT32_MAX)
    return wide.to(torch.int32).contiguous()


def _check_integers(labels: Tensor) -> None:
    if not is_integral(labels):
        raise TypeError(f"labels: expected integers, got dtype {labels.dtype}")


def _slic_error(name: str) -> Callable[[list[int]], Exception]:
    """From the status of SLIC to its error; `name` says which of the arrays can hold NaN."""

    def error(status: list[int]) -> Exception:
        module = _kernels.for_device("cuda")
        item = next(i for i, code in enumerate(status) if code)
        if status[item] & module.NOT_FINITE:
            return ValueError(f"{name}: expected finite float32 values, got NaN or infinity in item {item}")
        return ValueError(f"weights: a channel's range divided by its weight is above 2^25 in item {item}")

    return error


def slic(
    features: Tensor,
    weights: list[float],
    n_segments: int,
    max_num_iter: int,
    spacing: list[float],
    ranges: list[float] | None,
    min_size: int,
    num_threads: int | None,
) -> tuple[Tensor, Tensor]:
    """See `midgrain.ops.slic.slic_numpy`."""
    require_real(features, "features")
    source = volume(_as_float32(features), 2)
    items, channels, *dims = source.shape
    labels = torch.empty([items, *dims], dtype=torch.int32, device=features.device)
    counts, status = _status(items, features), _status(items, features)
    pairs = None if ranges is None else list(zip(ranges[::2], ranges[1::2], strict=True))
    size = (items, channels, tuple(dims), n_segments, spacing, min_size, pairs is not None)
    workspace = _workspace("slic", features, *size)
    _call(
        *("slic", features, source, weights, pairs, n_segments, max_num_iter, spacing, min_size),
        *(labels, counts, status, workspace),
    )
    report(status, _slic_error("features"))
    return labels.reshape(features.shape[0], *features.shape[2:]), counts


def slic_pictures(
    images: Tensor | None,
    gradient: Tensor | None,
    channel_axis: int,
    std: list[float],
    mean: list[float],
    weights: list[float],
    n_segments: int,
    max_num_iter: int,
    spacing: list[float],
    min_size: int,
    num_threads: int | None,
) -> tuple[Tensor, Tensor]:
    """See `midgrain.ops.slic_pictures.slic_pictures_numpy`."""
    require_same_device(images=images, gradient=gradient)
    pictures = maps = None
    if images is not None:
        axes = (2, 0) if channel_axis == 1 else (1, 1)
        pictures = volume(_as_picture(images, "images"), *axes)
    if gradient is not None:
        maps = volume(_gradient_float32(gradient), 1)
    like = images if images is not None else gradient
    assert like is not None
    items, *shape = labels_shape(images, gradient, channel_axis)
    dims = triple(shape)
    labels = torch.empty([items, *dims], dtype=torch.int32, device=like.device)
    counts, status = _status(items, like), _status(items, like)
    workspace = _workspace(
        *("slic_pictures", like, items, dims, pictures is not None, maps is not None),
        *(n_segments, spacing, min_size),
    )
    _call(
        *("slic_pictures", like, pictures, channel_axis != 1, std, mean, maps, weights, n_segments, max_num_iter),
        *(spacing, min_size, labels, counts, status, workspace),
    )
    both = images is not None and gradient is not None
    report(status, _slic_error("images, gradient" if both else "images" if gradient is None else "gradient"))
    return labels.reshape(items, *shape), counts


def _as_picture(picture: Tensor, name: str) -> Tensor:
    if picture.dtype == torch.uint8:
        return picture.detach().contiguous()
    if not picture.is_floating_point():
        raise TypeError(f"{name}: expected uint8 or floats, got dtype {picture.dtype}")
    return _as_float32(picture)


def _gradient_float32(gradient: Tensor) -> Tensor:
    """float32 as it is; anything wider times a power of two per item, so that no value overflows or vanishes."""
    require_real(gradient, "gradient")
    if gradient.dtype == torch.float32 or gradient.dtype.itemsize <= 2:
        return _as_float32(gradient)
    values = plain(gradient).to(torch.float64)
    largest = values.abs().flatten(1).amax(1)
    report(~torch.isfinite(largest), lambda _: ValueError("gradient: expected finite values, got NaN or infinity"))
    return _as_float32(values * power_of_two(largest).reshape(-1, *[1] * (values.ndim - 1)))


def power_of_two(largest: Tensor) -> Tensor:
    """float64 powers of two that bring these magnitudes, float64, to about 1."""
    # By its bits: torch's ldexp multiplies by a rounded pow().
    exponent = (-torch.frexp(largest).exponent).clamp(-1022, 1000).to(torch.int64)
    return ((exponent + 1023) << 52).view(torch.float64)


def enforce_connectivity(labels: Tensor, min_size: int, num_threads: int | None) -> tuple[Tensor, Tensor]:
    """See `midgrain.ops.slic.enforce_connectivity_numpy`."""
    _check_integers(labels)
    narrow = labels.detach().to(torch.int32).contiguous()
    if labels.dtype.itemsize >= 4 and labels.dtype != torch.int32:
        changed = (narrow.to(torch.int64) != labels.detach().to(torch.int64)).any()
        report(changed, lambda _: ValueError("labels: expected values that fit int32"))
    source = volume(narrow, 1)
    items, *dims = source.shape
    out, counts = torch.empty_like(source), _status(items, labels)
    workspace = _workspace("enforce_connectivity", labels, items, tuple(dims))
    _call("enforce_connectivity", labels, source, min_size, out, counts, workspace)
    return out.reshape(labels.shape), counts


def rgb_to_lab(rgb: Tensor, channel_axis: int, num_threads: int | None) -> Tensor:
    """See `midgrain.ops.color.rgb_to_lab_numpy`."""
    source = _as_picture(rgb, "rgb")
    check_picture_shape(tuple(rgb.shape), channel_axis)
    channels_last = channel_axis != 1
    spatial = list(rgb.shape[1:-1] if channels_last else rgb.shape[2:])
    items, pixels = rgb.shape[0], math.prod(spatial)
    source = source.reshape((items, pixels, 3) if channels_last else (items, 3, pixels))
    lab = torch.empty([items, 3, pixels], dtype=torch.float32, device=rgb.device)
    status = _status(items, rgb)
    _call("rgb_to_lab", rgb, source, lab, channels_last, status, _workspace("rgb_to_lab", rgb))
    report(status, lambda _: ValueError("rgb: expected finite values, got NaN or infinity"))
    return lab.reshape(items, 3, *spatial)


def _pool_error(n: int) -> Callable[[list[int]], Exception]:
    def error(status: list[int]) -> Exception:
        module = _kernels.for_device("cuda")
        if any(code & module.LABEL_OUTSIDE for code in status):
            return ValueError(f"labels: expected values in 0 .. {n - 1}, got others")
        return ValueError("values: expected finite values, got NaN or infinity")

    return error


def pool(
    values: Tensor, labels: Tensor, reduce: str, n: int, num_threads: int | None, channels_last: bool = False
) -> Tensor:
    """See `midgrain.ops.pool.pool_numpy`."""
    require_same_device(values=values, labels=labels)
    source, regions = _as_floats(values, "values"), _as_labels(labels)
    items, first, second = source.shape
    channels, pixels = (second, first) if channels_last else (first, second)
    shape = [items, n, channels] if channels_last else [items, channels, n]
    out = torch.empty(shape, dtype=source.dtype, device=values.device)
    status = _status(regions.shape[0], values)
    workspace = _workspace("pool", values, regions.shape[0], items, channels, pixels, n, reduce)
    _call("pool", values, source, regions, reduce, out, channels_last, status, workspace)
    report(status, _pool_error(n))
    return out


def paint(scores: Tensor, labels: Tensor, num_threads: int | None, channels_last: bool = False) -> Tensor:
    """See `midgrain.ops.pool.paint_numpy`."""
    require_same_device(scores=scores, labels=labels)
    source, regions = _as_floats(scores, "scores"), _as_labels(labels)
    pixels, n = regions.shape[1], source.shape[1 if channels_last else 2]
    shape = [source.shape[0], pixels, source.shape[2]] if channels_last else [*source.shape[:2], pixels]
    out = torch.empty(shape, dtype=source.dtype, device=scores.device)
    status = _status(regions.shape[0], scores)
    _call("paint", scores, source, regions, out, channels_last, status)
    report(status, _pool_error(n))
    return out


def extract_patches(
    images: Tensor,
    patch_size: Sequence[int],
    cells: Sequence[int],
    grid: Sequence[int],
    size: Sequence[int],
    start: int,
    count: int,
    num_threads: int | None,
) -> Tensor:
    """See `midgrain.ops.patches.extract_patches_numpy`."""
    source = _as_floats(images, "images")
    patches = torch.empty(
        [source.shape[0], count, source.shape[1], *patch_size], dtype=source.dtype, device=images.device
    )
    _call(
        *("extract_patches", images, volume(source, 2), triple(cells), triple(grid), triple(size), start),
        volume(patches, 3),
    )
    return patches


def extract_patches_backward(
    patches: Tensor,
    image_size: Sequence[int],
    cells: Sequence[int],
    grid: Sequence[int],
    size: Sequence[int],
    start: int,
    num_threads: int | None,
) -> Tensor:
    """See `midgrain.ops.patches.extract_patches_backward_numpy`."""
    source = _as_floats(patches, "patches")
    items, channels = source.shape[0], source.shape[2]
    images = torch.empty([items, channels, *image_size], dtype=source.dtype, device=patches.device)
    layout = (triple(cells), triple(grid))
    patch = triple(source.shape[3:])
    workspace = _workspace("extract_patches_backward", patches, items, channels, triple(image_size), patch, *layout)
    _call(
        *("extract_patches_backward", patches, volume(source, 3), *layout, triple(size), start),
        *(volume(images, 2), workspace),
    )
    return images


def aggregate_patches(maps: Tensor, grid: Sequence[int], size: Sequence[int], num_threads: int | None) -> Tensor:
    """See `midgrain.ops.patches.aggregate_patches_numpy`."""
    source = _as_floats(maps, "maps")
    out = torch.empty([source.shape[0], *size], dtype=source.dtype, device=maps.device)
    _call("aggregate_patches", maps, volume(source, 2), triple(grid), volume(out, 1))
    return out
