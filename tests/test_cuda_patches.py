"""The CUDA sources of Jitter-CAM's patches, executed on the CPU: bit for bit the definition, as the CPU backend is."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import cuda_kernels
import cuda_library as cuda
import midgrain as mg
from oracles import patches as oracle
from test_patches import CASES, layouts, options, seeds, spelt_out

pytestmark = pytest.mark.skipif(cuda.COMPILER is None, reason="needs g++")

DTYPES = (np.float32, np.float64)
extract, aggregate = mg.ops.extract_patches, mg.ops.aggregate_patches


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_patches_and_their_adjoint(case, dtype):
    shape, cells, grid, patch, size = spelt_out(case)
    rng = np.random.default_rng(0)
    images = rng.standard_normal(shape).astype(dtype)
    patches = rng.standard_normal((shape[0], np.prod(grid), shape[1], *patch)).astype(dtype)
    with cuda_kernels.as_backend(len(case)):
        found = extract(images, **options(case))
        # The raw kernel of volumes: images are volumes of one frame.
        adjoint = mg.ops.patches.extract_patches_backward_numpy(patches, shape[2:], cells, grid, size, 0, 1)
    np.testing.assert_array_equal(found, oracle.extract_patches(images, cells, grid, patch, size))
    np.testing.assert_array_equal(adjoint, oracle.extract_patches_backward(patches, shape[2:], cells, grid, size))


@given(layout=layouts(), dtype=st.sampled_from(DTYPES), seed=seeds)
@settings(max_examples=40)
def test_any_patches_and_any_part_of_them(layout, dtype, seed):
    shape, cells, grid = layout
    rng = np.random.default_rng(seed)
    images = rng.standard_normal(shape).astype(dtype)
    start = int(rng.integers(np.prod(grid)))
    count = int(rng.integers(1, np.prod(grid) - start + 1))
    expected = extract(images, cells, grid, start=start, count=count)
    arguments = (shape[2:], cells, grid, mg.ops.patches.enlarged_size(shape[2:], cells, grid), start, 1)
    adjoint = mg.ops.patches.extract_patches_backward_numpy(expected, *arguments)
    with cuda_kernels.as_backend(seed):
        np.testing.assert_array_equal(extract(images, cells, grid, start=start, count=count), expected)
        result = mg.ops.patches.extract_patches_backward_numpy(expected, *arguments)
    np.testing.assert_array_equal(result, adjoint)


@given(layout=layouts(), dtype=st.sampled_from(DTYPES), seed=seeds, enlarged=st.booleans())
@settings(max_examples=60)
def test_aggregation(layout, dtype, seed, enlarged):
    shape, cells, grid = layout
    rng = np.random.default_rng(seed)
    maps = rng.standard_normal((shape[0], np.prod(grid), *cells)).astype(dtype)
    size = [int(n) for n in rng.integers(1, 20, len(cells))] if enlarged else None
    with cuda_kernels.as_backend(seed):
        result = aggregate(maps, grid, size=size)
    np.testing.assert_array_equal(result, oracle.aggregate_patches(maps, grid, size))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_where_it_is(bad):
    images = np.zeros((1, 1, 8, 8), np.float32)
    images[0, 0, 3, 3] = bad
    maps = np.zeros((1, 4, 2, 2))
    maps[0, 1, 0, 0] = bad
    expected = extract(images, 4, 3), aggregate(maps, 2, size=(7, 5))
    with cuda_kernels.as_backend():
        np.testing.assert_array_equal(extract(images, 4, 3), expected[0])
        np.testing.assert_array_equal(aggregate(maps, 2, size=(7, 5)), expected[1])
