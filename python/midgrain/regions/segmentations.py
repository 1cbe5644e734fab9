"""Segmentations of scikit-image, with the parameters of the methods that use them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FELZENSZWALB_SCALES", "SEGMENTATIONS", "felzenszwalb", "felzenszwalb_scales", "quickshift"]

#: XRAI's scales, from many small segments to few large ones.
FELZENSZWALB_SCALES = (50, 100, 150, 250, 500, 1200)
# XRAI segments every picture at this size, so that the scales mean the same for all.
_XRAI_SIZE = (224, 224)


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


def felzenszwalb_scales(picture: npt.NDArray[np.floating[Any]]) -> list[npt.NDArray[Any]]:
    """XRAI's segmentations, as in the `saliency` package: Felzenszwalb's at every scale of `FELZENSZWALB_SCALES`.

    The picture is stretched to -1 .. 1 and resized to 224 x 224, and the labels are resized back.

    Args:
        picture: floats [H, W, 3].

    Returns:
        Integer labels [H, W] for each scale.
    """
    from skimage.transform import resize

    size = picture.shape[:2]
    low, high = picture.min(), picture.max()
    stretched = (picture - low) / (high - low if high > low else 1.0) * 2.0 - 1.0
    small = resize(stretched, _XRAI_SIZE, order=3, mode="constant", preserve_range=True, anti_aliasing=True)
    found = (felzenszwalb(small, scale) for scale in FELZENSZWALB_SCALES)
    return [
        resize(labels, size, order=0, mode="constant", preserve_range=True, anti_aliasing=False) for labels in found
    ]


#: Name -> from one picture, uint8 RGB [H, W, 3], to integer labels [H, W].
SEGMENTATIONS = {"quickshift": quickshift, "felzenszwalb": felzenszwalb}
