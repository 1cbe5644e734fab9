"""Masks and boxes of a sample, checked: where its object is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

__all__ = ["boxes_around", "checked_boxes", "checked_mask", "inside_boxes", "read_mask"]

# Modes of PIL whose pixels are numbers of objects, or levels.
_LEVELS = ("1", "L", "P", "I", "I;16")


def checked_mask(mask: Any, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
    """A mask as truth values of this shape; None stays None.

    Raises:
        TypeError, ValueError, OSError: no mask, of another shape, or background only.
    """
    if mask is None:
        return None
    if isinstance(mask, str | os.PathLike):
        values = read_mask(Path(mask))
    elif isinstance(mask, Tensor | np.ndarray):
        values = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else mask
    else:
        raise TypeError(f"mask: expected a tensor, an array or a path, got {type(mask).__name__}")
    if values.dtype.kind not in "biuf":
        raise TypeError(f"mask: expected truth values or numbers, got dtype {values.dtype}")
    if values.shape != shape:
        raise ValueError(f"mask: expected shape {list(shape)}, one value per pixel, got {list(values.shape)}")
    found: npt.NDArray[Any] = np.not_equal(values, 0)
    if not found.any():
        raise ValueError("mask: expected an object, got background only")
    return np.asarray(found, bool)


def read_mask(path: Path) -> npt.NDArray[Any]:
    """A mask's picture as numbers [H, W], of one with a palette the indices; of a coloured one black is 0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture.
    """
    if not path.is_file():
        raise FileNotFoundError(f"mask: there is no file {str(path)!r}")
    try:
        with Image.open(path) as opened:
            if opened.mode in _LEVELS:
                return np.asarray(opened)
            # The greatest of the three, which is 0 for black alone.
            brightest: npt.NDArray[Any] = np.asarray(opened.convert("RGB")).max(-1)
            return brightest
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"mask: {str(path)!r} is not a picture that can be read ({error})") from error


def checked_boxes(boxes: Any, size: tuple[int, int], frames: int | None) -> npt.NDArray[np.float64] | None:
    """Boxes as float64 [n, 4], of clips [n, T, 4] with NaN in frames without the object; None stays None.

    Args:
        boxes: x0, y0, x1, y1 in pixels, of one object or of several.
        size: (width, height) that they lie in.
        frames: T, None for a picture.

    Raises:
        TypeError, ValueError: no boxes, empty ones, or outside.
    """
    if boxes is None:
        return None
    try:
        values = np.asarray(boxes.detach().cpu() if isinstance(boxes, Tensor) else boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"boxes: expected numbers x0, y0, x1, y1 for each object, got {boxes!r}") from error
    wanted = ["n", 4] if frames is None else ["n", frames, 4]
    if values.ndim == len(wanted) - 1 and list(values.shape) == wanted[1:]:
        values = values[None]
    if values.ndim != len(wanted) or 0 in values.shape or list(values.shape[1:]) != wanted[1:]:
        raise ValueError(f"boxes: expected shape [{', '.join(map(str, wanted))}], got {list(values.shape)}")
    known = values.reshape(-1, 4)
    if frames is not None:
        known = known[~np.isnan(known).all(-1)]
        if np.isnan(values).all((1, 2)).any():
            raise ValueError("boxes: expected a box in at least one frame for each object, got none")
    limits = np.array(size, np.float64)
    if not np.isfinite(known).all() or (known[:, :2] < 0).any() or (known[:, 2:] > limits).any():
        raise ValueError(f"boxes: expected x0, y0, x1, y1 inside {size[0]} x {size[1]} pixels, got {known.tolist()}")
    if (known[:, 2:] <= known[:, :2]).any():
        raise ValueError(f"boxes: expected x0 < x1 and y0 < y1, got {known.tolist()}")
    return values


def inside_boxes(boxes: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The pixels whose centre is in one of the boxes, bool [*shape].

    Raises:
        ValueError: there is none.
    """
    rows, columns = np.arange(shape[-2])[:, None] + 0.5, np.arange(shape[-1]) + 0.5
    x0, y0, x1, y1 = (boxes[..., side, None, None] for side in range(4))
    covered = np.asarray(((columns > x0) & (columns < x1) & (rows > y0) & (rows < y1)).any(0))
    if not covered.any():
        raise ValueError("boxes: smaller than a pixel of what the network sees")
    return covered


def boxes_around(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The tightest box around a mask [H, W], [1, 4]; of a clip's [T, H, W] in each frame, [1, T, 4]."""
    if mask.ndim == 3:
        return np.concatenate([boxes_around(frame) for frame in mask])[None]
    if not mask.any():
        return np.full((1, 4), np.nan)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float64)
