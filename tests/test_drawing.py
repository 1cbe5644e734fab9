"""Overlays are what the slow way draws, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps

from midgrain.drawing import draw_overlay, resize_nearest
from midgrain.video import ExplainedFrame, Frame, Settings, draw_frame
from oracles.overlay import overlay


def slow_overlay(image, heat, labels, alpha, colormap):
    """By Matplotlib's own colours: one for each pixel."""
    colours = (np.asarray(colormaps[colormap](heat))[..., :3] * 255.0).astype(np.float32)
    numbers = (np.arange(heat.size).reshape(heat.shape) + 0.5) / heat.size
    return overlay(image, numbers, labels, np.float32(alpha) * colours.reshape(-1, 3), 1 - alpha)


@pytest.mark.parametrize("size", [(40, 30, 12, 17), (12, 17, 12, 17), (9, 8, 12, 17), (700, 30, 6, 5), (1, 40, 3, 2)])
@pytest.mark.parametrize(("alpha", "colormap"), [(0.5, "turbo"), (0.3, "viridis"), (0.0, "jet"), (1.0, "tab10")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_overlays(size, alpha, colormap, dtype) -> None:
    height, width, h, w = size
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    heat = random.random((h, w)).astype(dtype)
    heat.flat[:3] = 0.0, 1.0, 0.5
    labels = random.integers(0, 3, (h, w)).astype(np.int32)
    for borders in (None, labels):
        found = draw_overlay(image, heat, borders, alpha=alpha, colormap=colormap)
        np.testing.assert_array_equal(found, slow_overlay(image, heat, borders, alpha, colormap))


def test_colours_are_matplotlib_s() -> None:
    values = np.linspace(0, 1, 3001)[None]
    black = np.zeros((*values.shape, 3), np.uint8)
    for name in ("turbo", "viridis", "tab10"):
        found = draw_overlay(black, values, None, alpha=1.0, colormap=name)
        expected = (np.asarray(colormaps[name](values))[..., :3] * 255.0).astype(np.float32)
        np.testing.assert_array_equal(found, np.rint(expected).astype(np.uint8))


def test_resizing() -> None:
    assert resize_nearest(np.array([[0, 1, 2]]), 1, 6).tolist() == [[0, 0, 1, 1, 2, 2]]


def test_pictures_and_labels_of_other_layouts() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (40, 30, 3), np.uint8)
    heat, labels = random.random((4, 5), np.float32), random.integers(0, 3, (4, 5))
    before = image.copy()
    expected = draw_overlay(image, heat, labels.astype(np.int32), alpha=0.5, colormap="turbo")
    np.testing.assert_array_equal(image, before)
    image.flags.writeable = False
    np.testing.assert_array_equal(draw_overlay(image, heat, labels, alpha=0.5, colormap="turbo"), expected)
    turned = draw_overlay(image[::-1, ::-1], heat[::-1, ::-1], None, alpha=0.5, colormap="turbo")
    plain = draw_overlay(image, heat, None, alpha=0.5, colormap="turbo")
    np.testing.assert_array_equal(turned[::-1, ::-1], plain)
    half = draw_overlay(image, heat.astype(np.float16), None, alpha=0.5, colormap="turbo")
    assert np.abs(half.astype(int) - plain).max() <= 4


def test_a_frame_is_drawn_where_the_network_looked() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (30, 40, 3), np.uint8)
    heat = random.normal(size=(8, 8)).astype(np.float32)
    segments = (np.arange(64).reshape(8, 8) // 16).astype(np.int32)
    frame = ExplainedFrame(Frame(pixels, 0, 0.0, 0.0), heat, (5.2, 0.0, 34.8, 30.0), segments, (-1.0, 1.0))
    drawn = draw_frame(frame, Settings(alpha=0.7)).pixels
    scaled = np.clip((heat + 1) / 2, 0, 1)
    np.testing.assert_array_equal(drawn[:, :5], pixels[:, :5])
    np.testing.assert_array_equal(drawn[:, 35:], pixels[:, 35:])
    expected = draw_overlay(pixels[:, 5:35], scaled, segments, alpha=0.7, colormap="turbo")
    np.testing.assert_array_equal(drawn[:, 5:35], expected)
    plain = draw_frame(frame, Settings(alpha=0.7, contours=False)).pixels
    assert (plain != drawn).any()
    both = draw_frame(frame, Settings(alpha=0.7, side_by_side=True)).pixels
    np.testing.assert_array_equal(both, np.concatenate([pixels, drawn], 1))
    np.testing.assert_array_equal(draw_frame(ExplainedFrame(frame.frame)).pixels, pixels)
    flat = ExplainedFrame(frame.frame, heat, (0.0, 0.0, 40.0, 30.0), None, (1.0, 1.0))
    assert len(np.unique(draw_frame(flat, Settings(alpha=1.0)).pixels.reshape(-1, 3), axis=0)) == 1
    tiny = ExplainedFrame(frame.frame, heat, (39.9, 29.9, 40.0, 30.0), None, (0.0, 1.0))
    assert draw_frame(tiny).pixels.shape == pixels.shape
