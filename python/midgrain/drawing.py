"""Heat maps drawn over pictures: arrays in, uint8 arrays out."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["colour_map", "draw_overlay", "region_borders", "resize_nearest"]

Array = npt.NDArray[Any]
_BORDER_COLOUR = np.float32(255.0)
_BORDER_OPACITY = 0.4
# Pixels that are drawn at once.
_BAND = 1 << 14


@functools.lru_cache(16)
def _colour_table(name: str) -> npt.NDArray[np.float32]:
    """The colours of a Matplotlib colour map, RGB 0 .. 255 [n, 3]."""
    from matplotlib import colormaps

    colours = colormaps[name]
    rgb = np.asarray(colours(np.arange(colours.N)))[:, :3]
    return (rgb * 255.0).astype(np.float32)


def colour_map(values: Array, name: str) -> npt.NDArray[np.float32]:
    """Values in 0 .. 1 [...] as RGB 0 .. 255 [..., 3] through a Matplotlib colour map."""
    table = _colour_table(name)
    # As Matplotlib does it: n equal steps, 1 in the last one.
    steps = (np.clip(values, 0.0, 1.0) * len(table)).astype(np.intp)
    return table.take(np.minimum(steps, len(table) - 1), 0)


def region_borders(labels: Array) -> npt.NDArray[np.bool_]:
    """True where the pixel to the right or below belongs to another region: [H, W] -> [H, W]."""
    borders = np.zeros(labels.shape, np.bool_)
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    borders[:-1, :] |= labels[:-1, :] != labels[1:, :]
    return borders


def resize_nearest(array: Array, height: int, width: int) -> Array:
    """[H, W, ...] -> [height, width, ...]; every output pixel takes the input pixel its centre falls in."""
    if array.shape[:2] == (height, width):
        return array
    # Columns first: whole rows are then copied at once.
    return array.take(_nearest(array.shape[1], width), 1).take(_nearest(array.shape[0], height), 0)


def _nearest(source: int, wanted: int) -> npt.NDArray[np.intp]:
    return (2 * np.arange(wanted) + 1) * source // (2 * wanted)


def draw_overlay(
    image: npt.NDArray[np.uint8],
    heat: Array,
    labels: Array | None,
    *,
    alpha: float,
    colormap: str,
) -> npt.NDArray[np.uint8]:
    """Blend a heat map into a picture and draw the regions' borders.

    Args:
        image: uint8 [H, W, 3]; its size is the result's.
        heat: [h, w] in 0 .. 1.
        labels: [h, w] whose borders are drawn, or None.
        alpha: opacity of the heat map, 0 .. 1.
        colormap: a Matplotlib colour map.

    Returns:
        uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    rows = _nearest(heat.shape[0], height)
    weighted = np.float32(alpha) * colour_map(heat, colormap).take(_nearest(heat.shape[1], width), 1)
    borders = None if labels is None else _large_borders(labels, height, width)
    drawn = np.empty(image.shape, np.uint8)
    # Some rows at a time, so that the work stays in the cache.
    step = max(1, _BAND // max(width, 1))
    for top in range(0, height, step):
        bottom = min(top + step, height)
        band = image[top:bottom] * np.float32(1 - alpha)
        band += weighted.take(rows[top:bottom], 0)
        if borders is not None:
            pixels, places = band.reshape(-1, 3), np.flatnonzero(borders[top:bottom])
            pixels[places] = (1 - _BORDER_OPACITY) * pixels.take(places, 0) + _BORDER_OPACITY * _BORDER_COLOUR
        drawn[top:bottom] = np.rint(band, out=band)
    return drawn


def _large_borders(labels: Array, height: int, width: int) -> npt.NDArray[np.bool_]:
    """`region_borders` of labels resized to [height, width], with little work at that size."""
    rows = _nearest(labels.shape[0], height)
    wide = labels.take(_nearest(labels.shape[1], width), 1)
    to_the_right = np.zeros(wide.shape, np.bool_)
    np.not_equal(wide[:, :-1], wide[:, 1:], out=to_the_right[:, :-1])
    borders = to_the_right.take(rows, 0)
    ends = np.flatnonzero(rows[:-1] != rows[1:])  # Below all others is the same row again.
    borders[ends] |= wide.take(rows[ends], 0) != wide.take(rows[ends + 1], 0)
    return borders
