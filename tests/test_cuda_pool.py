"""Pooling's and painting's CUDA sources, executed on the CPU: bit for bit what the CPU backend gives."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import cuda_kernels
import cuda_library as cuda
import midgrain as mg
from test_pool_kernel import batch, planes

pytestmark = pytest.mark.skipif(cuda.COMPILER is None, reason="needs g++")

REDUCTIONS = mg.ops.REDUCTIONS
DTYPES = (np.float32, np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pixels", [1, 7, 8, 9, 49, 1025, 2111])
def test_pools_by_the_definition(pixels, dtype):
    with cuda_kernels.as_backend(pixels):
        for values, labels, expected in planes(pixels, dtype):
            for reduce in REDUCTIONS:
                result = mg.pool(values[None], labels[None], reduce, n=9)
                np.testing.assert_array_equal(result, expected[reduce], err_msg=reduce)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [-1073, -1000, -150, -126, 0, 127, 1023])
def test_every_magnitude(exponent, dtype):
    rng = np.random.default_rng(0)
    with np.errstate(over="ignore", under="ignore"):
        values = np.clip(np.ldexp(rng.uniform(-1, 1, 300), exponent), *[s * np.finfo(dtype).max for s in (-1, 1)])
        values = values.astype(dtype)
    labels = rng.integers(0, 4, 300)
    for reduce in REDUCTIONS:
        expected = mg.pool(values[None], labels[None], reduce, n=5)
        with cuda_kernels.as_backend():
            np.testing.assert_array_equal(mg.pool(values[None], labels[None], reduce, n=5), expected, err_msg=reduce)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 17])
def test_batches_in_both_layouts(channels, dtype, groups, channels_last):
    values, labels = batch(channels, (11, 13), dtype, label_groups=groups)
    labels = labels if groups > 1 else labels[0]
    values[:, :, ::3] = np.copysign(0.0, values[:, :, ::3])
    axis = -1 if channels_last else 1
    values = np.ascontiguousarray(np.moveaxis(values, 1, axis))
    for reduce in REDUCTIONS:
        expected = mg.pool(values, labels, reduce, n=25, spatial_dims=2, channel_axis=axis)
        painted = mg.paint(expected, labels, channel_axis=axis)
        with cuda_kernels.as_backend(channels):
            result = mg.pool(values, labels, reduce, n=25, spatial_dims=2, channel_axis=axis)
            np.testing.assert_array_equal(result, expected, err_msg=reduce)
            # Of 0 and -0 any is the median, but the first pixel's is the extreme.
            if reduce != "median":
                np.testing.assert_array_equal(np.signbit(result), np.signbit(expected), err_msg=reduce)
            np.testing.assert_array_equal(mg.paint(expected, labels, channel_axis=axis), painted)


@settings(max_examples=60)
@given(
    pixels=st.integers(1, 200),
    regions=st.integers(1, 300),
    reduce=st.sampled_from(REDUCTIONS),
    dtype=st.sampled_from(DTYPES),
    few=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_planes(pixels, regions, reduce, dtype, few, seed):
    rng = np.random.default_rng(seed)
    # Few different values: many equal ones in the middle and at the ends.
    values = (rng.integers(-2, 3, (2, 1, pixels)) if few else rng.standard_normal((2, 1, pixels))).astype(dtype)
    labels = rng.integers(0, regions, (1, 1, pixels))
    expected = mg.pool(values[None], labels, reduce, n=regions, spatial_dims=2)
    with cuda_kernels.as_backend(seed):
        np.testing.assert_array_equal(mg.pool(values[None], labels, reduce, n=regions, spatial_dims=2), expected)


@pytest.mark.parametrize("reduce", ["mean", "sum", "max", "min"])
def test_gradients(reduce):
    rng = np.random.default_rng(3)
    labels = torch.from_numpy(rng.integers(0, 7, (2, 9, 10)))
    start = torch.from_numpy(rng.integers(-3, 4, (2, 3, 9, 10)).astype(np.float32))
    weights = torch.from_numpy(rng.standard_normal((2, 3, 7)).astype(np.float32))

    def gradient():
        values = start.clone().requires_grad_()
        mg.pool(values, labels, reduce, n=7).backward(weights)
        return values.grad

    expected = gradient()
    with cuda_kernels.as_backend(1):
        before = cuda.launches()
        np.testing.assert_array_equal(gradient(), expected)
        assert cuda.launches() > before


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_wrong_is_reported_per_label_map(dtype):
    values, labels = np.ones((3, 2, 40), dtype), np.zeros((3, 40), np.int32)
    values[0, 1, 39], values[2, 0, 8] = np.nan, -np.inf
    labels[1, 5], labels[2, 0] = 4, -1
    out = np.empty((3, 2, 4), dtype)
    for reduce in cuda_kernels.REDUCTIONS:
        with pytest.raises(cuda_kernels.BadValues) as caught:
            cuda_kernels.pool(values, labels, reduce, out, 1)
        assert caught.value.status.tolist() == [1, 4, 5], reduce
    painted = np.empty((3, 2, 40), dtype)
    with pytest.raises(cuda_kernels.BadValues) as caught:
        cuda_kernels.paint(np.ones((3, 2, 4), dtype), labels, painted, 1)
    assert caught.value.status.tolist() == [0, 4, 4]
    # Nothing but the pixels without a region is left out.
    np.testing.assert_array_equal(np.isnan(painted[:, 0]), (labels < 0) | (labels >= 4))


def test_no_channels_at_all():
    labels = np.full((1, 9), 4, np.int32)
    for shape, out, last in (((1, 0, 9), (1, 0, 4), False), ((1, 9, 0), (1, 4, 0), True)):
        for reduce in cuda_kernels.REDUCTIONS:
            with pytest.raises(cuda_kernels.BadValues):
                cuda_kernels.pool(np.zeros(shape), labels, reduce, np.zeros(out), 1, last)
            cuda_kernels.pool(np.zeros(shape), labels - 4, reduce, np.zeros(out), 1, last)
