"""SLIC for one image or volume, with scikit-image's argument names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain import _kernels
from midgrain.ops.arrays import as_numpy, require_same_kind, wrap_like
from midgrain.ops.checks import check_compactness, check_finite, check_int, check_real_dtype
from midgrain.ops.color import GRADIENT_RANGE, LAB_RANGES, rgb_to_lab_numpy
from midgrain.ops.slic import slic

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
    threads = _kernels.num_threads(num_threads)
    features: list[npt.NDArray[np.float32]] = []
    weights: list[float] = []
    ranges: list[tuple[float, float]] = []
    if image is not None:
        colour = _channels_first(as_numpy(image, "image"), channel_axis)
        features.append(_colour_features(colour, convert2lab, threads, ranges))
        weights += [check_compactness(compactness, "compactness")] * len(ranges)
    if gradient is not None:
        scaled = _gradient_feature(as_numpy(gradient, "gradient"))
        if features and scaled.shape[1:] != features[0].shape[1:]:
            raise ValueError(f"gradient: expected the image's shape {features[0].shape[1:]}, got {scaled.shape[1:]}")
        weight = check_compactness(gradient_compactness, "gradient_compactness")
        # A flat gradient says nothing; as a channel it would still change the rounding of the colours.
        if not features or scaled.any():
            features.append(scaled)
            weights.append(weight)
            ranges.append(GRADIENT_RANGE)
    stacked = np.concatenate(features)[None] if len(features) > 1 else features[0][None]
    check_int(n_segments, "n_segments", 1, math.prod(stacked.shape[2:]))
    check_int(start_label, "start_label", 0, 2**30)
    labels, _ = slic(
        stacked,
        weights,
        n_segments,
        max_num_iter=max_num_iter,
        spacing=spacing,
        ranges=ranges,
        enforce_connectivity=enforce_connectivity,
        min_size_factor=min_size_factor,
        num_threads=threads,
    )
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


def _colour_features(
    image: npt.NDArray[Any], convert2lab: bool | None, threads: int, ranges: list[tuple[float, float]]
) -> npt.NDArray[np.float32]:
    """[C, ...] features of an image; appends their ranges."""
    channels = image.shape[0]
    if convert2lab and channels != 3:
        raise ValueError(f"convert2lab: expected an RGB image (3 channels), got {channels} channels")
    check_finite(image, "image")
    if (convert2lab is None and channels == 3) or convert2lab:
        ranges += LAB_RANGES
        lab: npt.NDArray[np.float32] = rgb_to_lab_numpy(_unit_rgb(image)[None], 1, threads)[0]
        return lab
    ranges += [(0.0, 1.0)] * channels
    values = _unit_magnitude(image)
    low, high = values.min(), values.max()
    if high == low:
        return np.zeros(image.shape, np.float32)
    unit: npt.NDArray[np.float32] = ((values - low) / (high - low)).astype(np.float32)
    return unit


def _unit_rgb(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image / np.float32(65535)).astype(np.float32)
    if image.dtype.kind != "f":
        raise TypeError(f"image: expected RGB as uint8, uint16 or floats, got dtype {image.dtype}")
    low, high = float(image.min()), float(image.max())
    if low < -_UNIT_TOLERANCE or high > 1 + _UNIT_TOLERANCE:
        raise ValueError(
            f"image: expected RGB floats in 0 .. 1, got {low:g} .. {high:g}; scale the image or pass convert2lab=False"
        )
    return image


def _gradient_feature(gradient: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """[1, ...] in 0 .. 100 over the whole image or clip; all equal gives 0."""
    check_real_dtype(gradient, "gradient")
    if gradient.ndim not in (2, 3) or gradient.size == 0:
        raise ValueError(f"gradient: expected [H, W] or [T, H, W] with at least one pixel, got shape {gradient.shape}")
    check_finite(gradient, "gradient")
    values = _unit_magnitude(gradient).astype(np.float32)
    low, high = values.min(), values.max()
    if high == low:
        return np.zeros((1, *values.shape), np.float32)
    scaled: npt.NDArray[np.float32] = (values - low) / (high - low) * np.float32(100)
    return scaled[None]


def _unit_magnitude(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The array times a power of two, largest magnitude 0.5 .. 1: differences neither overflow nor vanish."""
    values = array.astype(np.float64)
    _, exponent = math.frexp(max(abs(float(values.min())), abs(float(values.max()))))
    values *= math.ldexp(1.0, min(-exponent, 1000))
    return values
