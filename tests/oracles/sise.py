"""SISE step by step (Sattarzadeh et al. 2021, eq. 6 to 12 and Fig. 5), for one sample in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from oracles.cams import min_max, resize


def masks_of(activations: np.ndarray, gradients: np.ndarray, size: Sequence[int], mu: float) -> list[np.ndarray]:
    """Eq. 6 to 8, for one layer: [K, *m] twice -> masks [*size] in 0 .. 1."""
    sums = [gradient.sum() for gradient in gradients]
    largest = max(sums)
    masks = []
    for activation, total in zip(activations, sums, strict=True):
        if total > mu * largest and activation.min() < activation.max():
            masks.append(min_max(resize(activation, size)))
    return masks


def layer_map(x: np.ndarray, masks: Sequence[np.ndarray], score_of: Callable[[np.ndarray], float]) -> np.ndarray:
    """Eq. 10 to 12 for x [C, *size]: the mean over the masks of score(x * m) * m / sum(m)."""
    total = np.zeros(x.shape[1:])
    for mask in masks:
        total += score_of(x * mask) * mask / mask.sum()
    return total / max(1, len(masks))


def otsu(values: np.ndarray, bins: int = 256) -> float:
    """The threshold between bins of the histogram that makes the variance between the two classes largest."""
    counts, edges = np.histogram(values, bins)
    centres = (edges[1:] + edges[:-1]) / 2
    best, threshold = -1.0, centres[0]
    for cut in range(1, bins):
        low, high = counts[:cut], counts[cut:]
        if low.sum() == 0 or high.sum() == 0:
            continue
        means = (low * centres[:cut]).sum() / low.sum(), (high * centres[cut:]).sum() / high.sum()
        variance = low.sum() * high.sum() * (means[0] - means[1]) ** 2
        if variance > best * (1 + 1e-12):
            best, threshold = variance, centres[cut - 1]
    return float(threshold)


def fused(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Fig. 5, shallow to deep; maps that are the same everywhere say nothing."""
    telling = [each for each in maps if each.min() < each.max()]
    if not telling:
        return np.zeros_like(maps[0])
    result = min_max(telling[0])
    for deeper in telling[1:]:
        added = min_max(result) + min_max(deeper)
        result = np.where(min_max(deeper) > otsu(min_max(deeper)), added, 0.0)
    return result
