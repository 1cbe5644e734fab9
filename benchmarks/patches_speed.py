"""How long do Jitter-CAM's patches and their aggregation take, beside torch's own functions in the same run?

Patches: `F.interpolate` and `Tensor.unfold` views copied out, or slices stacked. Aggregation: `F.fold` of maps and of
ones, or `index_add_` at the cells' indices, then `F.interpolate`. The networks in between are the same for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import midgrain as mg
from benchmarks.common import parser, pictures, race_calls, report

# name, frames, height, width, cells, grid, patches at a time
CASES = [
    ("224 x 224, 7 x 7 doubled: all 64 patches", 1, 224, 224, (7, 7), (8, 8), 64),
    ("224 x 224, 7 x 7 doubled: 8 patches", 1, 224, 224, (7, 7), (8, 8), 8),
    ("299 x 299, 8 x 8 doubled: all 81 patches", 1, 299, 299, (8, 8), (9, 9), 81),
    ("480 x 640, 15 x 20 doubled: 16 of 336 patches", 1, 480, 640, (15, 20), (16, 21), 16),
    ("16 x 112 x 112, 2 x 7 x 7, no temporal jitter: 8 of 64", 16, 112, 112, (2, 7, 7), (1, 8, 8), 8),
    ("16 x 112 x 112, 2 x 7 x 7 doubled: 8 of 192", 16, 112, 112, (2, 7, 7), (3, 8, 8), 8),
]

SECONDS = 4.0  # per size


def enlarged(images: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """As midgrain enlarges."""
    return F.interpolate(images, tuple(size), mode="bilinear" if len(size) == 2 else "trilinear", align_corners=False)


def torch_patches(
    images: torch.Tensor, cells: Sequence[int], grid: Sequence[int], start: int, count: int
) -> torch.Tensor:
    """Patches [B, count, C, *S]: views of the enlarged image, copied out."""
    patch = images.shape[2:]
    offsets = [[(2 * i * p + m) // (2 * m) for i in range(g)] for p, m, g in zip(patch, cells, grid, strict=True)]
    large = enlarged(images, [places[-1] + p for places, p in zip(offsets, patch, strict=True)])
    if count == math.prod(grid) and all(p % m == 0 for p, m in zip(patch, cells, strict=True)):
        axes = len(grid)
        for axis, (p, m) in enumerate(zip(patch, cells, strict=True), 2):
            large = large.unfold(axis, p, p // m)
        return large.permute(0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes)).flatten(1, axes).contiguous()
    windows = []
    for n in range(start, start + count):
        begin = [places[i] for places, i in zip(offsets, np.unravel_index(n, grid), strict=True)]
        windows.append(large[(..., *[slice(b, b + p) for b, p in zip(begin, patch, strict=True)])])
    return torch.stack(windows, 1)


def torch_mean(maps: torch.Tensor, grid: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """Maps [B, n, *m] to [B, *size]."""
    cells = maps.shape[2:]
    whole = [m + g - 1 for m, g in zip(cells, grid, strict=True)]
    if len(grid) == 2:
        columns = maps.flatten(2).mT
        sums = F.fold(columns, whole, list(cells))[:, 0]
        counts = F.fold(torch.ones_like(columns), whole, list(cells))[:, 0]
    else:
        index = torch.arange(math.prod(whole)).reshape(whole)
        for axis, m in enumerate(cells):
            index = index.unfold(axis, m, 1)
        flat = index.reshape(-1)
        sums = torch.zeros(maps.shape[0], math.prod(whole)).index_add_(1, flat, maps.flatten(1)).reshape(-1, *whole)
        counts = torch.zeros(math.prod(whole)).index_add_(0, flat, torch.ones(flat.numel())).reshape(whole)
    return enlarged((sums / counts)[:, None], size)[:, 0]


def row(
    seconds: float,
    case: str,
    frames: int,
    height: int,
    width: int,
    cells: Sequence[int],
    grid: Sequence[int],
    count: int,
) -> dict[str, Any]:
    """Times of one size."""
    found = pictures(3, frames, height, width)
    inputs = [(torch.from_numpy(p).movedim(-1, 0)[None] / 255).contiguous() for p in found]
    size = inputs[0].shape[2:]
    start = 0 if count == math.prod(grid) else (math.prod(grid) - count) // 2
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, math.prod(grid), *cells, generator=generator) for _ in inputs]
    for x, m in zip(inputs, maps, strict=True):
        ours = mg.ops.extract_patches(x, cells, grid, start=start, count=count, num_threads=1)
        assert torch.equal(ours, mg.ops.extract_patches(x, cells, grid, start=start, count=count, num_threads=2))
        torch.testing.assert_close(ours, torch_patches(x, cells, grid, start, count), rtol=0, atol=1e-4)
        torch.testing.assert_close(
            mg.ops.aggregate_patches(m, grid, size=size), torch_mean(m, grid, size), rtol=0, atol=1e-4
        )

    def extractions(threads: int) -> list[Any]:
        return [
            lambda x=x: mg.ops.extract_patches(x, cells, grid, start=start, count=count, num_threads=threads)
            for x in inputs
        ]

    patches = race_calls(
        {
            "one": extractions(1),
            "two": extractions(2),
            "torch": [lambda x=x: torch_patches(x, cells, grid, start, count) for x in inputs],
        },
        seconds,
    )
    means = race_calls(
        {
            "ours": [lambda m=m: mg.ops.aggregate_patches(m, grid, size=size) for m in maps],
            "torch": [lambda m=m: torch_mean(m, grid, size) for m in maps],
        },
        seconds / 4,
    )
    one, two, torch_ms = (patches[name]["fastest"] for name in ("one", "two", "torch"))
    mean, torch_mean_ms = means["ours"]["fastest"], means["torch"]["fastest"]
    return {
        "size, cells": case,
        "1 thread [ms]": one,
        "2 threads [ms]": two,
        "10 % .. 90 %, 2 threads": f"{patches['two']['p10']:.3g} .. {patches['two']['p90']:.3g}",
        "torch [ms]": torch_ms,
        "ratio, 1 thread": torch_ms / one,
        "ratio, 2 threads": torch_ms / two,
        "aggregate [ms]": mean,
        "torch aggregate [ms]": torch_mean_ms,
        "aggregate, ratio": torch_mean_ms / mean,
    }


def main() -> None:
    """Time all sizes, or the second one only."""
    arguments = parser("patches_speed", __doc__).parse_args()
    cases, seconds = (CASES[1:2], 0.0) if arguments.quick else (CASES, SECONDS)
    note = (
        "Medians over the inputs of each one's fastest run; torch and both aggregations have "
        f"{torch.get_num_threads()} threads."
    )
    report(arguments, {"Patches": [row(seconds, *case) for case in cases]}, [note])


if __name__ == "__main__":
    main()
