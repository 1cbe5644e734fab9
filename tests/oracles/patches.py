"""Jitter-CAM's patches, slowly and plainly, from the prose of csrc/core/patches.hpp."""

from fractions import Fraction
from itertools import product
from math import floor

import numpy as np

HALF = Fraction(1, 2)


def offsets(patch, cells, grid):
    """Where the patches of one axis begin."""
    return [floor(Fraction(i * patch, cells) + HALF) for i in range(grid)]


def windows(patch, cells, grid):
    """The slices of the enlarged axes that each patch covers, in order."""
    for begin in product(*[offsets(p, m, g) for p, m, g in zip(patch, cells, grid, strict=True)]):
        yield tuple(slice(b, b + p) for b, p in zip(begin, patch, strict=True))


def extent(patch, cells, grid):
    """Where the last patch ends along each axis: the size of the enlarged image."""
    return [offsets(p, m, g)[-1] + p for p, m, g in zip(patch, cells, grid, strict=True)]


def taps(source, size):
    """The pixels that each enlarged position is interpolated from, with their weights: [{pixel: weight}]."""
    result = []
    for position in range(size):
        place = Fraction((2 * position + 1) * source, 2 * size) - HALF
        place = min(max(place, Fraction(0)), Fraction(source - 1))
        low = floor(place)
        result.append({low: Fraction(1)} if place == low else {low: low + 1 - place, low + 1: place - low})
    return result


def enlarge(array, size):
    """Linear interpolation of the last axes, x first, in the array's own dtype."""
    for axis in range(-1, -len(size) - 1, -1):
        lanes = np.moveaxis(array, axis, -1)
        result = np.empty((*lanes.shape[:-1], size[axis]), array.dtype)
        for position, tap in enumerate(taps(array.shape[axis], size[axis])):
            low, high = min(tap), max(tap)
            if low == high:
                result[..., position] = lanes[..., low]
            else:
                weight = array.dtype.type(float(tap[high]))
                result[..., position] = lanes[..., low] + weight * (lanes[..., high] - lanes[..., low])
        array = np.moveaxis(result, -1, axis)
    return array


def extract_patches(images, cells, grid, patch=None, size=None):
    """All patches [B, n, C, *patch] of images [B, C, *axes]."""
    patch = images.shape[2:] if patch is None else patch
    enlarged = enlarge(images, extent(patch, cells, grid) if size is None else size)
    return np.stack([enlarged[(..., *window)] for window in windows(patch, cells, grid)], 1)


def extract_patches_backward(patches, source, cells, grid, size):
    """The adjoint: images [B, C, *source] from patches [B, n, C, *patch]."""
    dtype = patches.dtype.type
    enlarged = np.zeros((patches.shape[0], patches.shape[2], *size), dtype)
    for n, window in enumerate(windows(patches.shape[3:], cells, grid)):
        enlarged[(..., *window)] += patches[:, n]

    def weights(axis):
        """(position, pixel, weight) in ascending order; the higher pixel's weight is the rounded one."""
        for position, tap in enumerate(taps(source[axis], size[axis])):
            upper = dtype(float(tap[max(tap)])) if len(tap) == 2 else dtype(0)
            for pixel in tap:
                yield position, pixel, dtype(1) - upper if pixel == min(tap) else upper

    narrowed = np.zeros((*enlarged.shape[:-1], source[-1]), dtype)
    for position, pixel, weight in weights(-1):
        narrowed[..., pixel] += weight * enlarged[..., position]
    images = np.zeros((*enlarged.shape[:2], *source), dtype)
    for outer in product(*[weights(axis) for axis in range(len(size) - 1)]):
        positions, pixels = (tuple(entry[i] for entry in outer) for i in (0, 1))
        weight = dtype(np.prod([entry[2] for entry in outer], dtype=dtype))
        images[(slice(None), slice(None), *pixels)] += weight * narrowed[(slice(None), slice(None), *positions)]
    return images


def aggregate_patches(maps, grid, size=None):
    """Means [B, *axes] of maps [B, n, *cells]."""
    cells = maps.shape[2:]
    places = list(product(*[range(g) for g in grid]))
    result = np.empty((maps.shape[0], *[m + g - 1 for m, g in zip(cells, grid, strict=True)]), maps.dtype)
    for item, *cell in np.ndindex(result.shape):
        total, count = 0.0, 0
        for n, place in enumerate(places):
            inside = tuple(c - i for c, i in zip(cell, place, strict=True))
            if all(0 <= c < m for c, m in zip(inside, cells, strict=True)):
                total += float(maps[(item, n, *inside)])
                count += 1
        result[(item, *cell)] = total / count
    return result if size is None else enlarge(result, size)
