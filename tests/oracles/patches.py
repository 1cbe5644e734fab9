"""Jitter-CAM's patches, slowly and plainly, from the prose of csrc/core/patches.hpp."""

from fractions import Fraction
from itertools import product
from math import floor

import numpy as np

HALF = Fraction(1, 2)


def offsets(patch, cells, grid):
    """Where the patches of one axis begin."""
    return [floor(Fraction(i * patch, cells) + HALF) for i in range(grid)]


def extent(patch, cells, grid):
    """Where the last patch ends along each axis: the size of the enlarged image."""
    return [offsets(p, m, g)[-1] + p for p, m, g in zip(patch, cells, grid, strict=True)]


def enlarge(array, size):
    """Linear interpolation of the last axes, x first, in the array's own dtype."""
    for axis in range(-1, -len(size) - 1, -1):
        source, target = array.shape[axis], size[axis]
        lanes = np.moveaxis(array, axis, -1)
        result = np.empty((*lanes.shape[:-1], target), array.dtype)
        for position in range(target):
            place = Fraction((2 * position + 1) * source, 2 * target) - HALF
            place = min(max(place, Fraction(0)), Fraction(source - 1))
            low = floor(place)
            if place == low:
                result[..., position] = lanes[..., low]
            else:
                weight = array.dtype.type(float(place - low))
                result[..., position] = lanes[..., low] + weight * (lanes[..., low + 1] - lanes[..., low])
        array = np.moveaxis(result, -1, axis)
    return array


def extract_patches(images, cells, grid, patch=None, size=None):
    """All patches [B, n, C, *patch] of images [B, C, *axes]."""
    patch = images.shape[2:] if patch is None else patch
    enlarged = enlarge(images, extent(patch, cells, grid) if size is None else size)
    begins = product(*[offsets(p, m, g) for p, m, g in zip(patch, cells, grid, strict=True)])
    windows = [enlarged[(..., *[slice(b, b + p) for b, p in zip(begin, patch, strict=True)])] for begin in begins]
    return np.stack(windows, 1)


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
