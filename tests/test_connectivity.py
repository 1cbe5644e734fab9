"""Connectivity: equal to its definition, and what follows from the definition."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from skimage.measure import label as connected_components

import midgrain as mg
from oracles.connectivity import connect

# Few values, so that there are many small pieces and many ties.
random_labels = st.one_of(
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.integers(-1, 2)),
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=7), elements=st.integers(0, 1)),
)


def enforce(labels, min_size):
    """`mg.ops.enforce_connectivity` on one item."""
    connected, counts = mg.ops.enforce_connectivity(labels[None], min_size)
    return connected[0], int(counts[0])


@settings(max_examples=300)
@given(random_labels, st.sampled_from([0, 1, 2, 3, 5, 8, 20, 10**6]))
def test_equals_the_definition(labels, min_size):
    connected, count = enforce(labels, min_size)
    expected, expected_count = connect(labels, min_size)
    np.testing.assert_array_equal(connected, expected)
    assert count == expected_count


@settings(max_examples=100)
@given(random_labels, st.integers(0, 12))
def test_pieces_are_connected_large_enough_and_in_raster_order(labels, min_size):
    connected, count = enforce(labels, min_size)
    _, first, sizes = np.unique(connected, return_index=True, return_counts=True)
    assert connected_components(connected, connectivity=1, background=-1).max() == count == len(sizes)
    assert (np.diff(first) > 0).all()
    assert count == 1 or sizes.min() >= min_size


@settings(max_examples=100)
@given(random_labels, st.integers(0, 12))
def test_is_idempotent(labels, min_size):
    connected, count = enforce(labels, min_size)
    again, again_count = enforce(connected, min_size)
    np.testing.assert_array_equal(again, connected)
    assert again_count == count


@pytest.mark.parametrize("min_size", [0, 1])
def test_merges_nothing_below_two(min_size):
    checkerboard = np.indices((5, 6)).sum(0) % 2
    connected, count = enforce(checkerboard, min_size)
    assert count == 30
    np.testing.assert_array_equal(connected.ravel(), np.arange(30))


@pytest.mark.parametrize("shape", [(9, 7), (3, 5, 4)])
def test_a_min_size_above_everything_leaves_one_superpixel(shape):
    labels = np.random.default_rng(0).integers(0, 3, shape)
    connected, count = enforce(labels, 10**12)
    assert count == 1
    assert not connected.any()


def test_a_row_does_not_wrap_around():
    # The last pixel of a row and the first of the next are neighbours in memory only.
    labels = np.array([[0, 0, 0, 1], [1, 0, 0, 0]])
    connected, count = enforce(labels, 1)
    assert count == 3
    assert connected.tolist() == [[0, 0, 0, 1], [2, 0, 0, 0]]


def test_a_frame_does_not_wrap_around():
    labels = np.array([[[0, 0], [0, 1]], [[1, 0], [0, 0]]])
    connected, count = enforce(labels, 1)
    assert count == 3
    assert connected.tolist() == [[[0, 0], [0, 1]], [[2, 0], [0, 0]]]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[0, 0, 0], [1, 2, 1], [1, 1, 1]], [[0, 0, 0], [1, 1, 1], [1, 1, 1]]),  # three faces against one
        ([[0, 0, 0], [1, 2, 0], [1, 1, 1]], [[0, 0, 0], [1, 0, 0], [1, 1, 1]]),  # a tie: the piece that comes first
    ],
)
def test_one_small_piece_joins_the_neighbour_with_the_longest_border(labels, expected):
    connected, count = enforce(np.array(labels), 2)
    assert connected.tolist() == expected
    assert count == 2


def test_small_pieces_choose_at_the_same_moment():
    # One after the other, 1 would already be part of 0 when 2 chooses, which then shares two faces with it.
    labels = np.array([[0, 0, 0, 0, 0], [0, 1, 2, 3, 3], [0, 0, 3, 3, 3]])
    connected, _ = enforce(labels, 2)
    assert connected.tolist() == [[0, 0, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]


def test_one_label_everywhere():
    connected, count = enforce(np.full((4, 5), -7), 100)
    assert count == 1
    assert not connected.any()


def test_one_pixel():
    connected, count = enforce(np.array([[5]]), 3)
    assert (connected.tolist(), count) == ([[0]], 1)


def test_every_item_of_a_batch_stands_alone():
    labels = np.random.default_rng(1).integers(0, 3, (7, 40, 50))
    one_thread, counts = mg.ops.enforce_connectivity(labels, 6, num_threads=1)
    for threads in (2, 5):
        many, many_counts = mg.ops.enforce_connectivity(labels, 6, num_threads=threads)
        np.testing.assert_array_equal(many, one_thread)
        np.testing.assert_array_equal(many_counts, counts)
    for item, connected, count in zip(labels, one_thread, counts, strict=True):
        alone, alone_count = enforce(item, 6)
        np.testing.assert_array_equal(alone, connected)
        assert alone_count == count


def test_noise_does_not_collapse():
    # Small pieces that merge in scan order run into one another until a single superpixel is left.
    clip = np.random.default_rng(0).integers(0, 256, (16, 112, 112, 3), dtype=np.uint8)
    labels = mg.slic(clip, n_segments=120)
    assert labels.max() + 1 > 30
