"""Runs every kernel once on small arrays of the device that is named, and compares with the CPU; for sanitizers.

compute-sanitizer --tool memcheck python tests/gpu/every_kernel.py cuda
"""

from __future__ import annotations

import sys

import numpy as np
import torch

import midgrain as mg


def check(found: torch.Tensor, expected: np.ndarray) -> None:
    assert np.array_equal(found.detach().cpu().numpy(), expected, equal_nan=expected.dtype.kind == "f")


def main(device: str) -> None:
    rng = np.random.default_rng(0)

    def put(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(array)).to(device)

    image = rng.standard_normal((2, 3, 21, 37)).astype(np.float32)
    clip = rng.standard_normal((1, 5, 4, 9, 35)).astype(np.float32)
    picture = rng.integers(0, 256, (1, 3, 17, 18)).astype(np.uint8)
    slope = rng.random((1, 17, 18)).astype(np.float32)
    labels = rng.integers(0, 6, (2, 21, 37))
    for features, weight, options in (
        (image, 1.0, {}),
        (image * np.float32(1e4), 1.0, {}),  # wide
        (image[:, :1], 1.0, {"ranges": [(-1.0, 1.0)]}),
        (clip, 1.0, {"spacing": (1e5, 1.0, 1.0)}),
    ):
        weights = [weight] * features.shape[1]
        found = mg.ops.slic(put(features), weights, 15, max_num_iter=3, **options)
        for mine, theirs in zip(found, mg.ops.slic(features, weights, 15, max_num_iter=3, **options), strict=True):
            check(mine, theirs)
    for gradient in (None, slope):
        given = None if gradient is None else put(gradient)
        found = mg.ops.slic_pictures(put(picture), 40, gradient=given, max_num_iter=2)
        check(found[0], mg.ops.slic_pictures(picture, 40, gradient=gradient, max_num_iter=2)[0])
    check(mg.ops.enforce_connectivity(put(labels), 9)[0], mg.ops.enforce_connectivity(labels, 9)[0])
    check(mg.ops.rgb_to_lab(put(picture)), mg.ops.rgb_to_lab(picture))
    for reduce in mg.ops.REDUCTIONS:
        for values in (image, image.astype(np.float64), np.moveaxis(image, 1, -1).copy()):
            axis = 1 if values.shape[1] == 3 else -1
            pooled = mg.pool(put(values), put(labels), reduce, n=8, channel_axis=axis)
            expected = mg.pool(values, labels, reduce, n=8, channel_axis=axis)
            check(pooled, expected)
            check(mg.paint(pooled, put(labels), channel_axis=axis), mg.paint(expected, labels, channel_axis=axis))
    leaf = put(image).requires_grad_(True)
    patches = mg.ops.extract_patches(leaf, (3, 5), (2, 3))
    check(patches, mg.ops.extract_patches(image, (3, 5), (2, 3)))
    patches.square().sum().backward()
    assert leaf.grad is not None
    maps = rng.random((1, 6, 3, 4))
    check(
        mg.ops.aggregate_patches(put(maps), (2, 3), size=(9, 10)), mg.ops.aggregate_patches(maps, (2, 3), size=(9, 10))
    )
    if device == "cuda":
        torch.cuda.synchronize()
    print("done")


if __name__ == "__main__":
    main(sys.argv[1])
