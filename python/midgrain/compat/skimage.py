"""scikit-image's SLIC: `from skimage.segmentation import slic` becomes `from midgrain.compat.skimage import slic`.

What `midgrain.slic` has too goes to the same kernels; smoothing, masks and the largest size are added here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain.compat.absent import SKIMAGE, not_offered
from midgrain.compat.masked_slic import Labels, superpixels_inside, without_large
from midgrain.compat.slic_features import channels_first, checked_mask, colours, smoothed
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
    pixels = channels_first(np.asarray(image), channel_axis)
    inside = np.ones(pixels.shape[1:], bool) if mask is None else checked_mask(mask, pixels.shape[1:])
    features, ranges = colours(pixels, inside, convert2lab, channel_axis)
    features = smoothed(features, sigma, spacing)
    settings: dict[str, Any] = {"max_num_iter": max_num_iter, "spacing": spacing, "ranges": ranges}
    weight = check_compactness(compactness, "compactness")
    size = int(inside.sum())
    smallest = min_superpixel_size(size, int(n_segments), min_size_factor) if enforce_connectivity else 0
    labels = superpixels_inside(features, weight, n_segments, inside, smallest, settings)
    if enforce_connectivity:
        labels = without_large(labels, max(1.0, max_size_factor * size / n_segments), smallest, spacing)
    return labels + start_label


__getattr__ = not_offered(__name__, "scikit-image", SKIMAGE)
