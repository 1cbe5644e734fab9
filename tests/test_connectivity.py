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


def enforce(labels, min_size, num_threads=None):
    """`mg.ops.enforce_connectivity` on one item."""
    connected, counts = mg.ops.enforce_connectivity(labels[None], min_size, num_threads=num_threads)
    return connected[0], int(counts[0])


def blobs(shape, values, seed):
    """Random labels of which most continue to the right and downwards, as labels of pictures do."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-values, values, shape, dtype=np.int32)
    for axis in (-1, -2):
        lines = np.moveaxis(labels, axis, 0)
        continues = rng.random(lines.shape) < 0.7
        for before, after, same in zip(lines, lines[1:], continues[1:], strict=False):
            after[same] = before[same]
    return labels


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


# Large enough for several threads: images, bands of less than a frame, more threads than rows, a row, a column, rows
# just above and below a machine word, frames of one row.
@pytest.mark.parametrize(
    "shape",
    [
        (131, 190), (3, 12000), (1, 30000), (30000, 1), (400, 63), (400, 64), (400, 65), (2, 280, 60), (40, 25, 25),
        (5000, 1, 5), (300, 84, 1),
    ],
    ids=str,
)  # fmt: skip
def test_any_number_of_threads_gives_the_definition(shape):
    labels = blobs(shape, 2, seed=len(shape))
    for min_size in (1, 6, 10**6):
        expected, expected_count = connect(labels, min_size)
        for threads in (1, 2, 3, 16):
            connected, count = enforce(labels, min_size, threads)
            np.testing.assert_array_equal(connected, expected, err_msg=f"{min_size=} {threads=}")
            assert count == expected_count


@settings(max_examples=60, deadline=None)
@given(
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=70).filter(lambda shape: np.prod(shape) <= 12_000),
    st.integers(1, 3),
    st.sampled_from([1, 2, 5, 30, 10**6]),
    st.integers(0, 2**32 - 1),
)
def test_blobs_equal_the_definition(shape, values, min_size, seed):
    labels = blobs(shape, values, seed)
    connected, count = enforce(labels, min_size)
    expected, expected_count = connect(labels, min_size)
    np.testing.assert_array_equal(connected, expected)
    assert count == expected_count


WORST = {
    "every pixel a run": lambda y, x: y * 7 + x,
    "checkerboard": lambda y, x: (y + x) % 2,
    "columns": lambda y, x: x + 0 * y,
    "rows": lambda y, x: y + 0 * x,
    "one label": lambda y, x: 0 * (y + x) - 5,
    "comb": lambda y, x: (x % 2) * (y < y.max()),
    "stairs": lambda y, x: (x + 2 * y < x.max()) * (x % 2),
    "spiral": lambda y, x: np.minimum(np.minimum(x, x.max() - x), np.minimum(y - (x < 1), y.max() - y)) % 2,
    "extremes": lambda y, x: np.where((x // 3 + y // 2) % 2, np.iinfo(np.int32).max, np.iinfo(np.int32).min),
}


@pytest.mark.parametrize("name", WORST)
@pytest.mark.parametrize("min_size", [1, 3, 10**6])
def test_worst_cases_equal_the_definition(name, min_size):
    labels = np.ascontiguousarray(WORST[name](*np.ogrid[:140, :130]), dtype=np.int32)
    expected, expected_count = connect(labels, min_size)
    for threads in (1, 2):
        connected, count = enforce(labels, min_size, threads)
        np.testing.assert_array_equal(connected, expected)
        assert count == expected_count


@pytest.mark.parametrize("shape", [(50, 133), (4, 20, 80)])
def test_every_instruction_set_gives_the_definition(instruction_set, shape):
    labels = blobs(shape, 3, seed=7)
    expected, expected_count = connect(labels, 9)
    connected, count = enforce(labels, 9)
    np.testing.assert_array_equal(connected, expected)
    assert count == expected_count


def test_input_is_left_alone():
    labels = blobs((200, 200), 4, seed=1)
    copy = labels.copy()
    enforce(labels, 50, 2)
    np.testing.assert_array_equal(labels, copy)


def test_a_small_piece_without_labelled_neighbour_still_joins_one():
    # Scan-order merging finds no neighbour for a small piece at the very start, and leaves it or labels it 0.
    labels = np.full((6, 6), 3)
    labels[0, 0] = 8
    connected, count = enforce(labels, 2)
    assert count == 1
    assert not connected.any()


def test_all_pieces_small_at_the_start():
    # The first pieces in raster order are small and touch only one another until they are large enough.
    labels = np.array([[0, 1, 2, 3], [9, 9, 9, 9], [9, 9, 9, 9]])
    connected, count = enforce(labels, 2)
    expected, expected_count = connect(labels, 2)
    assert (connected.tolist(), count) == (expected.tolist(), expected_count)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[0, 0, 1, 1], [5, 1, 1, 1]], [[0, 0, 1, 1], [0, 1, 1, 1]]),
        ([[0, 0, 0], [1, 1, 5], [1, 2, 2], [1, 2, 2]], [[0, 0, 0], [1, 1, 0], [1, 2, 2], [1, 2, 2]]),
    ],
)
def test_borders_do_not_wrap_around(labels, expected):
    # In linear memory the 5 has a second neighbour in the 1s, across the end of a row; on the grid there is a tie.
    connected, _ = enforce(np.array(labels), 2)
    assert connected.tolist() == expected


def test_noise_does_not_collapse():
    # Small pieces that merge in scan order run into one another until a single superpixel is left.
    clip = np.random.default_rng(0).integers(0, 256, (16, 112, 112, 3), dtype=np.uint8)
    labels = mg.slic(clip, n_segments=120)
    assert labels.max() + 1 > 30
