"""XRAI by its definition: masks of all pixels, looked at one after the other (Kapishnikov et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import numpy as np


def grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """Every pixel within `radius` of one in the mask."""
    result = mask.copy()
    reach = range(-radius, radius + 1)
    for offset in product(reach, repeat=mask.ndim):
        if sum(step * step for step in offset) > radius * radius:
            continue
        for pixel in np.argwhere(mask):
            other = pixel + offset
            if (other >= 0).all() and (other < mask.shape).all():
                result[tuple(other)] = True
    return result


def region_masks(segmentations: Sequence[np.ndarray], radii: Sequence[int]) -> list[np.ndarray]:
    """Bool masks of all labels of all segmentations, grown."""
    return [
        grown(labels == label, radius)
        for labels, radius in zip(segmentations, radii, strict=True)
        for label in range(labels.max() + 1)
    ]


def mean_of(attribution: np.ndarray, mask: np.ndarray) -> Fraction:
    """Exact."""
    values = [Fraction(float(value)) for value in attribution[mask]]
    return sum(values, Fraction(0)) / len(values)


def ranked(
    attribution: np.ndarray,
    masks: Sequence[np.ndarray],
    *,
    mode: str = "full",
    min_pixel_diff: int = 50,
    area_threshold: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Heat map, and labels from 0 on in the order of the gains; what no mask added comes last."""
    covered = np.zeros(attribution.shape, dtype=bool)
    added: list[tuple[Fraction, np.ndarray]] = []

    def add(mask: np.ndarray) -> None:
        new = mask & ~covered
        added.append((mean_of(attribution, new), new))
        covered[mask] = True

    if mode == "full":
        left = list(masks)
        while covered.mean() <= area_threshold:
            left = [mask for mask in left if (mask & ~covered).sum() >= min_pixel_diff]
            if not left:
                break
            gains = [mean_of(attribution, mask & ~covered) for mask in left]
            add(left.pop(gains.index(max(gains))))
    else:
        for mask in sorted((mask for mask in masks if mask.any()), key=lambda mask: -mean_of(attribution, mask)):
            if (mask & ~covered).sum() >= min_pixel_diff:
                add(mask)
    added.sort(key=lambda pair: -pair[0])
    rest = ~covered
    if rest.any():
        added.append((mean_of(attribution, rest), rest))
    heatmap, labels = np.empty(attribution.shape), np.empty(attribution.shape, dtype=int)
    for number, (gain, mask) in enumerate(added):
        heatmap[mask], labels[mask] = float(gain), number
    return heatmap, labels
