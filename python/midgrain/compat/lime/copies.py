"""The pictures that LIME shows to a classifier: copies with some superpixels off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain.progress import progress_bar

__all__ = ["Floats", "classified_copies", "with_all_off"]

Floats = npt.NDArray[np.float64]


def with_all_off(image: npt.NDArray[Any], segments: npt.NDArray[np.int64], hide_color: Any) -> npt.NDArray[Any]:
    """The picture with every superpixel off."""
    hidden = image.copy()
    if hide_color is not None:
        hidden[:] = hide_color
        return hidden
    sizes = np.bincount(segments.ravel())
    for channel in range(image.shape[2]):
        means = np.bincount(segments.ravel(), image[..., channel].ravel().astype(np.float64)) / sizes
        hidden[..., channel] = means[segments].astype(image.dtype)
    return hidden


def classified_copies(
    image: npt.NDArray[Any],
    hidden: npt.NDArray[Any],
    segments: npt.NDArray[np.int64],
    classifier_fn: Callable[[npt.NDArray[Any]], Any],
    data: npt.NDArray[Any],
    batch_size: int,
) -> Floats:
    """The classifier's probabilities of every copy, [n, classes].

    Args:
        image: [H, W, C].
        hidden: what stands where a superpixel is off, [H, W, C].
        segments: labels [H, W], 0 .. K - 1.
        classifier_fn: from pictures [n, H, W, C] to probabilities [n, classes].
        data: which superpixels are on, 0 or 1 [n, K].
        batch_size: copies at once.

    Raises:
        ValueError: probabilities of another shape.
    """
    found = []
    with progress_bar("switching superpixels off", len(data), shown=False) as advance:
        for start in range(0, len(data), batch_size):
            on = data[start : start + batch_size].astype(bool)[:, segments]
            answer = np.asarray(classifier_fn(np.where(on[..., None], image, hidden)), dtype=np.float64)
            if answer.ndim != 2 or len(answer) != len(on):
                raise ValueError(f"classifier_fn: expected [{len(on)}, classes], got shape {list(answer.shape)}")
            found.append(answer)
            advance(len(on))
    return np.concatenate(found)
