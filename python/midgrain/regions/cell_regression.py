"""Ridge regression of the parts of a score, each on the regions near its own place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from midgrain import ops
from midgrain.regions.ridge import weighted_ridge

__all__ = ["cell_coefficients", "nearness"]

Floats = npt.NDArray[np.float64]

# Of what the cells' sum leaves over of the score: few samples say little of it.
_REMAINDER_ALPHA = 30.0
# Values of the weight maps that are pooled at once.
_VALUES_AT_ONCE = 2**22


def cell_coefficients(rows: npt.NDArray[Any], cells: Floats, scores: Floats, near: Floats, alpha: float) -> Floats:
    """How much each region adds to a score of which every copy tells the shares of its cells.

    The share of cell u in copy i is modelled as b_u + sum_r rows_ir B_ur, with the ridge penalty alpha B_ur^2 /
    near_ur: what a cell loses by a region far away is taken for chance. The coefficient of a region is its sum over the
    cells, plus a common ridge regression of what the shares leave over of the score.

    Args:
        rows: bool [n, K], which regions were on.
        cells: [n, cells], the shares.
        scores: [n].
        near: [cells, K], 0 .. 1.
        alpha: positive.

    Returns:
        float64 [K].

    Example:
        >>> import numpy as np
        >>> from midgrain.regions.cell_regression import cell_coefficients
        >>> rows = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=bool)
        >>> cells = rows * [3.0, 1.0]  # each region feeds one cell
        >>> cell_coefficients(rows, cells, cells.sum(1), np.eye(2), alpha=1e-6).round(3)
        array([3., 1.])
    """
    centred = rows - rows.mean(0)
    shares = cells - cells.mean(0)
    roots = np.sqrt(near)
    found = np.zeros(rows.shape[1])
    penalty = alpha * np.eye(min(centred.shape))
    for own, root in zip(shares.T, roots, strict=True):
        scaled = centred * root
        if len(rows) < rows.shape[1]:  # The smaller of the two equal systems.
            found += root * (scaled.T @ np.linalg.solve(scaled @ scaled.T + penalty, own))
        else:
            found += root * np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ own)
    left = scores - rows @ found
    return found + weighted_ridge(rows, left, np.ones(len(rows)), _REMAINDER_ALPHA).coefficients


def nearness(labels: Tensor, count: int, grid: Sequence[int], reach: float) -> Floats:
    """How near regions are to the cells of a grid over the picture: float64 [cells, count], 1 for the nearest.

    A Gaussian about the cell's centre, summed over each region's pixels; in units of the largest region's sum.

    Args:
        labels: int32 [*S] on the CPU, 0 .. count - 1.
        count: regions.
        grid: cells along each spatial axis.
        reach: the Gaussian's standard deviation, in cells.
    """
    axes = [
        torch.exp(-(((_centres(n)[:, None] - _centres(size)) * n / reach) ** 2) / 2)
        for n, size in zip(grid, labels.shape, strict=True)
    ]
    numbers = torch.arange(math.prod(grid))
    at_once = max(1, _VALUES_AT_ONCE // labels.numel())
    sums = [
        ops.pool(_products(axes, grid, some)[None], labels[None], "sum", n=count, spatial_dims=labels.ndim)[0]
        for some in numbers.split(at_once)
    ]
    near = torch.cat(sums).double().numpy()
    largest: Floats = near / near.max(1, keepdims=True)
    return largest


def _centres(n: int) -> Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def _products(axes: Sequence[Tensor], grid: Sequence[int], numbers: Tensor) -> Tensor:
    """The Gaussians [cells, *S] of some cells, from those along each axis."""
    made = torch.ones(len(numbers), *[1] * len(axes), dtype=torch.float64)
    for place, (axis, index) in enumerate(zip(axes, torch.unravel_index(numbers, tuple(grid)), strict=True)):
        shape = [len(numbers)] + [1] * len(axes)
        shape[place + 1] = axis.shape[1]
        made = made * axis[index].reshape(shape)
    return made
