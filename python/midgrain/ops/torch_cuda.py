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
from midgrain.ops.arrays import require_same_device
from midgrain.ops.color import check_picture_shape
from midgrain.ops.deferred import report

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


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().resolve_conj().resolve_neg()


def _check_real(tensor: Tensor, name: str) -> None:
    if tensor.is_complex():
        raise TypeError(f"{name}: expected real numbers, got dtype {tensor.dtype}")


def _as_float32(tensor: Tensor) -> Tensor:
    """Contiguous float32. Values beyond float32 become infinite, which the kernels refuse."""
    return _plain(tensor).to(torch.float32).contiguous()


def _as_floats(tensor: Tensor, name: str) -> Tensor:
    """Contiguous float32 for floats of up to 32 bits, else float64."""
    _check_real(tensor, name)
    is_single = tensor.is_floating_point() and tensor.dtype.itemsize <= 4
    return _plain(tensor).to(torch.float32 if is_single else torch.float64).contiguous()


def _as_labels(tensor: Tensor) -> Tensor:
    """Contiguous int32 of integers; those that do not fit become labels outside, which the kernels report."""
    _check_integers(tensor)
    wide = tensor.detach()
    if wide.dtype.itemsize >= 4 and wide.dtype != torch.int32:
        # As unsigned 64-bit integers, the largest would be negative: outside, too.
        wide = wide.to(torch.int64).clamp(-1, _INT32_MAX)
    return wide.to(torch.int32).contiguous()


def _check_integers(labels: Tensor) -> None:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels: expected integers, got dtype {labels.dtype}")


def _triple(values: Sequence[int]) -> tuple[int, int, int]:
    z, y, x = [1] * (3 - len(values)) + [int(value) for value in values]
    return (z, y, x)


def _volume(tensor: Tensor, leading: int) -> Tensor:
    """A view with the axes z, y, x after the leading ones."""
    return tensor.reshape(*tensor.shape[:leading], -1, *tensor.shape[-2:])


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
    _check_real(features, "features")
    volume = _volume(_as_float32(features), 2)
    items, channels, *dims = volume.shape
    labels = torch.empty([items, *dims], dtype=torch.int32, device=features.device)
    counts, status = _status(items, features), _status(items, features)
    pairs = None if ranges is None else list(zip(ranges[::2], ranges[1::2], strict=True))
    size = (items, channels, tuple(dims), n_segments, spacing, min_size, pairs is not None)
    workspace = _workspace("slic", features, *size)
    _call(
        *("slic", features, volume, weights, pairs, n_segments, max_num_iter, spacing, min_size),
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
    volume = maps = None
    shape: list[int] = []
    if images is not None:
        volume = _as_picture(images, "images")
        if channel_axis == 1:
            shape = [images.shape[0], *images.shape[2:]]
            volume = volume.reshape(shape[0], 3, -1, *shape[-2:])
        else:
            shape = list(images.shape[:-1])
            volume = volume.reshape(shape[0], -1, *shape[-2:], 3)
    if gradient is not None:
        shape = list(gradient.shape)
        maps = _gradient_float32(gradient).reshape(shape[0], -1, *shape[-2:])
    like = images if images is not None else gradient
    assert like is not None
    items, dims = shape[0], _triple(shape[1:])
    labels = torch.empty([items, *dims], dtype=torch.int32, device=like.device)
    counts, status = _status(items, like), _status(items, like)
    workspace = _workspace(
        *("slic_pictures", like, items, dims, volume is not None, maps is not None),
        *(n_segments, spacing, min_size),
    )
    _call(
        *("slic_pictures", like, volume, channel_axis != 1, std, mean, maps, weights, n_segments, max_num_iter),
        *(spacing, min_size, labels, counts, status, workspace),
    )
    both = images is not None and gradient is not None
    report(status, _slic_error("images, gradient" if both else "images" if gradient is None else "gradient"))
    return labels.reshape(shape), counts


def _as_picture(picture: Tensor, name: str) -> Tensor:
    if picture.dtype == torch.uint8:
        return picture.detach().contiguous()
    if not picture.is_floating_point():
        raise TypeError(f"{name}: expected uint8 or floats, got dtype {picture.dtype}")
    return _as_float32(picture)


def _gradient_float32(gradient: Tensor) -> Tensor:
    """float32 as it is; anything wider times a power of two per item, so that no value overflows or vanishes."""
    _check_real(gradient, "gradient")
    if gradient.dtype == torch.float32 or gradient.dtype.itemsize <= 2:
        return _as_float32(gradient)
    values = _plain(gradient).to(torch.float64)
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
    volume = _volume(narrow, 1)
    items, *dims = volume.shape
    out, counts = torch.empty_like(volume), _status(items, labels)
    workspace = _workspace("enforce_connectivity", labels, items, tuple(dims))
    _call("enforce_connectivity", labels, volume, min_size, out, counts, workspace)
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
        *("extract_patches", images, _volume(source, 2), _triple(cells), _triple(grid), _triple(size), start),
        _volume(patches, 3),
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
    layout = (_triple(cells), _triple(grid))
    patch = _triple(source.shape[3:])
    workspace = _workspace("extract_patches_backward", patches, items, channels, _triple(image_size), patch, *layout)
    _call(
        *("extract_patches_backward", patches, _volume(source, 3), *layout, _triple(size), start),
        *(_volume(images, 2), workspace),
    )
    return images


def aggregate_patches(maps: Tensor, grid: Sequence[int], size: Sequence[int], num_threads: int | None) -> Tensor:
    """See `midgrain.ops.patches.aggregate_patches_numpy`."""
    source = _as_floats(maps, "maps")
    out = torch.empty([source.shape[0], *size], dtype=source.dtype, device=maps.device)
    _call("aggregate_patches", maps, _volume(source, 2), _triple(grid), _volume(out, 1))
    return out
