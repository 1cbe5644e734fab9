"""Batched SLIC and connectivity over any feature channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain import _kernels
from midgrain.ops.arrays import as_dense, as_float32, as_int32, is_torch, wrap_like
from midgrain.ops.checks import (
    check_int,
    check_positive,
    check_ranges,
    check_real_dtype,
    check_sequence,
    check_spacing,
)
from midgrain.ops.device_arrays import takes_device_arrays

__all__ = [
    "enforce_connectivity",
    "enforce_connectivity_numpy",
    "max_superpixels",
    "min_superpixel_size",
    "slic",
    "slic_numpy",
]


@takes_device_arrays("features")
def slic(
    features: Any,
    weights: Sequence[float] | npt.NDArray[Any],
    n_segments: int,
    *,
    max_num_iter: int = 10,
    spacing: Sequence[float] | None = None,
    ranges: Sequence[tuple[float, float]] | None = None,
    enforce_connectivity: bool = True,
    min_size_factor: float = 0.5,
    num_threads: int | None = None,
) -> tuple[Any, Any]:
    """Cluster the pixels of every item into about `n_segments` superpixels (Thesis 3.4, eqs. 3.2 to 3.6).

    A pixel's squared distance to a centre is the sum over channels of ((f - centre) / weight)^2 plus the squared
    distance in the plane over the squared grid step; centres compete within two steps per axis. All arithmetic
    after one rounding of the features is in integers: the same features give the same labels for any batch, thread
    count and run.

    Args:
        features: float array [B, C, Y, X] (images) or [B, C, Z, Y, X] (volumes), C from 1 to 64.
        weights: C positive numbers, in the units of the features. A smaller weight gives a channel more influence.
        n_segments: wanted superpixels per item, 1 .. pixels.
        max_num_iter: k-means iterations; fewer are run when no label changes any more.
        spacing: pixel size along each spatial axis (2 or 3 positive numbers), 1 by default.
        ranges: (low, high) per channel. Features are clamped to it, and its width sets the fixed-point resolution.
            By default each item's own minimum and maximum.
        enforce_connectivity: make every superpixel one connected piece and merge those below
            `min_size_factor` * pixels / n_segments into the neighbour with the longest shared border.
            If False, labels are the indices of the centres, which may be empty or in several pieces.
        min_size_factor: see `enforce_connectivity`; 0 merges nothing.
        num_threads: threads for this call, else MIDGRAIN_NUM_THREADS, torch's setting or the cores.
            Just after torch operations 1 is faster for single pictures: torch's own threads keep the cores busy for
            some milliseconds.

    Returns:
        labels: int32 [B, Y, X] or [B, Z, Y, X], 0 .. counts - 1 in raster order of each superpixel's first pixel.
        counts: int32 [B], the number of superpixels (of centres without `enforce_connectivity`).
        Both are the kind of array that came in.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ValueError: a shape, number or range outside what is said above; NaN or infinity in the features.
        BackendUnavailableError: the features lie on a device without kernels.

    Example:
        >>> import numpy as np, midgrain as mg
        >>> depth = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(1, 1, 64, 64)
        >>> labels, counts = mg.ops.slic(depth, [0.5], n_segments=16)
        >>> labels.shape, int(labels.max()) + 1 == int(counts[0])
        ((1, 64, 64), True)
    """
    array = as_dense(features, "features")
    if array.ndim not in (4, 5):
        raise ValueError(f"features: expected [B, C, Y, X] or [B, C, Z, Y, X], got shape {list(array.shape)}")
    shape = [int(n) for n in array.shape]
    channels, dims = shape[1], shape[2:]
    if min(shape) < 1:
        raise ValueError(f"features: expected no empty axis, got shape {shape}")
    if channels > _kernels.cpu.MAX_CHANNELS:
        raise ValueError(f"features: expected 1 .. {_kernels.cpu.MAX_CHANNELS} channels, got {channels}")
    values = [
        check_positive(weight, "weights")
        for weight in check_sequence(weights, "weights", channels, "number per channel")
    ]
    pixels = math.prod(dims)
    check_int(n_segments, "n_segments", 1, pixels)
    check_int(max_num_iter, "max_num_iter", 1, 1_000_000)
    check_positive(min_size_factor, "min_size_factor", zero=True)
    min_size = min_superpixel_size(pixels, n_segments, min_size_factor) if enforce_connectivity else 0
    arguments = (
        values,
        int(n_segments),
        int(max_num_iter),
        list(check_spacing(spacing, len(dims))),
        None if ranges is None else check_ranges(ranges, channels),
        min_size,
        _kernels.check_threads(num_threads),
    )
    if is_torch(features):
        from midgrain.ops import torch_library

        torch_labels, torch_counts = torch_library.slic(features, *arguments)
        return torch_labels, torch_counts
    labels, counts = slic_numpy(array, *arguments)
    return wrap_like(labels, features), wrap_like(counts, features)


def min_superpixel_size(pixels: int, n_segments: int, min_size_factor: float) -> int:
    """Pieces below this number of pixels are merged away; at least 1, which merges nothing."""
    return max(1, math.ceil(min(min_size_factor * pixels / n_segments, pixels)))


def max_superpixels(pixels: int, n_segments: int, min_size_factor: float = 0.5) -> int:
    """Upper bound of the number of connected superpixels per item, known before they are computed.

    Args:
        pixels: of one item.
        n_segments: as given to `slic`.
        min_size_factor: as given to `slic`.

    Example:
        >>> import midgrain as mg
        >>> mg.ops.max_superpixels(224 * 224, 300)
        597
    """
    check_int(n_segments, "n_segments", 1, check_int(pixels, "pixels", 1))
    return max(1, pixels // min_superpixel_size(pixels, n_segments, min_size_factor))


def slic_numpy(
    features: npt.NDArray[Any],
    weights: list[float],
    n_segments: int,
    max_num_iter: int,
    spacing: list[float],
    ranges: list[float] | None,
    min_size: int,
    num_threads: int | None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """`slic` on checked arguments: spacing as (z, y, x), ranges flattened, min_size 0 for raw labels."""
    check_real_dtype(features, "features")
    shape = features.shape
    volume = as_float32(features).reshape(*shape[:2], -1, *shape[-2:])
    labels = np.empty((shape[0], *volume.shape[2:]), np.int32)
    counts = np.empty(shape[0], np.int32)
    pairs = None if ranges is None else list(zip(ranges[::2], ranges[1::2], strict=True))
    z, y, x = spacing
    threads = _kernels.num_threads(num_threads)
    _kernels.cpu.slic(volume, weights, pairs, n_segments, max_num_iter, (z, y, x), min_size, labels, counts, threads)
    return labels.reshape(shape[0], *shape[2:]), counts


@takes_device_arrays("labels")
def enforce_connectivity(labels: Any, min_size: int = 1, *, num_threads: int | None = None) -> tuple[Any, Any]:
    """Split every label into connected pieces and merge the small ones, whatever made the labels.

    Pieces (4-neighbours, 6 in a volume) of fewer than `min_size` pixels all choose, at the same moment, the
    neighbour with the longest shared border (ties: the one whose first pixel comes first); this is repeated until
    none is left. The result does not depend on the order of a scan.

    Args:
        labels: integers [B, Y, X] or [B, Z, Y, X], any values that fit int32.
        min_size: in pixels; 1 (or 0) merges nothing.
        num_threads: see `slic`.

    Returns:
        labels: int32, same shape, 0 .. counts - 1 in raster order of first pixels.
        counts: int32 [B].

    Raises:
        TypeError: not an array of integers.
        ValueError: the wrong rank, an empty axis, values beyond int32, a negative `min_size`.
        BackendUnavailableError: the labels lie on a device without kernels.

    Example:
        >>> import numpy as np, midgrain as mg
        >>> labels, counts = mg.ops.enforce_connectivity(np.array([[[7, 7, 2], [2, 7, 7]]], dtype=np.int32))
        >>> labels.tolist(), counts.tolist()
        ([[[0, 0, 1], [2, 0, 0]]], [3])
    """
    array = as_dense(labels, "labels")
    shape = [int(n) for n in array.shape]
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise ValueError(f"labels: expected [B, Y, X] or [B, Z, Y, X] without empty axes, got shape {shape}")
    arguments = min(check_int(min_size, "min_size", 0), math.prod(shape)), _kernels.check_threads(num_threads)
    if is_torch(labels):
        from midgrain.ops import torch_library

        torch_labels, torch_counts = torch_library.enforce_connectivity(labels, *arguments)
        return torch_labels, torch_counts
    connected, counts = enforce_connectivity_numpy(array, *arguments)
    return wrap_like(connected, labels), wrap_like(counts, labels)


def enforce_connectivity_numpy(
    labels: npt.NDArray[Any], min_size: int, num_threads: int | None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """`enforce_connectivity` on checked arguments."""
    volume = as_int32(labels, "labels").reshape(labels.shape[0], -1, *labels.shape[-2:])
    out = np.empty_like(volume)
    counts = np.empty(labels.shape[0], np.int32)
    _kernels.cpu.enforce_connectivity(volume, min_size, out, counts, _kernels.num_threads(num_threads))
    return out.reshape(labels.shape), counts
