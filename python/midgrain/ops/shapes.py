"""Shapes as the kernels take them: always with the three spatial axes z, y, x."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["labels_shape", "triple", "volume"]


def triple(values: Sequence[int]) -> tuple[int, int, int]:
    """One number for each of z, y, x; 1 for a missing z."""
    z, y, x = [1] * (3 - len(values)) + [int(value) for value in values]
    return (z, y, x)


def volume(array: Any, leading: int, trailing: int = 0) -> Any:
    """An array's or tensor's view with the axes z, y, x after the leading ones and before the trailing ones."""
    shape = list(array.shape)
    end = len(shape) - trailing
    return array.reshape(*shape[:leading], -1, *shape[end - 2 : end], *shape[end:])


def labels_shape(images: Any, gradient: Any, channel_axis: int) -> list[int]:
    """The shape of the labels of pictures, gradient maps or both; the pictures' channels lie along axis 1 or -1."""
    if images is None:
        return list(gradient.shape)
    shape = list(images.shape)
    del shape[channel_axis]
    return shape
