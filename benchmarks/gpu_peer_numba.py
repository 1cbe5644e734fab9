"""The kernels of `gpu_slic_peer.cu` in Numba: the same steps, the same arrays.

Runs without a GPU where NUMBA_ENABLE_CUDASIM=1 is set before Numba is imported; that is how its results are checked.
"""

from __future__ import annotations

import math

from numba import cuda, float32


@cuda.jit(device=True)
def decode(value):
    """One sRGB value in 0 .. 1, linear."""
    if value <= float32(0.04045):
        return value / float32(12.92)
    return math.pow((value + float32(0.055)) / float32(1.055), float32(2.4))


@cuda.jit(device=True)
def lab_curve(value):
    """CIELAB's cube root with a straight beginning."""
    if value > float32(0.008856):
        return math.pow(value, float32(1.0 / 3.0))
    return float32(7.787) * value + float32(16.0 / 116.0)


@cuda.jit
def to_lab(rgb, lab):
    """Rgb, lab: [all, 3]."""
    i = cuda.grid(1)
    if i >= rgb.shape[0]:
        return
    r, g, b = (decode(rgb[i, 0] / float32(255)), decode(rgb[i, 1] / float32(255)), decode(rgb[i, 2] / float32(255)))
    x = lab_curve((float32(0.412453) * r + float32(0.357580) * g + float32(0.180423) * b) / float32(0.95047))
    y = lab_curve(float32(0.212671) * r + float32(0.715160) * g + float32(0.072169) * b)
    z = lab_curve((float32(0.019334) * r + float32(0.119193) * g + float32(0.950227) * b) / float32(1.08883))
    lab[i, 0] = float32(116) * y - float32(16)
    lab[i, 1] = float32(500) * (x - y)
    lab[i, 2] = float32(200) * (y - z)


@cuda.jit
def seed(lab, centres, sums, height, width, cells_y, cells_x):
    """Lab [items * pixels, 3], centres [items * count, 5], sums [items * count, 6]."""
    i = cuda.grid(1)
    if i >= centres.shape[0]:
        return
    count = cells_y * cells_x
    item, k = i // count, i % count
    y = (2 * (k // cells_x) + 1) * height // (2 * cells_y)
    x = (2 * (k % cells_x) + 1) * width // (2 * cells_x)
    pixel = (item * height + y) * width + x
    for v in range(3):
        centres[i, v] = lab[pixel, v]
    centres[i, 3] = y
    centres[i, 4] = x
    for v in range(6):
        sums[i, v] = 0


@cuda.jit
def assign(lab, centres, sums, labels, height, width, cells_y, cells_x, colour_weight, place_weight):
    """Labels [items * pixels]."""
    i = cuda.grid(1)
    if i >= labels.shape[0]:
        return
    pixels = height * width
    item, y, x = i // pixels, i % pixels // width, i % width
    cell_y, cell_x = y * cells_y // height, x * cells_x // width
    base = item * cells_y * cells_x
    best, label = float32(3.0e38), 0
    for ky in range(max(cell_y - 1, 0), min(cell_y + 2, cells_y)):
        for kx in range(max(cell_x - 1, 0), min(cell_x + 2, cells_x)):
            k = ky * cells_x + kx
            colour, place = float32(0), float32(0)
            for v in range(3):
                difference = lab[i, v] - centres[base + k, v]
                colour += difference * difference
            place = (y - centres[base + k, 3]) ** 2 + (x - centres[base + k, 4]) ** 2
            distance = colour_weight * colour + place_weight * place
            if distance < best:
                best, label = distance, k
    labels[i] = label
    for v in range(3):
        cuda.atomic.add(sums, (base + label, v), lab[i, v])
    cuda.atomic.add(sums, (base + label, 3), float32(y))
    cuda.atomic.add(sums, (base + label, 4), float32(x))
    cuda.atomic.add(sums, (base + label, 5), float32(1))


@cuda.jit
def update(centres, sums):
    """Means of the members; an empty centre stays."""
    i = cuda.grid(1)
    if i >= centres.shape[0]:
        return
    members = sums[i, 5]
    for v in range(5):
        if members > 0:
            centres[i, v] = sums[i, v] / members
    for v in range(6):
        sums[i, v] = 0
