"""Heat maps over pictures, pixel by pixel (definition: csrc/core/overlay.hpp)."""

from __future__ import annotations

import numpy as np


def nearest(i, n, cells):
    return (2 * i + 1) * cells // (2 * n)


def borders(labels):
    """True where the pixel to the right or below has another label, [H, W]."""
    height, width = labels.shape
    found = np.zeros((height, width), bool)
    for i in range(height):
        for j in range(width):
            right = j + 1 < width and labels[i, j] != labels[i, j + 1]
            found[i, j] = right or (i + 1 < height and labels[i, j] != labels[i + 1, j])
    return found


def overlay(image, heat, labels, colours, keep):
    """uint8 [H, W, 3]; `colours` float32 [steps, 3], already times their opacity."""
    height, width = image.shape[:2]

    def resized(cells):
        rows = [nearest(i, height, cells.shape[0]) for i in range(height)]
        columns = [nearest(j, width, cells.shape[1]) for j in range(width)]
        return cells[np.ix_(rows, columns)]

    on_border = np.zeros((height, width), bool) if labels is None else borders(resized(labels))
    large = resized(heat)
    result = np.empty(image.shape, np.uint8)
    for i in range(height):
        for j in range(width):
            score = large[i, j]
            score = score.dtype.type(0) if not score > 0 else min(score, score.dtype.type(1))
            step = min(int(score * score.dtype.type(len(colours))), len(colours) - 1)
            value = np.float32(keep) * image[i, j].astype(np.float32) + colours[step]
            if on_border[i, j]:
                value = np.float32(0.6) * value + np.float32(0.4) * np.float32(255)
            result[i, j] = np.rint(np.clip(value, 0, 255))
    return result
