"""What SLIC compares of a picture, prepared as scikit-image does: rescaled, in Lab, smoothed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain import ops
from midgrain.compat.masked_slic import Floats, Ranges

__all__ = ["channels_first", "checked_mask", "colours", "smoothed"]


def channels_first(image: npt.NDArray[Any], channel_axis: int | None) -> npt.NDArray[Any]:
    """An image as [C, *S]; checked.

    Raises:
        TypeError, ValueError: no real numbers, other than 2 or 3 spatial axes, no pixel.
    """
    if image.dtype.kind not in "buif":
        raise TypeError(f"image: expected real numbers, got dtype {image.dtype}")
    if image.ndim == 2 and channel_axis is not None:
        raise ValueError(f"image: expected channels along axis {channel_axis}, got [H, W]; use channel_axis=None")
    spatial = image.ndim - (channel_axis is not None)
    if spatial not in (2, 3) or image.size == 0:
        raise ValueError(f"image: expected 2 or 3 spatial axes with at least one pixel, got shape {image.shape}")
    return image[None] if channel_axis is None else np.moveaxis(image, channel_axis, 0)


def checked_mask(mask: npt.ArrayLike, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """A mask as bool [*S].

    Raises:
        ValueError: another shape than the image's, or nothing inside.
    """
    inside = np.asarray(mask).astype(bool)
    if inside.shape != shape:
        raise ValueError(f"mask: expected the image's shape {shape}, got {inside.shape}")
    if not inside.any():
        raise ValueError("mask: expected at least one pixel inside, got none")
    return inside


def colours(
    pixels: npt.NDArray[Any], inside: npt.NDArray[np.bool_], convert2lab: bool | None, channel_axis: int | None
) -> tuple[Floats, Ranges]:
    """[C, *S] rescaled together to 0 .. 1 over the mask, in Lab where that is asked for, and what it may hold."""
    from skimage.util import img_as_float

    values = np.where(inside, img_as_float(pixels).astype(np.float64), 0.0)
    if not np.isfinite(values).all():
        raise ValueError("image: expected finite values (inside the mask), got NaN or infinity")
    low, high = values[:, inside].min(), values[:, inside].max()
    unit = ((values - low) / (high - low if high > low else 1.0)).clip(0.0, 1.0).astype(np.float32)
    if convert2lab and (len(pixels) != 3 or channel_axis is None):
        raise ValueError(f"convert2lab: expected an RGB image (3 channels), got {len(pixels)} channels")
    if channel_axis is not None and len(pixels) == 3 and convert2lab is not False:
        return np.asarray(ops.rgb_to_lab(np.ascontiguousarray(unit)[None])[0]), ops.LAB_RANGES
    return unit, ((0.0, 1.0),) * len(unit)


def smoothed(features: Floats, sigma: float | Sequence[float], spacing: Sequence[float] | None) -> Floats:
    """Features [C, *S] after a Gaussian blur.

    Args:
        features: [C, *S].
        sigma: its width in pixels, one number (divided by `spacing`) or one per spatial axis.
        spacing: pixel size along each spatial axis.

    Raises:
        ValueError: a negative width, or not one number per axis.
    """
    axes = features.ndim - 1
    if np.ndim(sigma) == 0:
        widths = [float(sigma) / step for step in (spacing or [1.0] * axes)]  # type: ignore[arg-type]
    else:
        widths = [float(width) for width in sigma]  # type: ignore[union-attr]
    if len(widths) != axes or (spacing is not None and len(spacing) != axes):
        raise ValueError(
            f"sigma, spacing: expected one number, or one per spatial axis ({axes}), got {sigma}, {spacing}"
        )
    if min(widths) < 0:
        raise ValueError(f"sigma: expected no negative width, got {sigma}")
    if max(widths) == 0:
        return features
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(features, [0.0, *widths], mode="reflect"))
