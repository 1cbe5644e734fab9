"""Batched SLIC of pictures, gradient maps or both, colour conversion included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain import _kernels
from midgrain.ops.arrays import as_dense, as_float32, contiguous, is_torch, require_same_kind, wrap_like
from midgrain.ops.checks import (
    check_compactness,
    check_finite_numbers,
    check_int,
    check_positive,
    check_real_dtype,
    check_spacing,
)
from midgrain.ops.device_arrays import takes_device_arrays
from midgrain.ops.shapes import labels_shape, volume
from midgrain.ops.slic import min_superpixel_size

__all__ = ["slic_pictures", "slic_pictures_numpy"]


@takes_device_arrays("images", "gradient")
def slic_pictures(
    images: Any,
    n_segments: int,
    *,
    gradient: Any = None,
    compactness: float = 10.0,
    gradient_compactness: float = 9.0,
    max_num_iter: int = 10,
    spacing: Sequence[float] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channel_axis: int = 1,
    enforce_connectivity: bool = True,
    min_size_factor: float = 0.5,
    num_threads: int | None = None,
) -> tuple[Any, Any]:
    """Superpixels of a batch of pictures or clips, from their colours, a gradient map or both (Thesis 3.4).

    What `midgrain.slic` does for one picture, for a batch, as a network takes it: conversion to CIELAB, rescaling of
    the gradient and clustering in one pass, without intermediate arrays.

    Args:
        images: [B, 3, H, W] or [B, 3, T, H, W], or with `channel_axis=-1` [B, H, W, 3] or [B, T, H, W, 3]. uint8 of
            0 .. 255, or floats for which value * std + mean is sRGB in 0 .. 1 (clamped). None with `gradient=` uses
            the gradient alone.
        n_segments: wanted superpixels per item, 1 .. pixels.
        gradient: [B, H, W] or [B, T, H, W], any finite values; rescaled to 0 .. 100 over each item. A flat one
            beside a picture is left out.
        compactness: weight of colour against space (w_c).
        gradient_compactness: weight of the gradient against space (w_g).
        max_num_iter: k-means iterations.
        spacing: pixel size along each spatial axis.
        mean: what was subtracted from each colour channel of float images, 0 by default.
        std: what it was divided by, 1 by default.
        channel_axis: 1 or -1 (the last).
        enforce_connectivity: see `midgrain.ops.slic`.
        min_size_factor: see `midgrain.ops.slic`.
        num_threads: see `midgrain.ops.slic`.

    Returns:
        labels: int32 [B, H, W] or [B, T, H, W]; counts: int32 [B]; see `midgrain.ops.slic`.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ValueError: a shape, number or range outside what is said above; NaN or infinity.
        BackendUnavailableError: the arrays lie on a device without kernels.

    Example:
        >>> import numpy as np, midgrain as mg
        >>> labels, counts = mg.ops.slic_pictures(np.zeros((2, 3, 32, 48), np.uint8), n_segments=24)
        >>> labels.shape, counts.tolist()
        ((2, 32, 48), [24, 24])
    """
    if images is None and gradient is None:
        raise ValueError("images: expected images, a gradient or both, got neither")
    if images is not None and gradient is not None:
        require_same_kind(images, gradient, ("images", "gradient"))
    like = gradient if images is None else images
    images = None if images is None else as_dense(images, "images")
    gradient = None if gradient is None else as_dense(gradient, "gradient")
    if channel_axis not in (1, -1):
        raise ValueError(f"channel_axis: expected 1 or -1, got {channel_axis!r}")
    shape = _item_shape(images, gradient, channel_axis)
    pixels = math.prod(shape)
    check_int(n_segments, "n_segments", 1, pixels)
    check_int(max_num_iter, "max_num_iter", 1, 1_000_000)
    check_positive(min_size_factor, "min_size_factor", zero=True)
    arguments = (
        channel_axis,
        check_finite_numbers(std, "std", 3, 1.0),
        check_finite_numbers(mean, "mean", 3, 0.0),
        [
            check_compactness(compactness, "compactness"),
            check_compactness(gradient_compactness, "gradient_compactness"),
        ],
        int(n_segments),
        int(max_num_iter),
        list(check_spacing(spacing, len(shape))),
        min_superpixel_size(pixels, n_segments, min_size_factor) if enforce_connectivity else 0,
        _kernels.check_threads(num_threads),
    )
    if is_torch(like):
        from midgrain.ops import torch_library

        torch_labels, torch_counts = torch_library.slic_pictures(images, gradient, *arguments)
        return torch_labels, torch_counts
    labels, counts = slic_pictures_numpy(images, gradient, *arguments)
    return wrap_like(labels, like), wrap_like(counts, like)


def _item_shape(images: Any, gradient: Any, channel_axis: int) -> list[int]:
    """The spatial shape of an item; refuses shapes that do not fit."""
    shape: list[int] | None = None
    if images is not None:
        full = [int(n) for n in images.shape]
        if len(full) not in (4, 5) or full[channel_axis] != 3:
            allowed = "[B, 3, (T,) H, W]" if channel_axis == 1 else "[B, (T,) H, W, 3]"
            raise ValueError(f"images: expected {allowed}, got shape {full}")
        shape = labels_shape(images, None, channel_axis)
        if min(shape) < 1:
            raise ValueError(f"images: expected no empty axis, got shape {full}")
    if gradient is not None:
        full = [int(n) for n in gradient.shape]
        if shape is not None and full != shape:
            raise ValueError(f"gradient: expected shape {shape}, as the images have, got {full}")
        if len(full) not in (3, 4) or min(full) < 1:
            raise ValueError(f"gradient: expected [B, H, W] or [B, T, H, W] without empty axes, got shape {full}")
        shape = full
    assert shape is not None
    return shape[1:]


def slic_pictures_numpy(
    images: npt.NDArray[Any] | None,
    gradient: npt.NDArray[Any] | None,
    channel_axis: int,
    std: list[float],
    mean: list[float],
    weights: list[float],
    n_segments: int,
    max_num_iter: int,
    spacing: list[float],
    min_size: int,
    num_threads: int | None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """`slic_pictures` on checked arguments: spacing as (z, y, x), min_size 0 for raw labels."""
    pictures = maps = None
    if images is not None:
        if images.dtype != np.uint8 and images.dtype.kind != "f":
            raise TypeError(f"images: expected uint8 or floats, got dtype {images.dtype}")
        axes = (2, 0) if channel_axis == 1 else (1, 1)
        pictures = volume(contiguous(images, np.uint8) if images.dtype == np.uint8 else as_float32(images), *axes)
    if gradient is not None:
        check_real_dtype(gradient, "gradient")
        maps = volume(_gradient_float32(gradient), 1)
    shape = labels_shape(images, gradient, channel_axis)
    labels, counts = np.empty(shape, np.int32), np.empty(shape[0], np.int32)
    _kernels.cpu.slic_pictures(
        pictures,
        channel_axis != 1,
        std,
        mean,
        maps,
        weights,
        n_segments,
        max_num_iter,
        spacing,
        min_size,
        volume(labels, 1),
        counts,
        _kernels.num_threads(num_threads),
    )
    return labels, counts


def _gradient_float32(gradient: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """float32 as it is; anything wider times a power of two per item, so that no value overflows or vanishes."""
    if gradient.dtype == np.float32 or gradient.dtype.itemsize <= 2:
        return as_float32(gradient)
    values = gradient.astype(np.float64)
    largest = np.abs(values).reshape(values.shape[0], -1).max(1)
    if not np.isfinite(largest).all():
        raise ValueError("gradient: expected finite values, got NaN or infinity")
    unit = np.ldexp(1.0, np.minimum(-np.frexp(largest)[1], 1000))
    return as_float32(values * unit.reshape(-1, *[1] * (values.ndim - 1)))
