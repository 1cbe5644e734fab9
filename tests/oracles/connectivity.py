"""Connected superpixels by the definition: pieces, rounds of simultaneous choices, numbering in raster order."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np


def connect(labels, min_size):
    """Labels [Y, X] or [Z, Y, X] -> (labels 0 .. n-1, n)."""
    piece = _pieces(labels)
    while True:
        ids, sizes = np.unique(piece, return_counts=True)
        small = ids[sizes < min_size]
        if len(small) == 0 or len(ids) == 1:
            break
        borders = _borders(piece)
        links = defaultdict(set)
        for own in small.tolist():
            choice = min(borders[own], key=lambda other: (-borders[own][other], other))
            links[own].add(choice)
            links[choice].add(own)
        union = _smallest_of_group(links)
        piece = np.array([union.get(i, i) for i in piece.ravel().tolist()]).reshape(piece.shape)
    # Ids are first pixels, so their order is the raster order of first pixels.
    ids, inverse = np.unique(piece, return_inverse=True)
    return inverse.reshape(labels.shape).astype(np.int32), len(ids)


def _faces(shape):
    """Pairs of neighbouring pixels, each pair once, as two flat index arrays."""
    index = np.arange(np.prod(shape)).reshape(shape)
    before = [np.moveaxis(index, a, 0)[:-1].ravel() for a in range(len(shape))]
    after = [np.moveaxis(index, a, 0)[1:].ravel() for a in range(len(shape))]
    return np.concatenate(before), np.concatenate(after)


def _pieces(labels):
    """Every pixel's piece, named by the smallest linear index in it."""
    flat = labels.ravel()
    links = defaultdict(set)
    for p, q in zip(*(side.tolist() for side in _faces(labels.shape)), strict=True):
        if flat[p] == flat[q]:
            links[p].add(q)
            links[q].add(p)
    first = _smallest_of_group(links)
    return np.array([first.get(p, p) for p in range(flat.size)]).reshape(labels.shape)


def _borders(piece):
    """Shared faces: borders[a][b] for every pair of touching pieces."""
    flat = piece.ravel()
    borders = defaultdict(Counter)
    for p, q in zip(*_faces(piece.shape), strict=True):
        a, b = int(flat[p]), int(flat[q])
        if a != b:
            borders[a][b] += 1
            borders[b][a] += 1
    return borders


def _smallest_of_group(links):
    """For every linked thing the smallest one that it is linked with, directly or through others."""
    smallest = {}
    for start in sorted(links):
        if start in smallest:
            continue
        waiting = [start]
        smallest[start] = start
        while waiting:
            for other in links[waiting.pop()]:
                if other not in smallest:
                    smallest[other] = start
                    waiting.append(other)
    return smallest
