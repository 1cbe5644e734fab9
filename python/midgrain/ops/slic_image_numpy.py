"""What `slic_image` does to pictures before they are clustered, for NumPy arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain import _kernels
from midgrain.ops.arrays import as_float32
from midgrain.ops.checks import check_finite
from midgrain.ops.color import GRADIENT_RANGE
from midgrain.ops.slic import slic_numpy as slic
from midgrain.ops.slic_pictures import slic_pictures_numpy as slic_pictures

__all__ = ["UNIT_TOLERANCE", "slic", "slic_pictures", "stack", "unit_rgb"]

#: Floats a little outside 0 .. 1 come from rounding when a normalisation was undone; more is another scale.
UNIT_TOLERANCE = 1e-3


def stack(
    pixels: npt.NDArray[Any], slope: npt.NDArray[Any] | None, weights: list[float]
) -> tuple[npt.NDArray[np.float32], list[float], list[float]]:
    """Features [1, C, ...] of an image that is not converted to Lab, their weights and flattened ranges."""
    channels = len(pixels)
    check_finite(pixels, "image")
    features, per_channel, ranges = (
        [_unit_range(_unit_magnitude(pixels))],
        [weights[0]] * channels,
        [0.0, 1.0] * channels,
    )
    if slope is not None:
        check_finite(slope, "gradient")
        unit = _unit_range(_unit_magnitude(slope).astype(np.float32))
        # A flat gradient says nothing; as a channel it would still change the rounding of the colours.
        if unit.any():
            low, high = GRADIENT_RANGE
            features.append(unit[None] * np.float32(high))
            per_channel.append(weights[1])
            ranges += [low, high]
    return np.concatenate(features)[None], per_channel, ranges


def _unit_range(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Rescaled together to 0 .. 1; all equal gives 0."""
    low, high = values.min(), values.max()
    if high == low:
        return np.zeros(values.shape, np.float32)
    unit: npt.NDArray[np.float32] = ((values - low) / (high - low)).astype(np.float32)
    return unit


def unit_rgb(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """uint8 as it is, uint16 and floats as float32 in 0 .. 1."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image / np.float32(65535)).astype(np.float32)
    if image.dtype.kind != "f":
        raise TypeError(f"image: expected RGB as uint8, uint16 or floats, got dtype {image.dtype}")
    # Through the memory's own order: a view with channels first of one with channels last is not contiguous.
    narrow = image.astype(np.float32, order="K", copy=False)
    found = _kernels.cpu.find_range(as_float32(narrow.ravel(order="K")))
    if found is None:
        raise ValueError("image: expected finite values, got NaN or infinity")
    low, high = found
    if low < -UNIT_TOLERANCE or high > 1 + UNIT_TOLERANCE:
        raise ValueError(
            f"image: expected RGB floats in 0 .. 1, got {low:g} .. {high:g}; scale the image or pass convert2lab=False"
        )
    return narrow


def _unit_magnitude(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The array times a power of two, largest magnitude 0.5 .. 1: differences neither overflow nor vanish."""
    values = array.astype(np.float64)
    _, exponent = math.frexp(max(abs(float(values.min())), abs(float(values.max()))))
    values *= math.ldexp(1.0, min(-exponent, 1000))
    return values
