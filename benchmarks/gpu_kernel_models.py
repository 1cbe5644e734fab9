"""What each CUDA kernel has to move and to compute at least, derived from `csrc/cuda`.

Bytes are compulsory ones: every array that a kernel reads or writes counts once, however often its blocks come back to
it and whichever cache holds it; atomics on sums count as one reading and one writing of the sums. Integer operations
are instructions on 32-bit integers in the innermost loops (a multiply-add is one), counted from the source line by
line; the work of floats (Lab, scaled sums) is not in them. Both are per call of the operation, all launches of the
kernel together. The real kernel does more of each, so a time from these is a floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from midgrain._kernels import cpu

#: As in csrc/cuda/slic_job.cuh, pool_job.cuh, patches.cu.
TILE_Y, TILE_X = 8, 32
SUM_HEADER = 4
SRGB_ENTRIES = 4098


@dataclass(frozen=True)
class Model:
    """A kernel's needs per call of its operation."""

    kernel: str
    launches: int
    bytes: float
    operations: float


@dataclass(frozen=True)
class SlicCase:
    """Pictures as `mg.ops.slic_pictures` takes them."""

    items: int
    frames: int
    height: int
    width: int
    wanted: int
    gradient: bool = False
    iterations: int = 10
    bytes_per_value: int = 1  # of the pictures: 1 for uint8, 4 for float32

    @property
    def pixels(self) -> int:
        """Of all items."""
        return self.items * self.frames * self.height * self.width

    @property
    def channels(self) -> int:
        """Lab, and the gradient."""
        return 4 if self.gradient else 3

    def cells(self) -> tuple[list[int], float]:
        """Centres along each axis, and the step between them in pixels."""
        plan = cpu.slic_geometry((self.frames, self.height, self.width), self.wanted, (1.0, 1.0, 1.0), [1.0])
        return list(plan["cells"]), float(plan["step"])


def competing(case: SlicCase) -> tuple[float, float]:
    """Centres that a pixel is compared with, on average: those found for its tile, and those that reach it itself.

    As at the start, when centres lie in the middle of their cells; they do not drift far.
    """
    cells, step = case.cells()
    found = reaching = 1.0
    for pixels, n, tile in zip((case.frames, case.height, case.width), cells, (1, TILE_Y, TILE_X), strict=True):
        centres = ((np.arange(n) + 0.5) * pixels / n - 0.5)[:, None]
        index = np.arange(pixels)
        first = index // tile * tile
        last = np.minimum(first + tile, pixels) - 1
        found *= float(((centres >= first - 2 * step) & (centres <= last + 2 * step)).sum() / pixels)
        reaching *= float((np.abs(index - centres) <= 2 * step).sum() / pixels)
    return found, reaching


def slic_models(case: SlicCase) -> list[Model]:
    """The kernels of one call of `mg.ops.slic_pictures` without connectivity, narrow features."""
    p, c, n = case.pixels, case.channels, case.iterations
    cells, _ = case.cells()
    centres = case.items * math.prod(cells)
    sums = 8 * (SUM_HEADER + c) * centres
    found, reaching = competing(case)
    # add_to_sums: for each of the header's quantities and channels, every pixel of a row: load, compare, add, step.
    summing = 4.0 * (SUM_HEADER + c) * p
    # compare: on three axes subtract, two bounds, multiply-add; for those that reach it, each channel's subtraction and
    # multiply-add, and the comparison of distances and indices.
    comparing = p * (found * 3 * 4 + reaching * (2 * c + 3))
    models = [
        Model("fill_srgb_table_kernel", 1, 4.0 * SRGB_ENTRIES, 0.0),
        Model("prepare_kernel", 1, 4.0 * case.items * (case.frames + case.height + case.width + sum(cells)), 0.0),
        Model(
            "pack_kernel",
            1,
            p * (3.0 * case.bytes_per_value + (4 if case.gradient else 0) + 2 * c + 4) + 2 * sums,
            summing + 20.0 * p,
        ),
        Model("update_kernel", n, n * (2.0 * sums + 4 * (3 + c) * centres), 12.0 * n * (3 + c) * centres),
        Model(
            "assign_kernel",
            n,
            n * (p * (2.0 * c + 4) + 4.0 * (3 + c) * centres) + (n - 1) * 2.0 * sums,
            n * comparing + (n - 1) * summing,
        ),
    ]
    if case.gradient:
        models.insert(0, Model("find_extremes_kernel", 1, 4.0 * p, 6.0 * p))
    return models


def connectivity_models(pixels: int, frames: int = 1) -> list[Model]:
    """The seven launches of `mg.ops.enforce_connectivity` on so many pixels in all; merging is left at nothing."""
    faces = 3 if frames > 1 else 2
    return [
        Model("begin_kernel", 1, 16.0 * pixels, 12.0 * pixels),
        Model("unite_kernel", 1, 8.0 * pixels, (4.0 + 5 * faces) * pixels),
        Model("measure_kernel", 1, 8.0 * pixels, 14.0 * pixels),
        Model("list_kernel", 1, 4.0 * pixels, 8.0 * pixels),
        Model("merge_kernel", 1, 4.0 * pixels / 1024, 0.0),
        Model("rank_kernel", 1, 4.0 * pixels, 6.0 * pixels),
        Model("write_kernel", 1, 8.0 * pixels, 4.0 * pixels),
    ]


def pool_models(groups: int, planes: int, pixels: int, regions: int) -> list[Model]:
    """`mg.pool` (mean) of float32 planes [planes, pixels] over labels [groups, pixels]."""
    values, labels, results = 4.0 * planes * pixels, 4.0 * groups * pixels, planes * regions
    return [
        Model("count_labels_kernel", 1, labels + 4.0 * groups * regions, 4.0 * groups * pixels),
        Model("find_largest_kernel", 1, values, 4.0 * planes * pixels),
        Model("add_kernel", 1, values + labels + 16.0 * results, 6.0 * planes * pixels),
        Model("finish_kernel", 1, 12.0 * results, 0.0),
    ]


def paint_models(groups: int, planes: int, pixels: int, regions: int) -> list[Model]:
    """`mg.paint` of float32 scores [planes, regions]."""
    labels = 4.0 * groups * pixels
    return [
        Model("count_labels_kernel", 1, labels, 4.0 * groups * pixels),
        Model("paint_kernel", 1, labels + 4.0 * planes * (pixels + regions), 8.0 * planes * pixels),
    ]


def lab_models(pixels: int) -> list[Model]:
    """`mg.ops.rgb_to_lab` of uint8 pictures."""
    return [
        Model("fill_srgb_table_kernel", 1, 4.0 * SRGB_ENTRIES, 0.0),
        Model("rgb_to_lab_kernel", 1, 15.0 * pixels, 0.0),
    ]


def patches_models(image_values: int, patch_values: int) -> list[Model]:
    """`mg.ops.extract_patches` of float32: the images once, the patches once; interpolation is work of floats."""
    return [Model("extract_kernel", 1, 4.0 * (image_values + patch_values), 0.0)]


def aggregate_models(map_values: int, result_values: int) -> list[Model]:
    """`mg.ops.aggregate_patches` of float32."""
    return [Model("aggregate_kernel", 1, 4.0 * (map_values + result_values), 0.0)]
