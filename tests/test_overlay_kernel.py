"""Heat maps over pictures: the compiled way is the slow one to the last bit, on a part and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midgrain._kernels import _cpu
from oracles.overlay import borders, overlay


def draw(picture, region, heat, labels, colours, keep):
    """What is there afterwards, by the kernel and by the oracle."""
    found, expected = picture.copy(), picture.copy()
    _cpu.draw_overlay(found, region, heat, labels, colours, keep)
    top, left, bottom, right = region
    part = picture[top:bottom, left:right]
    expected[top:bottom, left:right] = overlay(part, heat, labels, colours, keep)
    return found, expected


def test_borders_by_hand() -> None:
    labels = np.array([[0, 0, 1], [0, 2, 1], [0, 2, 1]])
    assert borders(labels).astype(int).tolist() == [[0, 1, 0], [1, 1, 0], [1, 1, 0]]
    assert not borders(np.zeros((1, 1), int)).any()


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize(
    ("size", "cells"),
    [((40, 61), (12, 17)), ((12, 17), (12, 17)), ((9, 8), (12, 17)), ((70, 33), (1, 1)), ((1, 40), (3, 2))],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_pictures(size, cells, dtype) -> None:
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (*size, 3), np.uint8)
    heat = random.random(cells).astype(dtype)
    colours = random.uniform(0, 128, (256, 3)).astype(np.float32)
    labels = random.integers(0, 3, cells, np.int32)
    for shown in (None, labels, labels[:1, :1].copy(), random.integers(0, 3, (2, 5), np.int32)):
        found, expected = draw(picture, (0, 0, *size), heat, shown, colours, 0.5)
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_parts_of_pictures(data) -> None:
    sides = st.integers(1, 40)
    height, width, h, w, n, m = (data.draw(sides) for _ in range(6))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    picture = random.integers(0, 256, (height, width, 3), np.uint8)
    colours = random.uniform(-100, 400, (data.draw(st.integers(1, 300)), 3)).astype(np.float32)
    labels = data.draw(st.sampled_from([None, random.integers(0, 2, (n, m), np.int32)]))
    heat = random.normal(0.5, 0.6, (h, w)).astype(np.float32)
    found, expected = draw(picture, (top, left, bottom, right), heat, labels, colours, data.draw(st.floats(0, 1)))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("instruction_set")
def test_scores_and_values_at_the_edge() -> None:
    colours = np.array([[0.0, 10.0, 1e30], [1.5, 2.5, -3.0], [255.0, 254.5, np.nan]], np.float32)
    heat = np.array([[np.nan, -np.inf, -0.0, 0.0, 1 / 3, 0.5, 1.0, np.nextafter(1, 0), np.inf, 7.0]])
    picture = np.zeros((1, heat.size, 3), np.uint8)
    _cpu.draw_overlay(picture, (0, 0, 1, heat.size), heat, None, colours, 1.0)
    low, middle, high = [0, 10, 255], [2, 2, 0], [255, 254, 0]  # Halves go to the even number.
    assert picture[0].tolist() == [low] * 4 + [middle] * 2 + [high] * 4


BAD = {
    "picture: two channels": ({"picture": np.zeros((4, 5, 2), np.uint8)}, "picture: expected shape"),
    "picture: empty": ({"picture": np.zeros((0, 5, 3), np.uint8)}, "picture: expected sides"),
    "heat: empty": ({"heat": np.zeros((3, 0), np.float32)}, "heat: expected sides"),
    "labels: empty": ({"labels": np.zeros((0, 2), np.int32)}, "labels: expected sides"),
    "colours: none": ({"colours": np.zeros((0, 3), np.float32)}, "colours: "),
    "colours: two": ({"colours": np.zeros((9, 2), np.float32)}, "colours: expected shape"),
    "region: too low": ({"region": (0, 0, 5, 5)}, "region: expected a part of 0 .. 4, got 0 .. 5"),
    "region: too far": ({"region": (0, 0, 4, 6)}, "region: expected a part of 0 .. 5, got 0 .. 6"),
    "region: before": ({"region": (-1, 0, 4, 5)}, "region: "),
    "region: nothing": ({"region": (2, 0, 2, 5)}, "region: "),
    "keep: NaN": ({"keep": float("nan")}, "keep: "),
    "keep: more": ({"keep": 1.5}, "keep: "),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case) -> None:
    given = {
        "picture": np.zeros((4, 5, 3), np.uint8),
        "region": (0, 0, 4, 5),
        "heat": np.zeros((3, 2), np.float32),
        "labels": None,
        "colours": np.zeros((9, 3), np.float32),
        "keep": 0.5,
    }
    changed, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        _cpu.draw_overlay(**{**given, **changed})
