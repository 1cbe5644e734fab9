"""Masks and maps of the methods that hide parts of the input, step by step in NumPy and from the papers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from skimage.transform import resize

#: From one input [C, *S] to its score.
Score = Callable[[np.ndarray], float]


def rise_mask(grid: np.ndarray, shift: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """One mask by the recipe of RISE's authors: the grid enlarged by scikit-image, cut out from the shift on."""
    cells = [math.ceil(n / s) for n, s in zip(size, grid.shape, strict=True)]
    enlarged = [(s + 1) * cell for s, cell in zip(grid.shape, cells, strict=True)]
    whole = resize(grid, enlarged, order=1, mode="reflect", anti_aliasing=False)
    return whole[tuple(slice(start, start + n) for start, n in zip(shift, size, strict=True))]


def rise_map(score: Score, x: np.ndarray, hidden: np.ndarray, masks: np.ndarray, keep: float) -> np.ndarray:
    """The sum of masks times scores behind them, over their number and the probability of a cell."""
    total = np.zeros(x.shape[1:])
    for mask in masks:
        total += score(x * mask + hidden * (1 - mask)) * mask
    return total / len(masks) / keep


def occlusion_map(
    score: Score, x: np.ndarray, hidden: np.ndarray, window: Sequence[int], stride: Sequence[int]
) -> np.ndarray:
    """Per pixel the mean fall of the score over the windows that cover it; every window in its turn."""
    size = x.shape[1:]
    falls, counts = np.zeros(size), np.zeros(size)
    starts = []
    for n, w, s in zip(size, window, stride, strict=True):
        places = [0]
        while places[-1] + w < n:
            places.append(places[-1] + s)
        starts.append(places)
    for corner in itertools.product(*starts):
        box = tuple(slice(start, start + w) for start, w in zip(corner, window, strict=True))
        occluded = x.copy()
        occluded[(slice(None), *box)] = hidden[(slice(None), *box)]
        falls[box] += score(x) - score(occluded)
        counts[box] += 1
    return falls / counts


def bumps(
    parameters: np.ndarray, pixel: Sequence[int], size: Sequence[int], step: Sequence[int], sigma: Sequence[float]
) -> np.ndarray:
    """How high the bump of each point of a centred lattice is at a pixel, for a parameter of 1; NaN out of reach."""
    result = np.full(parameters.shape, np.nan)
    for point in np.ndindex(*parameters.shape):
        square = 0.0
        for u, v, n, s, count, width in zip(pixel, point, size, step, parameters.shape, sigma, strict=True):
            square += ((u - (n - 1 - s * (count - 1)) / 2 - s * v) / width) ** 2
        distance = math.sqrt(square)
        if distance < 1.75:
            result[point] = math.exp(-2 * max(0.0, distance - 0.5) ** 2)
    return result


def smooth_mask(parameters: np.ndarray, size: Sequence[int], step: Sequence[int], sigma: Sequence[float]) -> np.ndarray:
    """Pixel by pixel the highest bump."""
    result = np.zeros(size)
    for pixel in np.ndindex(*size):
        result[pixel] = np.nanmax(bumps(parameters, pixel, size, step, sigma) * parameters)
    return result


def smooth_mask_gradient(
    parameters: np.ndarray,
    gradient: np.ndarray,
    step: Sequence[int],
    sigma: Sequence[float],
    cells: int,
) -> np.ndarray:
    """What the gradient of a mask [*size] becomes at the parameters; `cells` is how many bumps share a pixel's."""
    result = np.zeros(parameters.shape)
    for pixel in np.ndindex(*gradient.shape):
        heights = bumps(parameters, pixel, gradient.shape, step, sigma)
        weights = np.where(np.isnan(heights), 0.0, np.exp(20 * np.nan_to_num(heights) * parameters))
        # Points outside the picture and those just out of reach count as bumps of no height.
        total = weights.sum() + (cells - np.isfinite(heights).sum())
        result += gradient[pixel] * np.nan_to_num(heights) * weights / total
    return result


def area_loss(mask: np.ndarray, area: float) -> float:
    """Mean square distance of the sorted mask from the sorted one of this area."""
    ordered = np.sort(mask.ravel())
    ones = min(max(round(area * mask.size), 1), mask.size)
    reference = np.concatenate([np.zeros(mask.size - ones), np.ones(ones)])
    return float(((ordered - reference) ** 2).mean())


def blur_by_degrees(x: np.ndarray, mask: np.ndarray, max_blur: float, levels: int = 8) -> np.ndarray:
    """Every pixel [C, H, W] from the two pictures whose blur is nearest to what the mask says, in proportion."""
    pictures = [_gaussian(x, max_blur * (1 - level / (levels - 1))) for level in range(levels)]
    result = np.empty_like(x)
    for row, column in np.ndindex(*mask.shape):
        place = mask[row, column] * (levels - 1)
        low = min(int(place), levels - 2)
        part = place - low
        result[:, row, column] = (1 - part) * pictures[low][:, row, column] + part * pictures[low + 1][:, row, column]
    return result


def _gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    if sigma == 0:
        return x
    reach = math.ceil(4 * sigma)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    padded = np.pad(x, [(0, 0), (reach, reach), (reach, reach)], mode="edge")
    for axis in (1, 2):
        padded = np.apply_along_axis(lambda line: np.convolve(line, taps, mode="valid"), axis, padded)
    return padded
