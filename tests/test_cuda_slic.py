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
from oracles.connectivity import connect
from test_connectivity import blobs, random_labels
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
@given(problem=problems(), connected=st.booleans(), seed=st.integers(0, 2**32))
def test_random_items(problem, connected, seed):
    def run():
        features, weights, n_segments = problem["features"], problem["weights"], problem["n_segments"]
        options = {name: problem[name] for name in ("max_num_iter", "spacing", "ranges")}
        return mg.ops.slic(features[None], weights, n_segments, enforce_connectivity=connected, **options)

    assert_same(run, seed)


@settings(max_examples=60)
@given(labels=random_labels, min_size=st.sampled_from([0, 1, 2, 3, 5, 8, 20, 10**6]), seed=st.integers(0, 2**32))
def test_connectivity_of_random_labels(labels, min_size, seed):
    expected, count = connect(labels, min_size)
    with cuda_kernels.as_backend(seed):
        found, counts = mg.ops.enforce_connectivity(labels[None], min_size)
    np.testing.assert_array_equal(found[0], expected)
    assert counts.tolist() == [count]


@pytest.mark.parametrize("min_size", [0, 1, 7, 60, 3000])
@pytest.mark.parametrize("shape", [(1, 97, 65), (3, 40, 33), (2, 5, 21, 18), (1, 1, 2100), (1, 2100, 1)])
def test_connectivity_of_batches(shape, min_size):
    labels = np.stack([blobs(shape[1:], 3, seed) for seed in range(shape[0])])
    for seed in range(2):
        assert_same(lambda: mg.ops.enforce_connectivity(labels, min_size), seed)


@pytest.mark.parametrize("min_size", [1, 2, 33, 10**6])
def test_connectivity_of_the_extremes(min_size):
    """One piece, a piece per pixel, a spiral that is one long piece, and rows that only ever touch in one place."""
    board = np.indices((33, 35)).sum(0) % 2
    comb = np.zeros((33, 35), int)
    comb[1::2, 1:] = 1
    spiral = np.zeros((33, 33), int)
    for ring in range(0, 16, 2):
        spiral[ring : 33 - ring, ring] = spiral[ring, ring : 33 - ring] = 1
        spiral[ring : 33 - ring, 32 - ring] = spiral[32 - ring, ring : 33 - ring] = 1
    for labels in (np.full((33, 35), 5), board, np.arange(33 * 35).reshape(33, 35), comb, comb.T.copy(), spiral):
        assert_same(lambda labels=labels: mg.ops.enforce_connectivity(labels[None], min_size), min_size)


# What is particular about each: batches of unlike items, one that settles early, no room for what is asked for.
ITEMS = {
    "constant": (np.full((1, 2, 20, 31), 0.25), {"n_segments": 9}),
    "one superpixel": (np.arange(600.0).reshape(1, 1, 20, 30), {"n_segments": 1}),
    "a superpixel per pixel": (np.arange(600.0).reshape(1, 1, 20, 30), {"n_segments": 600}),
    "one pixel": (np.ones((1, 3, 1, 1)), {"n_segments": 1}),
    "one column": (np.arange(90.0).reshape(1, 1, 90, 1), {"n_segments": 7}),
    "more iterations than needed": (np.indices((24, 50))[None].astype(float), {"n_segments": 12, "max_num_iter": 40}),
    "unlike items": (
        np.stack([np.zeros((2, 17, 33)), np.random.default_rng(0).standard_normal((2, 17, 33)) * 1e3]),
        {"n_segments": 14, "max_num_iter": 12},
    ),
    "narrow and wide items": (
        np.stack([np.eye(40)[None] * 2.0, np.random.default_rng(0).standard_normal((1, 40, 40)) * 1e4]),
        {"n_segments": 20},
    ),
    "long volume": (np.random.default_rng(1).standard_normal((2, 1, 19, 6, 7)), {"n_segments": 30}),
    "thin voxels": (
        np.random.default_rng(2).standard_normal((1, 2, 6, 24, 22)),
        {"n_segments": 25, "spacing": (1e6, 1.0, 2.0)},
    ),
    "twenty channels": (np.random.default_rng(3).standard_normal((1, 20, 21, 22)), {"n_segments": 15}),
}


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("case", ITEMS)
def test_particular_items(case, connected):
    values, options = ITEMS[case]
    weights = [1.0] * values.shape[1]
    options = {"enforce_connectivity": connected, **options}
    for seed in range(2):
        assert_same(lambda: mg.ops.slic(values.astype(np.float32), weights, **options), seed)


