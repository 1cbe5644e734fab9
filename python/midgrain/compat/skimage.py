"""scikit-image's SLIC: `from skimage.segmentation import slic` becomes `from midgrain.compat.skimage import slic`.

What `midgrain.slic` has too goes to the same kernels; smoothing, masks and the largest size are added here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain import ops
from midgrain.compat.masked_slic import Floats, Labels, Ranges, superpixels_inside, without_large
from midgrain.ops.checks import check_bool, check_compactness, check_int, check_positive
from midgrain.ops.slic import min_superpixel_size

__all__ = ["slic"]


def slic(
    image: npt.ArrayLike,
    n_segments: int = 100,
    compactness: float = 10.0,
    max_num_iter: int = 10,
    sigma: float | Sequence[float] = 0,
    spacing: Sequence[float] | None = None,
    convert2lab: bool | None = None,
    enforce_connectivity: bool = True,
    min_size_factor: float = 0.5,
    max_size_factor: float = 3,
    slic_zero: bool = False,
    start_label: int = 1,
    mask: npt.ArrayLike | None = None,
    *,
    channel_axis: int | None = -1,
) -> Labels:
    """Superpixels with scikit-image's arguments, defaults and labels; see `skimage.segmentation.slic`.

    The image is rescaled to 0 .. 1 over all channels, converted to Lab and smoothed in this order, as there. What
    differs: every superpixel is one piece, also a small one beside none (with a mask it stays one of its own);
    superpixels above the largest size are cut by SLIC, not where a search happened to end; the same result for any
    number of threads. With a mask, superpixels are seeded on a grid instead of by random k-means, about as many as
    asked for fall inside, none crosses its border, and small ones join neighbours inside only.

    Args:
        image: [H, W, C], a volume [T, H, W, C], or without channels [H, W] and [T, H, W] (`channel_axis=None`); any
            real numbers.
        n_segments: wanted superpixels.
        compactness: weight of space against colour.
        max_num_iter: k-means iterations.
        sigma: width of the Gaussian blur in pixels, one number (divided by `spacing`) or one per spatial axis.
        spacing: pixel size along each spatial axis.
        convert2lab: convert RGB to Lab; None where there are three channels.
        enforce_connectivity: one connected piece per superpixel.
        min_size_factor: smallest superpixel, relative to the expected size.
        max_size_factor: largest, likewise.
        slic_zero: False; the kernels have one compactness for all superpixels.
        start_label: 0 or 1.
        mask: bool of the spatial shape: superpixels where it is true, `start_label - 1` elsewhere. Values outside may
            be anything, NaN too.
        channel_axis: axis of the channels, None if there is none.

    Returns:
        int64 labels of the spatial shape.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range; NaN or infinity inside the mask;
            `slic_zero=True`.

    Example:
        >>> import numpy as np
        >>> from midgrain.compat.skimage import slic
        >>> photo = np.zeros((60, 80, 3))
        >>> mask = np.zeros((60, 80), bool)
        >>> mask[10:50, 20:60] = True
        >>> labels = slic(photo, n_segments=4, mask=mask)
        >>> int(labels.max()), bool(((labels > 0) == mask).all())
        (4, True)
    """
    if check_bool(slic_zero, "slic_zero"):
        raise ValueError("slic_zero: expected False; SLICO's own compactness for every superpixel is not offered")
    if start_label not in (0, 1):
        raise ValueError(f"start_label: expected 0 or 1, got {start_label}")
    check_bool(enforce_connectivity, "enforce_connectivity")
    check_positive(min_size_factor, "min_size_factor", zero=True)
    check_positive(max_size_factor, "max_size_factor")
    check_int(n_segments, "n_segments", 1)
    pixels = _channels_first(np.asarray(image), channel_axis)
    inside = np.ones(pixels.shape[1:], bool) if mask is None else _checked_mask(mask, pixels.shape[1:])
    colours, ranges = _colours(pixels, inside, convert2lab, channel_axis)
    features = _smoothed(colours, sigma, spacing)
    settings: dict[str, Any] = {"max_num_iter": max_num_iter, "spacing": spacing, "ranges": ranges}
    weight = check_compactness(compactness, "compactness")
    size = int(inside.sum())
    smallest = min_superpixel_size(size, int(n_segments), min_size_factor) if enforce_connectivity else 0
    labels = superpixels_inside(features, weight, n_segments, inside, smallest, settings)
    if enforce_connectivity:
        labels = without_large(labels, max(1.0, max_size_factor * size / n_segments), smallest, spacing)
    return labels + start_label


def _channels_first(image: npt.NDArray[Any], channel_axis: int | None) -> npt.NDArray[Any]:
    if image.dtype.kind not in "buif":
        raise TypeError(f"image: expected real numbers, got dtype {image.dtype}")
    if image.ndim == 2 and channel_axis is not None:
        raise ValueError(f"image: expected channels along axis {channel_axis}, got [H, W]; use channel_axis=None")
    spatial = image.ndim - (channel_axis is not None)
    if spatial not in (2, 3) or image.size == 0:
        raise ValueError(f"image: expected 2 or 3 spatial axes with at least one pixel, got shape {image.shape}")
    return image[None] if channel_axis is None else np.moveaxis(image, channel_axis, 0)


def _checked_mask(mask: npt.ArrayLike, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    inside = np.asarray(mask).astype(bool)
    if inside.shape != shape:
        raise ValueError(f"mask: expected the image's shape {shape}, got {inside.shape}")
    if not inside.any():
        raise ValueError("mask: expected at least one pixel inside, got none")
    return inside


def _colours(
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


def _smoothed(features: Floats, sigma: float | Sequence[float], spacing: Sequence[float] | None) -> Floats:
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
