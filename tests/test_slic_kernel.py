"""The SLIC kernel: bit for bit the integer definition, close to the float64 textbook, the same however it is run."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from skimage.measure import label as connected_components

import midgrain as mg
from midgrain._kernels import _cpu
from oracles import slic as oracle

N_SEGMENTS = 200


def raw_labels(features, weights, n_segments, max_num_iter=10, num_threads=1, **options):
    """Labels of one item [C, Z, Y, X] before connectivity."""
    labels, _ = mg.ops.slic(
        features[None],
        weights,
        n_segments,
        max_num_iter=max_num_iter,
        enforce_connectivity=False,
        num_threads=num_threads,
        **options,
    )
    return labels[0]


@st.composite
def problems(draw):
    """Small random items with everything that changes the arithmetic; arguments of `oracle.slic_integer`."""
    dims = draw(st.one_of(st.tuples(st.just(1), *[st.integers(1, 24)] * 2), st.tuples(*[st.integers(1, 9)] * 3)))
    channels = draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["noise", "few values", "constant", "ramp"]))
    scale = draw(st.sampled_from([1e-6, 1.0, 1e6]))
    shape = (channels, *dims)
    features = {
        "noise": lambda: rng.standard_normal(shape),
        "few values": lambda: rng.integers(-1, 2, shape),
        "constant": lambda: np.full(shape, 0.3),
        "ramp": lambda: np.indices(dims).sum(0) + rng.standard_normal(shape) / 8,
    }[kind]()
    features = (scale * features).astype(np.float32)
    # A range that holds everything, one that clamps, or the item's own.
    reach = draw(st.sampled_from([None, 0.6, 40.0]))
    ranges = None if reach is None else [(-reach * scale, 1.2 * reach * scale)] * channels
    widths = [np.ptp(c).item() for c in features] if ranges is None else [2.2 * reach * scale] * channels
    # Range over weight, the influence of a channel: above about 180 the wide path is taken.
    influence = draw(
        st.lists(st.sampled_from([1e-4, 0.3, 5.0, 60.0, 400.0, 1e6]), min_size=channels, max_size=channels)
    )
    weights = [(width or 1.0) / s for width, s in zip(widths, influence, strict=True)]
    pixels = int(np.prod(dims))
    n_segments = draw(st.one_of(st.just(1), st.just(pixels), st.integers(1, pixels)))
    spacing = draw(st.tuples(*[st.sampled_from([1.0, 0.4, 3.0])] * 3))
    return {
        "features": features,
        "weights": weights,
        "n_segments": n_segments,
        "max_num_iter": draw(st.integers(1, 6)),
        "spacing": spacing,
        "ranges": ranges,
    }


# The fixture need not be renewed for every example.
@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems())
def test_equals_the_definition(instruction_set, problem):
    np.testing.assert_array_equal(raw_labels(**problem), oracle.slic_integer(**problem))


@settings(max_examples=300)
@given(
    st.tuples(*[st.one_of(st.integers(1, 40), st.sampled_from([1, 224, 100_003, 2**20]))] * 3),
    st.floats(0, 1),
    st.tuples(*[st.sampled_from([1.0, 1.0, 0.37, 4.0, 1e-20, 1e20])] * 3),
    st.lists(st.floats(0, 1e6), max_size=9),
)
def test_geometry_equals_the_definition(dims, density, spacing, spreads):
    pixels = int(np.prod(dims))
    if pixels >= 2**31:
        dims = (1, dims[1], min(dims[2], 2000))
        pixels = int(np.prod(dims))
    n_segments = max(1, round(density * pixels))
    plan = oracle.make_plan(dims, n_segments, spacing, spreads)
    assert _cpu.slic_geometry(dims, n_segments, spacing, spreads) == {
        "cells": plan.counts,
        "step": plan.step,
        "units": plan.units,
        "narrow": plan.narrow,
    }


@pytest.mark.parametrize(("influence", "narrow"), [(1e-4, True), (60.0, True), (400.0, False), (1e6, False)])
def test_a_large_influence_takes_the_wide_path(influence, narrow):
    assert _cpu.slic_geometry((1, 20, 20), 10, (1.0, 1.0, 1.0), [influence])["narrow"] == narrow


@pytest.fixture(scope="module", params=["Lab", "Lab, wide", "Lab and gradient"])
def variant(request):
    """Which features of a photograph, and the weight of its colours."""
    return request.param, {"Lab": 10.0, "Lab, wide": 20.0, "Lab and gradient": 10.0}[request.param]


@pytest.fixture
def photo_problem(variant, photo, edge_map):
    """A photograph as features [C, 1, 224, 224]."""
    name, weight = variant
    lab = mg.ops.rgb_to_lab(photo[None], channel_axis=-1)[0][:, None]
    problem = {"features": lab, "weights": [weight] * 3, "n_segments": N_SEGMENTS, "ranges": list(mg.ops.LAB_RANGES)}
    if name == "Lab and gradient":
        problem["features"] = np.concatenate([lab, edge_map[None, None]])
        problem["weights"] = [*problem["weights"], 9.0]
        problem["ranges"].append(mg.ops.GRADIENT_RANGE)
    return problem


def test_photographs_equal_the_definition(photo_problem):
    np.testing.assert_array_equal(raw_labels(**photo_problem), oracle.slic_integer(**photo_problem))


def test_photographs_agree_with_the_textbook(photo_problem):
    ours = raw_labels(**photo_problem)
    features, weights = photo_problem["features"], photo_problem["weights"]
    textbook = oracle.slic_textbook(features, weights, N_SEGMENTS)
    step = oracle.make_plan(features.shape[1:], N_SEGMENTS, (1.0, 1.0, 1.0), [1.0]).step
    assert (ours == textbook).mean() >= 0.98
    errors = [oracle.objective(features, labels, weights, step) for labels in (ours, textbook)]
    assert errors[0] == pytest.approx(errors[1], rel=0.005)


@pytest.fixture(scope="module")
def batch(photos):
    """The photographs as a batch of Lab features [4, 3, 224, 224]."""
    return mg.ops.rgb_to_lab(np.stack(list(photos.values())), channel_axis=-1)


@pytest.mark.parametrize("weight", [10.0, 0.2], ids=["narrow", "wide"])
@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_photographs_are_the_same_however_they_are_run(batch, weight, num_threads, instruction_set):
    ranges = mg.ops.LAB_RANGES
    labels, counts = mg.ops.slic(batch, [weight] * 3, N_SEGMENTS, ranges=ranges, num_threads=num_threads)
    for item, item_labels, item_count in zip(batch, labels, counts, strict=True):
        alone, count = mg.ops.slic(item[None], [weight] * 3, N_SEGMENTS, ranges=ranges, num_threads=1)
        np.testing.assert_array_equal(alone[0], item_labels)
        assert count[0] == item_count
    assert labels.dtype == counts.dtype == np.int32


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_a_volume_is_the_same_for_any_threads_and_run(num_threads):
    clip = np.random.default_rng(3).random((1, 2, 7, 61, 67), dtype=np.float32)
    expected, _ = mg.ops.slic(clip, [0.3, 0.4], 40, num_threads=1)
    for _ in range(3):
        labels, _ = mg.ops.slic(clip, [0.3, 0.4], 40, num_threads=num_threads)
        np.testing.assert_array_equal(labels, expected)


def test_stopping_early_changes_nothing():
    # The definition never stops early; it has settled long before 150 iterations here.
    features = np.random.default_rng(0).random((2, 1, 30, 34)).astype(np.float32)
    expected = oracle.slic_integer(features, [0.3, 0.3], 20, max_num_iter=150)
    np.testing.assert_array_equal(oracle.slic_integer(features, [0.3, 0.3], 20, max_num_iter=149), expected)
    for iterations in (200, 1_000_000):
        np.testing.assert_array_equal(raw_labels(features, [0.3, 0.3], 20, iterations), expected)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_stopping_early_on_photographs(batch, num_threads):
    labels = [mg.ops.slic(batch, [10] * 3, N_SEGMENTS, max_num_iter=n, num_threads=num_threads)[0] for n in (200, 1000)]
    np.testing.assert_array_equal(*labels)


@pytest.mark.parametrize("num_threads", [2, 3, 4])
def test_stopping_early_waits_for_all_threads(num_threads):
    # Nothing moves in the upper part after a few iterations, while the noise below is far from settled.
    features = np.zeros((1, 1, 300, 130), np.float32)
    features[..., 200:, :] = np.random.default_rng(0).random((100, 130))
    options = {"max_num_iter": 200, "enforce_connectivity": False}
    expected, _ = mg.ops.slic(features, [0.2], 40, num_threads=1, **options)
    labels, _ = mg.ops.slic(features, [0.2], 40, num_threads=num_threads, **options)
    np.testing.assert_array_equal(labels, expected)


def test_an_image_is_a_volume_of_one_frame(batch):
    image, image_counts = mg.ops.slic(batch, [10] * 3, N_SEGMENTS, spacing=(1.0, 2.0))
    volume, volume_counts = mg.ops.slic(batch[:, :, None], [10] * 3, N_SEGMENTS, spacing=(1.0, 1.0, 2.0))
    np.testing.assert_array_equal(volume[:, 0], image)
    np.testing.assert_array_equal(volume_counts, image_counts)


def test_features_beyond_a_given_range_are_clamped():
    features = np.random.default_rng(4).normal(0, 2, (1, 2, 20, 20)).astype(np.float32)
    ranges = [(-1.0, 1.0), (-0.5, 2.0)]
    clamped = np.stack([features[:, c].clip(*ranges[c]) for c in range(2)], 1)
    first, _ = mg.ops.slic(features, [0.5, 0.5], 12, ranges=ranges)
    second, _ = mg.ops.slic(clamped, [0.5, 0.5], 12, ranges=ranges)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("min_size_factor", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize(
    ("shape", "n_segments"),
    [((3, 4, 60, 61), 90), ((2, 1, 5, 30, 31), 40), ((2, 2, 1, 50), 7), ((1, 1, 12, 12), 144), ((1, 1, 9, 9), 1)],
)
def test_connected_superpixels(shape, n_segments, min_size_factor):
    features = np.random.default_rng(5).random(shape, dtype=np.float32)
    weights = [0.4] * shape[1]
    labels, counts = mg.ops.slic(features, weights, n_segments, min_size_factor=min_size_factor)
    pixels = int(np.prod(shape[2:]))
    for item, count in zip(labels, counts, strict=True):
        values, first, sizes = np.unique(item, return_index=True, return_counts=True)
        np.testing.assert_array_equal(values, np.arange(count))
        assert (np.diff(first) > 0).all()
        assert connected_components(item, connectivity=1, background=-1).max() == count
        assert count <= mg.ops.max_superpixels(pixels, n_segments, min_size_factor)
        assert count == 1 or sizes.min() >= min_size_factor * pixels / n_segments


def test_connected_superpixels_are_the_raw_ones_connected(batch):
    raw, centres = mg.ops.slic(batch, [10] * 3, N_SEGMENTS, enforce_connectivity=False)
    labels, counts = mg.ops.slic(batch, [10] * 3, N_SEGMENTS, min_size_factor=0.5)
    expected, expected_counts = mg.ops.enforce_connectivity(raw, -(-224 * 224 // (2 * N_SEGMENTS)))
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(counts, expected_counts)
    assert (centres == 14 * 14).all()
