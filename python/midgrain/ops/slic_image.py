"""SLIC for one image or volume, with scikit-image's argument names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain import _kernels
from midgrain.ops.arrays import as_float32, as_numpy, require_same_kind, wrap_like
from midgrain.ops.checks import (
    check_compactness,
    check_finite,
    check_int,
    check_positive,
    check_real_dtype,
    check_spacing,
)
from midgrain.ops.color import GRADIENT_RANGE
from midgrain.ops.slic import min_superpixel_size, slic_numpy
from midgrain.ops.slic_pictures import slic_pictures_numpy

__all__ = ["slic_image"]

# Floats a little outside 0 .. 1 come from rounding when a normalisation was undone; more is another scale.
_UNIT_TOLERANCE = 1e-3


def slic_image(
    image: Any,
    n_segments: int = 100,
    compactness: float = 10.0,
    max_num_iter: int = 10,
    *,
    gradient: Any = None,
    gradient_compactness: float = 9.0,
    spacing: Sequence[float] | None = None,
    convert2lab: bool | None = None,
    enforce_connectivity: bool = True,
    min_size_factor: float = 0.5,
    start_label: int = 0,
    channel_axis: int | None = -1,
    num_threads: int | None = None,
) -> Any:
    """Superpixels of one image or volume, from its colours, a gradient map or both (Thesis 3.4).

    The squared distance of a pixel to a centre is (colour / compactness)^2 + (space / grid step)^2 +
    (gradient / gradient_compactness)^2.

    Args:
        image: [H, W], [H, W, C] or a volume [T, H, W, C]; with `channel_axis=None` [H, W] or [T, H, W]. RGB is
            uint8, uint16 or floats in 0 .. 1. None with `gradient=` uses the gradient alone (the "G" variant).
        n_segments: wanted number of superpixels, 1 .. pixels. The result is close to it, not equal.
        compactness: weight of colour against space (w_c). Higher is squarer. For Lab 10 is the classic value.
        max_num_iter: k-means iterations.
        gradient: [H, W] or [T, H, W], any finite values; rescaled to 0 .. 100 over the image.
        gradient_compactness: weight of the gradient against space (w_g).
        spacing: pixel size along each spatial axis.
        convert2lab: convert RGB to CIELAB first. By default where the image has three channels. Other channels
            are rescaled together to 0 .. 1, as scikit-image does, so that compactness has its meaning there.
        enforce_connectivity: one connected piece per superpixel, small ones merged (see `midgrain.ops.slic`).
        min_size_factor: smallest superpixel, relative to the expected size.
        start_label: label of the first superpixel.
        channel_axis: axis of the channels, None if there is none. A [H, W] image needs no mention of it.
        num_threads: threads for this call.

    Returns:
        int32 labels [H, W] or [T, H, W] from `start_label` on without gaps, the kind of array that came in.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ValueError: a wrong shape, channel count or range; NaN or infinity; RGB floats outside 0 .. 1.

    Example:
        >>> import numpy as np, midgrain as mg
        >>> photo = np.zeros((60, 80, 3), np.uint8)
        >>> photo[:, 40:] = (200, 30, 30)
        >>> labels = mg.slic(photo, n_segments=12)
        >>> labels.shape, int(labels.max()) + 1
        ((60, 80), 12)
    """
    caller = gradient if image is None else image
    if caller is None:
        raise ValueError("image: expected an image, a gradient or both, got neither")
    if image is not None and gradient is not None:
        require_same_kind(image, gradient, ("image", "gradient"))
    pixels = None if image is None else _channels_first(as_numpy(image, "image"), channel_axis)
    slope = None if gradient is None else _checked_gradient(as_numpy(gradient, "gradient"))
    spatial = _spatial_shape(pixels, slope)
    weights = [
        1.0 if pixels is None else check_compactness(compactness, "compactness"),
        1.0 if slope is None else check_compactness(gradient_compactness, "gradient_compactness"),
    ]
    if convert2lab and pixels is not None and pixels.shape[0] != 3:
        raise ValueError(f"convert2lab: expected an RGB image (3 channels), got {pixels.shape[0]} channels")
    check_int(n_segments, "n_segments", 1, math.prod(spatial))
    check_int(start_label, "start_label", 0, 2**30)
    check_int(max_num_iter, "max_num_iter", 1, 1_000_000)
    check_positive(min_size_factor, "min_size_factor", zero=True)
    size = min_superpixel_size(math.prod(spatial), n_segments, min_size_factor) if enforce_connectivity else 0
    steps = list(check_spacing(spacing, len(spatial)))
    n_segments, max_num_iter = int(n_segments), int(max_num_iter)
    threads = _kernels.num_threads(num_threads)
    if pixels is None or (pixels.shape[0] == 3 and convert2lab is not False):
        batch = None if pixels is None else _unit_rgb(pixels)[None]
        # Channels last in memory are handed on as they are: the kernel reads both orders.
        axis = 1
        if batch is not None and not batch.flags.c_contiguous:
            batch, axis = np.moveaxis(batch, 1, -1), -1
        maps = None if slope is None else slope[None]
        labels, _ = slic_pictures_numpy(
            batch, maps, axis, [1.0] * 3, [0.0] * 3, weights, n_segments, max_num_iter, steps, size, threads
        )
    else:
        features, per_channel, ranges = _stack(pixels, slope, weights)
        labels, _ = slic_numpy(features, per_channel, n_segments, max_num_iter, steps, ranges, size, threads)
    result = labels[0]
    if start_label:
        result += np.int32(start_label)
    return wrap_like(result, caller)


def _channels_first(image: npt.NDArray[Any], channel_axis: int | None) -> npt.NDArray[Any]:
    """Views the image as [C, H, W] or [C, T, H, W]."""
    check_real_dtype(image, "image")
    if image.size == 0:
        raise ValueError(f"image: expected at least one pixel, got shape {image.shape}")
    if image.ndim == 2 or channel_axis is None:
        if image.ndim not in (2, 3):
            raise ValueError(f"image: expected [H, W] or [T, H, W] with channel_axis=None, got shape {image.shape}")
        return image[None]
    if isinstance(channel_axis, bool) or not isinstance(channel_axis, int | np.integer):
        raise TypeError(f"channel_axis: expected an int or None, got {type(channel_axis).__name__}")
    if not -image.ndim <= channel_axis < image.ndim:
        raise ValueError(f"channel_axis: expected an axis of shape {image.shape}, got {channel_axis}")
    if image.ndim not in (3, 4):
        raise ValueError(f"image: expected [H, W, C] or [T, H, W, C], got shape {image.shape}")
    first = np.moveaxis(image, channel_axis, 0)
    if first.shape[0] > _kernels.cpu.MAX_CHANNELS:
        raise ValueError(
            f"image: expected at most {_kernels.cpu.MAX_CHANNELS} channels along axis {channel_axis}, got shape "
            f"{image.shape}; a volume without channels needs channel_axis=None"
        )
    return first


def _checked_gradient(gradient: npt.NDArray[Any]) -> npt.NDArray[Any]:
    check_real_dtype(gradient, "gradient")
    if gradient.ndim not in (2, 3) or gradient.size == 0:
        raise ValueError(f"gradient: expected [H, W] or [T, H, W] with at least one pixel, got shape {gradient.shape}")
    return gradient


def _spatial_shape(pixels: npt.NDArray[Any] | None, slope: npt.NDArray[Any] | None) -> tuple[int, ...]:
    if pixels is None:
        assert slope is not None
        return slope.shape
    spatial: tuple[int, ...] = pixels.shape[1:]
    if slope is not None and slope.shape != spatial:
        raise ValueError(f"gradient: expected the image's shape {spatial}, got {slope.shape}")
    return spatial


def _stack(
    pixels: npt.NDArray[Any], slope: npt.NDArray[Any] | None, weights: list[float]
) -> tuple[npt.NDArray[np.float32], list[float], list[float]]:
    """Features [1, C, ...] of an image that is not converted to Lab, their weights and flattened ranges."""
    channels = len(pixels)
    check_finite(pixels, "image")
    features, per_channel, ranges = (
        [_unit_range(_unit_magnitude(pixels))],
        [weights[0]] * channels,
        [0.0, 1.0] * channels,
    )
    if slope is not None:
        check_finite(slope, "gradient")
        unit = _unit_range(_unit_magnitude(slope).astype(np.float32))
        # A flat gradient says nothing; as a channel it would still change the rounding of the colours.
        if unit.any():
            low, high = GRADIENT_RANGE
            features.append(unit[None] * np.float32(high))
            per_channel.append(weights[1])
            ranges += [low, high]
    return np.concatenate(features)[None], per_channel, ranges


def _unit_range(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Rescaled together to 0 .. 1; all equal gives 0."""
    low, high = values.min(), values.max()
    if high == low:
        return np.zeros(values.shape, np.float32)
    unit: npt.NDArray[np.float32] = ((values - low) / (high - low)).astype(np.float32)
    return unit


def _unit_rgb(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image / np.float32(65535)).astype(np.float32)
    if image.dtype.kind != "f":
        raise TypeError(f"image: expected RGB as uint8, uint16 or floats, got dtype {image.dtype}")
    # Through the memory's own order: a view with channels first of one with channels last is not contiguous.
    narrow = image.astype(np.float32, order="K", copy=False)
    found = _kernels.cpu.find_range(as_float32(narrow.ravel(order="K")))
    if found is None:
        raise ValueError("image: expected finite values, got NaN or infinity")
    low, high = found
    if low < -_UNIT_TOLERANCE or high > 1 + _UNIT_TOLERANCE:
        raise ValueError(
            f"image: expected RGB floats in 0 .. 1, got {low:g} .. {high:g}; scale the image or pass convert2lab=False"
        )
    return narrow


def _unit_magnitude(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The array times a power of two, largest magnitude 0.5 .. 1: differences neither overflow nor vanish."""
    values = array.astype(np.float64)
    _, exponent = math.frexp(max(abs(float(values.min())), abs(float(values.max()))))
    values *= math.ldexp(1.0, min(-exponent, 1000))
    return values
