"""Segmentations of scikit-image, with the parameters of the methods that use them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SEGMENTATIONS", "felzenszwalb", "quickshift"]


def quickshift(picture: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """Quickshift as the `lime` package runs it: kernel_size=4, max_dist=200, ratio=0.2, seeded.

    Args:
        picture: uint8 RGB [H, W, 3].

    Returns:
        Integer labels [H, W].
    """
    from skimage.segmentation import quickshift as run

    labels: npt.NDArray[Any] = run(picture, kernel_size=4, max_dist=200, ratio=0.2, rng=0)
    return labels


def felzenszwalb(
    picture: npt.NDArray[Any], scale: float = 100.0, sigma: float = 0.8, min_size: int = 150
) -> npt.NDArray[Any]:
    """Felzenszwalb's graph-based segmentation; sigma and min_size are XRAI's.

    Args:
        picture: [H, W, 3], uint8 or floats.
        scale: larger gives larger segments.
        sigma: width of the blur beforehand, in pixels.
        min_size: pixels of the smallest segment.

    Returns:
        Integer labels [H, W].
    """
    from skimage.segmentation import felzenszwalb as run

    labels: npt.NDArray[Any] = run(picture, scale=scale, sigma=sigma, min_size=min_size)
    return labels


#: Name -> from one picture, uint8 RGB [H, W, 3], to integer labels [H, W].
SEGMENTATIONS = {"quickshift": quickshift, "felzenszwalb": felzenszwalb}
