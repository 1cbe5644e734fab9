"""Overlays are what the slow way draws, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps

from midgrain.drawing import colour_map, draw_overlay, region_borders, resize_nearest
from midgrain.video import ExplainedFrame, Frame, Settings, draw_frame


def slow_overlay(image, heat, labels, alpha, colormap):
    height, width = image.shape[:2]

    def place(i, n, of):
        return (2 * i + 1) * of // (2 * n)

    rgb = (np.asarray(colormaps[colormap](heat))[..., :3] * 255.0).astype(np.float32)
    rows = [place(i, height, heat.shape[0]) for i in range(height)]
    columns = [place(j, width, heat.shape[1]) for j in range(width)]
    result = (1 - alpha) * image.astype(np.float32) + alpha * rgb[np.ix_(rows, columns)]
    if labels is not None:
        large = labels[np.ix_(rows, columns)]
        for i in range(height):
            for j in range(width):
                right = j + 1 < width and large[i, j] != large[i, j + 1]
                if right or (i + 1 < height and large[i, j] != large[i + 1, j]):
                    result[i, j] = (1 - 0.4) * result[i, j] + 0.4 * np.float32(255)
    return np.rint(result).astype(np.uint8)


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
    values = np.linspace(0, 1, 3001)
    for name in ("turbo", "viridis", "tab10"):
        np.testing.assert_array_equal(
            colour_map(values, name), (np.asarray(colormaps[name](values))[:, :3] * 255.0).astype(np.float32)
        )
    np.testing.assert_array_equal(colour_map(np.array([-1.0, 2.0]), "turbo"), colour_map(np.array([0.0, 1.0]), "turbo"))


def test_resizing_and_borders() -> None:
    assert resize_nearest(np.array([[0, 1, 2]]), 1, 6).tolist() == [[0, 0, 1, 1, 2, 2]]
    assert region_borders(np.array([[0, 0, 1], [0, 0, 1]])).tolist() == [[False, True, False]] * 2


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
