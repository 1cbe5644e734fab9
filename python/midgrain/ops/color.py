"""sRGB to CIELAB."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain import _kernels
from midgrain.ops.arrays import as_float32, as_numpy, contiguous, is_torch, require_dense, wrap_like
from midgrain.ops.checks import check_int
from midgrain.ops.device_arrays import takes_device_arrays

__all__ = ["GRADIENT_RANGE", "LAB_RANGES", "check_picture_shape", "rgb_to_lab", "rgb_to_lab_numpy"]

#: (low, high) of L, a and b over all sRGB colours.
LAB_RANGES: tuple[tuple[float, float], ...] = _kernels.cpu.LAB_RANGES
#: (low, high) of the gradient channel of gradient-augmented SLIC (Thesis 3.4.1.1).
GRADIENT_RANGE: tuple[float, float] = (0.0, 100.0)


@takes_device_arrays("rgb")
def rgb_to_lab(rgb: Any, *, channel_axis: int = 1, num_threads: int | None = None) -> Any:
    """Convert sRGB to CIELAB (D65, 2 degree observer).

    Args:
        rgb: uint8 of 0 .. 255 or floats of 0 .. 1 (clamped), [B, 3, ...] or, with `channel_axis=-1`, [B, ..., 3].
        channel_axis: 1 or -1 (the last).
        num_threads: see `midgrain.ops.slic`.

    Returns:
        float32 [B, 3, ...], channels first always: L in 0 .. 100, a and b in about -108 .. 99. White is
        (100, 0, 0). Within 0.01 of scikit-image, whose matrix has fewer digits.

    Raises:
        TypeError: not an array of uint8 or floats.
        ValueError: not three channels, no pixels, NaN or infinity.

    Example:
        >>> import numpy as np, midgrain as mg
        >>> mg.ops.rgb_to_lab(np.full((1, 3, 2, 2), 255, np.uint8))[0, 0, 0, 0].round(3)
        np.float32(100.0)
    """
    check_int(channel_axis, "channel_axis", -1)
    if is_torch(rgb):
        require_dense(rgb, "rgb")
        from midgrain.ops import torch_library

        return torch_library.rgb_to_lab(rgb, channel_axis, _kernels.check_threads(num_threads))
    return wrap_like(rgb_to_lab_numpy(as_numpy(rgb, "rgb"), channel_axis, num_threads), rgb)


def rgb_to_lab_numpy(rgb: npt.NDArray[Any], channel_axis: int, num_threads: int | None) -> npt.NDArray[np.float32]:
    """`rgb_to_lab` on NumPy arrays."""
    if rgb.dtype != np.uint8 and rgb.dtype.kind != "f":
        raise TypeError(f"rgb: expected uint8 or floats, got dtype {rgb.dtype}")
    check_picture_shape(rgb.shape, channel_axis)
    channels_last = channel_axis != 1
    spatial = rgb.shape[1:-1] if channels_last else rgb.shape[2:]
    items, pixels = rgb.shape[0], int(np.prod(spatial))
    source = contiguous(rgb, np.uint8) if rgb.dtype == np.uint8 else as_float32(rgb)
    source = source.reshape((items, pixels, 3) if channels_last else (items, 3, pixels))
    lab = np.empty((items, 3, pixels), np.float32)
    _kernels.cpu.rgb_to_lab(source, lab, channels_last, _kernels.num_threads(num_threads))
    return lab.reshape(items, 3, *spatial)


def check_picture_shape(shape: tuple[int, ...], channel_axis: int) -> None:
    """Refuses shapes that are no pictures'."""
    if channel_axis not in (1, -1, len(shape) - 1):
        raise ValueError(f"channel_axis: expected 1 or -1, got {channel_axis}")
    if len(shape) < 3 or shape[channel_axis] != 3:
        raise ValueError(f"rgb: expected 3 channels along axis {channel_axis}, got shape {shape}")
    if 0 in shape:
        raise ValueError(f"rgb: expected at least one pixel, got shape {shape}")
