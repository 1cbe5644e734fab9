"""Dense optical flow between the frames of a clip."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["FlowFunction", "check_flow", "optical_flow"]

#: From frames, uint8 RGB [T, H, W, 3], to where each pixel goes until the next frame: floats [T - 1, H, W, 2], to the
#: right and down, in pixels.
FlowFunction: TypeAlias = Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]


def optical_flow(frames: npt.NDArray[np.uint8], preset: str = "medium") -> npt.NDArray[np.float32]:
    """Optical flow by dense inverse search, OpenCV's `DISOpticalFlow`.

    Args:
        frames: uint8 RGB [T, H, W, 3], two frames or more, of 12 x 12 pixels or more.
        preset: "ultrafast", "fast" or "medium", the most exact.

    Returns:
        Where each pixel of a frame goes until the next one, float32 [T - 1, H, W, 2]: to the right and down, in
        pixels.

    Raises:
        TypeError, ValueError: other frames, another preset.
        ModuleNotFoundError: OpenCV is not installed.

    Source: Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016.

    Example:
        >>> import numpy as np
        >>> from midgrain.video import optical_flow
        >>> ramp = np.sin(np.arange(64)[:, None] / 5) + np.sin(np.arange(80) / 7)
        >>> frames = np.stack([(60 * np.roll(ramp, 2 * t, 1) + 128).astype(np.uint8) for t in range(2)])
        >>> flow = optical_flow(np.repeat(frames[..., None], 3, -1))
        >>> flow.shape, abs(np.median(flow[0, 10:-10, 10:-10], (0, 1))).round().tolist()
        ((1, 64, 80, 2), [2.0, 0.0])
    """
    pixels = _checked_frames(frames)
    presets = ("ultrafast", "fast", "medium")
    if preset not in presets:
        raise ValueError(f"preset: expected one of {', '.join(presets)}, got {preset!r}")
    try:
        cv2 = importlib.import_module("cv2")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "flow: OpenCV is not installed; pip install 'midgrain[flow]', or pass your own function"
        ) from error
    search = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in pixels]
    found = [search.calc(before, after, None) for before, after in itertools.pairwise(grey)]
    return np.stack(found).astype(np.float32)


def check_flow(flow: Any, frames: int, height: int, width: int) -> npt.NDArray[np.float32]:
    """What a flow function returned, float32 [T - 1, H, W, 2]; one flow too many, as some have it, loses its last.

    Raises:
        TypeError: no array of floats.
        ValueError: another shape, NaN or infinity.
    """
    array = np.asarray(flow)
    if array.dtype.kind != "f":
        raise TypeError(f"flow: expected floats, got dtype {array.dtype}")
    wanted = [frames - 1, height, width, 2]
    if list(array.shape) not in (wanted, [frames, *wanted[1:]]):
        raise ValueError(f"flow: expected shape {wanted} or {[frames, *wanted[1:]]}, got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError("flow: expected finite values, got NaN or infinity")
    return array[: frames - 1].astype(np.float32)


def _checked_frames(frames: object) -> npt.NDArray[np.uint8]:
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        got = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
        raise TypeError(f"frames: expected a uint8 array [T, H, W, 3], got {got}")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.shape[0] < 2:
        raise ValueError(f"frames: expected two or more frames [T, H, W, 3], got shape {list(frames.shape)}")
    if min(frames.shape[1:3]) < _LEAST:
        raise ValueError(f"frames: expected {_LEAST} x {_LEAST} pixels or more, got shape {list(frames.shape)}")
    return frames


# Dense inverse search fails below.
_LEAST = 12
