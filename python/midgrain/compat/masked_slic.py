"""SLIC inside a mask: no superpixel crosses its border, and small ones join neighbours inside only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain import ops

__all__ = ["Floats", "Labels", "Ranges", "superpixels_inside", "without_large"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
#: (low, high) per channel.
Ranges = tuple[tuple[float, float], ...]
# Of the channel that tells inside from outside of a mask: more than colours and places together differ.
_MASK_WEIGHT = 1 / 16
# What is cut comes in pieces of unequal size, so that it is cut into more of them, and again into more.
_SMALLER, _MOST_CUTS = 1.5, 5


def superpixels_inside(
    features: Floats,
    weight: float,
    n_segments: int,
    inside: npt.NDArray[np.bool_],
    smallest: int,
    settings: dict[str, Any],
) -> Labels:
    """Superpixels inside a mask.

    SLIC runs on the mask's bounding box with one channel more, which tells inside from outside and outweighs all
    others; as many superpixels are asked for that about `n_segments` fall inside. What of them lies inside is then
    made connected.

    Args:
        features: [C, *S].
        weight: of the features, in their units.
        n_segments: wanted superpixels.
        inside: the mask, [*S], not empty.
        smallest: pixels of the smallest superpixel; 0 leaves superpixels in several pieces.
        settings: of `midgrain.ops.slic`; `ranges` are those of the features.

    Returns:
        int64 labels [*S], 0 .. n - 1, and -1 outside.
    """
    whole = bool(inside.all())
    box = tuple(slice(int(places.min()), int(places.max()) + 1) for places in np.nonzero(inside))
    part, cut = features[(slice(None), *box)], inside[box]
    channels = part if whole else np.concatenate([part * cut, cut[None].astype(np.float32)])
    ranges = settings.get("ranges")
    if ranges is not None and not whole:
        settings = {**settings, "ranges": (*ranges, (0.0, 1.0))}
    weights = [weight] * len(part) + ([] if whole else [_MASK_WEIGHT])
    wanted = min(max(1, round(n_segments * cut.size / int(cut.sum()))), cut.size)
    found, _ = ops.slic(
        channels[None],
        weights,
        wanted,
        enforce_connectivity=whole and smallest > 0,
        min_size_factor=smallest * wanted / cut.size,
        **settings,
    )
    labels = np.full(inside.shape, -1, np.int64)
    labels[box] = found[0] if whole or not smallest else _pieces(np.where(cut, found[0], -1), smallest)
    if not whole and not smallest:
        labels[inside] = np.unique(labels[inside], return_inverse=True)[1]
        labels[~inside] = -1
    return labels


def _pieces(labels: npt.NDArray[Any], smallest: int) -> Labels:
    """Connected pieces of the labels from 0 on, small ones joined to the neighbour with the longest border.

    The definition is that of `midgrain.ops.enforce_connectivity`, but nothing joins what is -1.
    """
    outside = labels < 0
    pieces: Labels = ops.enforce_connectivity(labels[None].astype(np.int32))[0][0].astype(np.int64)
    while True:
        sizes = np.bincount(pieces.ravel())
        pairs = np.concatenate([_borders(pieces, outside, axis) for axis in range(pieces.ndim)])
        edges, lengths = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0, return_counts=True)
        # For each small piece the longest border, of equal ones the lowest neighbour.
        order = np.lexsort((edges[:, 1], -lengths, edges[:, 0]))
        sources, first = np.unique(edges[order, 0], return_index=True)
        small = sizes[sources] < smallest
        if not small.any():
            break
        target: npt.NDArray[np.int64] = np.arange(len(sizes))
        target[sources[small]] = edges[order[first[small]], 1]
        pieces = np.take(_united(target), pieces)
    pieces[outside] = -1
    numbers, places = np.unique(pieces[~outside], return_index=True)
    renumbered = np.empty(len(sizes), np.int64)
    renumbered[numbers[np.argsort(places)]] = np.arange(len(numbers))
    pieces[~outside] = renumbered[pieces[~outside]]
    return pieces


def _borders(pieces: Labels, outside: npt.NDArray[np.bool_], axis: int) -> npt.NDArray[np.int64]:
    """Pairs of pieces on both sides of every face along an axis, [n, 2]."""
    here, there = (np.moveaxis(pieces, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
    out = np.moveaxis(outside, axis, 0)
    touching = (here != there) & ~out[:-1] & ~out[1:]
    return np.stack([here[touching], there[touching]], 1)


def _united(target: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """From every piece to the smallest one that its choices unite it with."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(target)
    groups = connected_components(coo_array((np.ones(n), (np.arange(n), target)), shape=(n, n)), directed=False)[1]
    smallest = np.full(n, n)
    np.minimum.at(smallest, groups, np.arange(n))
    return np.asarray(smallest[groups])


def without_large(labels: Labels, largest: float, smallest: int, spacing: Sequence[float] | None) -> Labels:
    """Superpixels of more than `largest` pixels cut into compact ones of about equal size.

    They are cut by place alone: colour has grouped them already.

    Args:
        labels: connected superpixels [*S], 0 .. n - 1, -1 outside.
        largest: pixels of the largest superpixel.
        smallest: pixels of the smallest piece that a cut leaves.
        spacing: see `midgrain.ops.slic`.
    """
    place = np.zeros((1, *labels.shape), np.float32)
    for attempt in range(1, _MOST_CUTS + 1):
        sizes = np.bincount(labels[labels >= 0])
        large = np.flatnonzero(sizes > largest)
        if not len(large):
            break
        count = len(sizes)
        for number in large:
            region = labels == number
            n = math.ceil(attempt * _SMALLER * sizes[number] / largest)
            cut = superpixels_inside(place, 1.0, n, region, smallest, {"spacing": spacing})
            later = region & (cut > 0)
            labels[later] = cut[later] + count - 1
            count += int(cut.max())
    return labels