@pytest.mark.parametrize("form", ["uint8", "uint8 last", "normalised", "normalised last"])
@pytest.mark.parametrize("slope", ["none", "some flat", "noise"])
def test_pictures(form, slope, photos):
    images = np.stack([photo[60:101, :43] for photo in photos.values()])
    if slope == "none":
        gradient = None
    else:
        gradient = np.random.default_rng(0).normal(0, 1e-30, images.shape[:3]).astype(np.float32)
        gradient[1:3] = gradient[1:3] if slope == "noise" else 0.5
    options = {"gradient": gradient, "compactness": 8.0, "channel_axis": -1}
    if "normalised" in form:
        options.update(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
        images = ((images / 255 - options["mean"]) / options["std"]).astype(np.float32)
    if "last" not in form:
        images, options["channel_axis"] = np.ascontiguousarray(np.moveaxis(images, -1, 1)), 1
    assert_same(lambda: mg.ops.slic_pictures(images, 30, **options))


def test_gradient_maps_alone():
    maps = np.random.default_rng(0).standard_normal((3, 4, 15, 17)).astype(np.float32) * np.float32(1e30)
    maps[1] = 7
    assert_same(lambda: mg.ops.slic_pictures(None, 12, gradient=maps))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_colours(dtype, last):
    rgb = np.random.default_rng(0).integers(0, 256, (2, 30, 31, 3) if last else (2, 3, 30, 31)).astype(np.uint8)
    if dtype == np.float32:
        rgb = (rgb / np.float32(200) - np.float32(0.1)).astype(np.float32)  # beyond 0 .. 1 on both sides
    assert_same(lambda: (mg.ops.rgb_to_lab(rgb, channel_axis=-1 if last else 1),))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ranges", [None, [(-1, 1), (-1, 1)]])
def test_items_that_are_not_finite_are_named(bad, ranges):
    features = np.random.default_rng(0).standard_normal((3, 2, 12, 40)).astype(np.float32)
    expected = mg.ops.slic(features, [0.5, 0.5], 9, ranges=ranges)[0]
    features[1, 1, 11, 39] = bad
    labels, counts = np.empty((3, 1, 12, 40), np.int32), np.empty(3, np.int32)
    arguments = (features.reshape(3, 2, 1, 12, 40), [0.5, 0.5], ranges, 9, 10, (1.0, 1.0, 1.0), 27)
    with pytest.raises(cuda_kernels.BadValues) as caught:
        cuda_kernels.slic(*arguments, labels, counts, 1)
    assert caught.value.status.tolist() == [0, cuda_kernels.NOT_FINITE, 0]
    # The other items are what they would be without it.
    np.testing.assert_array_equal(labels[[0, 2], 0], expected[[0, 2]])


def test_weights_that_are_too_small_are_named():
    features = np.stack([np.zeros((1, 9, 9)), np.eye(9)[None] * 1e9]).astype(np.float32)
    with cuda_kernels.as_backend(), pytest.raises(cuda_kernels.BadValues) as caught:
        mg.ops.slic(features, [1e-3], 4)
    assert caught.value.status.tolist() == [0, cuda_kernels.WEIGHTS_TOO_SMALL]


def test_pictures_that_are_not_finite_are_named():
    images, maps = np.ones((3, 3, 9, 9), np.float32), np.zeros((3, 9, 9), np.float32)
    images[0, 2, 8, 8], maps[2, 0, 0] = np.nan, np.inf
    with cuda_kernels.as_backend(), pytest.raises(cuda_kernels.BadValues) as caught:
        mg.ops.slic_pictures(images, 4, gradient=maps)
    assert caught.value.status.tolist() == [cuda_kernels.NOT_FINITE, 0, cuda_kernels.NOT_FINITE]


def test_launches_do_not_depend_on_the_values():
    """A graph that was captured with one picture must serve any other."""
    found = set()
    for values in (np.zeros((2, 2, 40, 50)), np.random.default_rng(0).standard_normal((2, 2, 40, 50)) * 1e5):
        before = cuda.launches()
        with cuda_kernels.as_backend():
            mg.ops.slic(values.astype(np.float32), [1.0, 1.0], 20)
        found.add(cuda.launches() - before)
    # Range, preparation, packing; two for each of ten iterations; connectivity.
    assert found == {3 + 20 + 7}


@pytest.mark.slow
def test_photographs_in_full_size(photos):
    images = np.stack(list(photos.values()))
    gradient = np.random.default_rng(0).standard_normal(images.shape[:3]).astype(np.float32)
    assert_same(lambda: mg.ops.slic_pictures(images, 300, channel_axis=-1))
    assert_same(lambda: mg.ops.slic_pictures(images[:1], 500, gradient=gradient[:1], channel_axis=-1), seed=1)


@pytest.mark.slow
def test_a_clip_in_full_size(photos):
    clip = np.stack([np.roll(photos["coffee"], 3 * t, 1) for t in range(8)])[None]
    assert_same(lambda: mg.ops.slic_pictures(clip, 400, channel_axis=-1))
