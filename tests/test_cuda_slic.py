"""SLIC's and connectivity's CUDA sources, executed on the CPU: bit for bit what the CPU backend gives."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import cuda_kernels
import cuda_library as cuda
import midgrain as mg
from test_golden import CASES, DIGESTS, digest
from test_slic_kernel import problems

pytestmark = pytest.mark.skipif(cuda.COMPILER is None, reason="needs g++")


def on_both(run, seed=0):
    """What `run` gives on the CPU backend and on the CUDA sources."""
    expected = run()
    with cuda_kernels.as_backend(seed):
        return run(), expected


def assert_same(run, seed=0):
    found, expected = on_both(run, seed)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("case", CASES)
def test_labels_are_as_they_always_were(case):
    before = cuda.launches()
    with cuda_kernels.as_backend(seed=len(case)):
        assert digest(CASES[case]()) == json.loads(DIGESTS.read_text())[case]
    assert cuda.launches() > before


@settings(max_examples=100)
@given(problem=problems(), connect=st.booleans(), seed=st.integers(0, 2**32))
def test_random_items(problem, connect, seed):
    def run():
        features, weights, n_segments = problem["features"], problem["weights"], problem["n_segments"]
        options = {name: problem[name] for name in ("max_num_iter", "spacing", "ranges")}
        return mg.ops.slic(features[None], weights, n_segments, enforce_connectivity=connect, **options)

    assert_same(run, seed)
