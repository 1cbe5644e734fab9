"""Heat maps drawn over pictures: arrays in, uint8 arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["colour_map", "draw_overlay", "region_borders", "resize_nearest"]

Array = npt.NDArray[Any]
_BORDER_COLOUR = np.array([255, 255, 255], np.float32)
_BORDER_OPACITY = 0.4


def colour_map(values: Array, name: str) -> npt.NDArray[np.float32]:
    """Values in 0 .. 1 [...] as RGB 0 .. 255 [..., 3] through a Matplotlib colour map."""
    from matplotlib import colormaps

    rgb = np.asarray(colormaps[name](np.clip(values, 0.0, 1.0)))[..., :3]
    return (rgb * 255.0).astype(np.float32)


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
    rows = (2 * np.arange(height) + 1) * array.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * array.shape[1] // (2 * width)
    result: Array = array[rows[:, None], columns[None, :]]
    return result


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
    colours = resize_nearest(colour_map(heat, colormap), height, width)
    result = (1 - alpha) * image.astype(np.float32) + alpha * colours
    if labels is not None:
        borders = region_borders(resize_nearest(labels, height, width))
        result[borders] = (1 - _BORDER_OPACITY) * result[borders] + _BORDER_OPACITY * _BORDER_COLOUR
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)
