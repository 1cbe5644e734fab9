"""Jitter-CAM's patches: windows of an enlarged image or clip, and the mean of the maps that they give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain import _kernels
from midgrain.ops.arrays import as_dense, as_floats, is_torch, wrap_like
from midgrain.ops.checks import check_int, check_int_per_axis
from midgrain.ops.device_arrays import takes_device_arrays
from midgrain.ops.shapes import triple, volume

__all__ = [
    "MAX_PIXELS",
    "aggregate_patches",
    "aggregate_patches_numpy",
    "enlarged_size",
    "extract_patches",
    "extract_patches_backward_numpy",
    "extract_patches_numpy",
    "patch_offset",
]

#: Of an item, enlarged; as the kernels have it.
MAX_PIXELS = 2**31 - 1


@takes_device_arrays("images")
def extract_patches(
    images: Any,
    cells: int | Sequence[int],
    grid: int | Sequence[int],
    *,
    patch_size: int | Sequence[int] | None = None,
    size: int | Sequence[int] | None = None,
    start: int = 0,
    count: int | None = None,
    num_threads: int | None = None,
) -> Any:
    """Enlarge images or clips and cut overlapping patches from them, without storing the enlarged image (Thesis 5.3).

    A network that sees a patch of p pixels as a map of m cells has p / m pixels per cell. Patches lie one cell apart:
    along each axis, patch i begins at pixel floor(i p / m + 1/2) of the enlarged image. The enlarged image is as large
    as the patches reach, p + floor(d p / m + 1/2) for d + 1 patches. Jitter-CAM is `extract_patches(x, m, d + 1)`,
    the network's map of each patch, and `aggregate_patches(maps, d + 1, size=x.shape[2:])`.

    Enlarging is bilinear (trilinear for clips) without aligned corners, as in `torch.nn.functional.interpolate`; the
    last bits differ, because weights here are rounded from exact positions. Axes that keep their size are copied: a
    clip without temporal jitter has a grid of 1 along time. A constant image gives exactly constant patches.

    Args:
        images: real numbers, [B, C, Y, X] or [B, C, Z, Y, X]; floats keep their dtype, half floats give float32,
            integers and bools float64. NaN and infinity spread to what is interpolated from them.
        cells: m, the size of the map that a patch gives; the distance of patches is patch_size / cells pixels. One
            number for all spatial axes or one for each, 1 .. patch_size.
        grid: patches along each axis, d + 1.
        patch_size: p, by default the images' own size.
        size: of the enlarged images, by default as large as the patches reach; they lie at its beginning. It may be
            smaller than the images; nothing is smoothed then.
        start: the first patch that is wanted, in row-major order of the grid.
        count: how many are wanted, by default all from `start` on; batches of them keep memory bounded and are the
            same bit for bit.
        num_threads: see `midgrain.ops.slic`.

    Returns:
        [B, count, C, *patch_size], the kind of array that came in. Differentiable with respect to `images` for torch
        tensors.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ValueError: shapes or numbers outside what is said above; 2^31 or more pixels in an enlarged image.
        BackendUnavailableError: the images lie on a device without kernels.

    Example:
        >>> import numpy as np, midgrain as mg
        >>> images = np.random.default_rng(0).random((1, 3, 224, 320), np.float32)
        >>> patches = mg.ops.extract_patches(images, cells=(7, 10), grid=(8, 11), start=40, count=16)
        >>> patches.shape
        (1, 16, 3, 224, 320)
    """
    array = as_dense(images, "images")
    shape = [int(n) for n in array.shape]
    if len(shape) not in (4, 5) or min(shape) < 1:
        raise ValueError(f"images: expected [B, C, Y, X] or [B, C, Z, Y, X] without empty axes, got shape {shape}")
    axes = len(shape) - 2
    patch = shape[2:] if patch_size is None else check_int_per_axis(patch_size, "patch_size", axes, 1, MAX_PIXELS)
    cell_counts = check_int_per_axis(cells, "cells", axes, 1)
    grid_counts = check_int_per_axis(grid, "grid", axes, 1, MAX_PIXELS)
    if any(m > p for p, m in zip(patch, cell_counts, strict=True)):
        raise ValueError(f"cells: expected at most the patch's pixels along each axis, {patch}, got {cell_counts}")
    extent = enlarged_size(patch, cell_counts, grid_counts)
    sizes = extent if size is None else check_int_per_axis(size, "size", axes, 1)
    if any(s < e for s, e in zip(sizes, extent, strict=True)):
        raise ValueError(f"size: expected at least {extent}, where the last patch ends, got {sizes}")
    if math.prod(sizes) > MAX_PIXELS:
        raise ValueError(f"{'grid' if size is None else 'size'}: expected fewer than 2^31 enlarged pixels, got {sizes}")
    n = math.prod(grid_counts)
    first = check_int(start, "start", 0, n - 1)
    wanted = n - first if count is None else check_int(count, "count", 1, n - first)
    arguments = (patch, cell_counts, grid_counts, sizes, first, wanted, _kernels.check_threads(num_threads))
    if is_torch(images):
        from midgrain.ops import torch_library

        return torch_library.extract_patches(images, *arguments)
    return wrap_like(extract_patches_numpy(array, *arguments), images)


@takes_device_arrays("maps")
def aggregate_patches(
    maps: Any, grid: int | Sequence[int], *, size: int | Sequence[int] | None = None, num_threads: int | None = None
) -> Any:
    """Put the maps of overlapping patches together: each cell is the mean of the maps that cover it (Thesis 5.3).

    The map of patch i along an axis lies i cells into the whole; m cells of d + 1 patches make m + d cells. Values are
    summed in float64 in the order of the patches, divided by their exact number and rounded once, so that the result
    does not depend on threads or batch, and constant float32 maps give exactly that constant. Maps are small (64 of
    7 x 7 for a doubled ResNet-50): keep those of all batches of patches and call this once.

    Args:
        maps: real numbers, [B, n, Y, X] or [B, n, Z, Y, X], one map per patch in row-major order of the grid, as
            `extract_patches` makes them; dtypes, NaN and infinity as there.
        grid: patches along each axis, their product n. One number for all spatial axes or one for each.
        size: enlarge the result to this, bilinearly (trilinearly) without aligned corners.
        num_threads: see `midgrain.ops.slic`.

    Returns:
        [B, *(m + grid - 1)], or [B, *size], the kind of array that came in. Differentiable with respect to `maps` for
        torch tensors.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ValueError: shapes or numbers outside what is said above.
        BackendUnavailableError: the maps lie on a device without kernels.

    Example:
        >>> import numpy as np, midgrain as mg
        >>> maps = np.array([[[[1.0, 2.0]], [[4.0, 8.0]]]])  # two patches, each 1 x 2 cells
        >>> mg.ops.aggregate_patches(maps, grid=(1, 2))
        array([[[1., 3., 8.]]])
    """
    array = as_dense(maps, "maps")
    shape = [int(n) for n in array.shape]
    if len(shape) not in (4, 5) or min(shape) < 1:
        raise ValueError(f"maps: expected [B, n, Y, X] or [B, n, Z, Y, X] without empty axes, got shape {shape}")
    axes = len(shape) - 2
    grid_counts = check_int_per_axis(grid, "grid", axes, 1, MAX_PIXELS)
    if math.prod(grid_counts) != shape[1]:
        raise ValueError(
            f"maps: expected {math.prod(grid_counts)} along axis 1, one per patch of the grid {grid_counts}, got "
            f"shape {shape}"
        )
    sizes = _whole(shape[2:], grid_counts) if size is None else check_int_per_axis(size, "size", axes, 1)
    if math.prod(sizes) > MAX_PIXELS:
        raise ValueError(f"size: expected fewer than 2^31 pixels, got {sizes}")
    arguments = (grid_counts, sizes, _kernels.check_threads(num_threads))
    if is_torch(maps):
        from midgrain.ops import torch_library

        return torch_library.aggregate_patches(maps, *arguments)
    return wrap_like(aggregate_patches_numpy(array, *arguments), maps)


def extract_patches_numpy(
    images: npt.NDArray[Any],
    patch_size: Sequence[int],
    cells: Sequence[int],
    grid: Sequence[int],
    size: Sequence[int],
    start: int,
    count: int,
    num_threads: int | None,
) -> npt.NDArray[Any]:
    """`extract_patches` on checked arguments, one number per spatial axis."""
    source = as_floats(images, "images")
    patches = np.empty((source.shape[0], count, source.shape[1], *patch_size), source.dtype)
    _kernels.cpu.extract_patches(
        volume(source, 2),
        triple(cells),
        triple(grid),
        triple(size),
        start,
        volume(patches, 3),
        _kernels.num_threads(num_threads),
    )
    return patches


def extract_patches_backward_numpy(
    patches: npt.NDArray[Any],
    image_size: Sequence[int],
    cells: Sequence[int],
    grid: Sequence[int],
    size: Sequence[int],
    start: int,
    num_threads: int | None,
) -> npt.NDArray[Any]:
    """The adjoint of `extract_patches`: patches [B, n, C, *patch_size] to images [B, C, *image_size]."""
    source = as_floats(patches, "patches")
    images = np.empty((source.shape[0], source.shape[2], *image_size), source.dtype)
    _kernels.cpu.extract_patches_backward(
        volume(source, 3),
        triple(cells),
        triple(grid),
        triple(size),
        start,
        volume(images, 2),
        _kernels.num_threads(num_threads),
    )
    return images


def aggregate_patches_numpy(
    maps: npt.NDArray[Any], grid: Sequence[int], size: Sequence[int], num_threads: int | None
) -> npt.NDArray[Any]:
    """`aggregate_patches` on checked arguments, one number per spatial axis."""
    source = as_floats(maps, "maps")
    out = np.empty((source.shape[0], *size), source.dtype)
    threads = _kernels.num_threads(num_threads)
    _kernels.cpu.aggregate_patches(volume(source, 2), triple(grid), volume(out, 1), threads)
    return out


def enlarged_size(patch_size: Sequence[int], cells: Sequence[int], grid: Sequence[int]) -> list[int]:
    """How far the patches reach along each axis: p + floor(d p / m + 1/2) pixels."""
    return [p + patch_offset(p, m, g - 1) for p, m, g in zip(patch_size, cells, grid, strict=True)]


def patch_offset(patch_size: int, cells: int, number: int) -> int:
    """Where patch i of an axis begins: at pixel floor(i p / m + 1/2)."""
    return (2 * number * patch_size + cells) // (2 * cells)


def _whole(cells: Sequence[int], grid: Sequence[int]) -> list[int]:
    return [m + g - 1 for m, g in zip(cells, grid, strict=True)]
