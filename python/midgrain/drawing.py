"""Heat maps drawn over pictures: arrays in, uint8 arrays out."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain._kernels import cpu

__all__ = ["draw_overlay", "overlay_part", "resize_nearest"]

Array = npt.NDArray[Any]


@functools.lru_cache(16)
def _colour_table(name: str) -> npt.NDArray[np.float32]:
    """The colours of a Matplotlib colour map, RGB 0 .. 255 [n, 3]."""
    from matplotlib import colormaps

    colours = colormaps[name]
    rgb = np.asarray(colours(np.arange(colours.N)))[:, :3]
    return (rgb * 255.0).astype(np.float32)


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
        labels: [n, m] whose borders are drawn, or None.
        alpha: opacity of the heat map, 0 .. 1.
        colormap: a Matplotlib colour map.

    Returns:
        uint8 [H, W, 3].
    """
    drawn = np.array(image, order="C")
    overlay_part(drawn, (0, 0, *image.shape[:2]), heat, labels, alpha=alpha, colormap=colormap)
    return drawn


def overlay_part(
    picture: npt.NDArray[np.uint8],
    region: tuple[int, int, int, int],
    heat: Array,
    labels: Array | None,
    *,
    alpha: float,
    colormap: str,
) -> None:
    """`draw_overlay` in place, on a part of a picture whose rows lie one after the other in memory.

    Args:
        picture: uint8 [H, W, 3].
        region: top, left, bottom, right of the part, the last two excluded.
        heat: see `draw_overlay`.
        labels: likewise.
        alpha: likewise.
        colormap: likewise.
    """
    heat = np.ascontiguousarray(heat, None if heat.dtype in (np.float32, np.float64) else np.float32)
    labels = None if labels is None else np.ascontiguousarray(labels, np.int32)
    weighted = np.float32(alpha) * _colour_table(colormap)
    cpu.draw_overlay(picture, region, heat, labels, weighted, 1 - float(alpha))
