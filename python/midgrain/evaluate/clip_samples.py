"""Videos of a data set as a network's input: the frames that it sees, and what is known about the object in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from midgrain.clips import Clip, ClipPreprocess, is_video, open_clip
from midgrain.clips.reading import frame_files
from midgrain.evaluate.truth import checked_boxes, checked_mask, read_mask
from midgrain.pictures import PICTURE_SUFFIXES, Preprocess

__all__ = ["PreparedClip", "is_clip", "prepare_clip"]


@dataclass(frozen=True, eq=False)
class PreparedClip:
    """A clip as a network takes it."""

    #: What the preprocessing made of it.
    x: Tensor
    #: Bool [T, h, w], and float64 [n, T, 4] with NaN where a frame does not show an object.
    mask: npt.NDArray[np.bool_] | None
    boxes: npt.NDArray[np.float64] | None


def is_clip(source: object, preprocess: object) -> bool:
    """Is this input of a sample a video that is still to be preprocessed?

    Raises:
        ValueError: a video where pictures are expected, or a picture where clips are.
    """
    if isinstance(source, Tensor | np.ndarray):
        whole = source.dtype == torch.uint8 if isinstance(source, Tensor) else source.dtype == np.uint8
        found = whole and source.ndim == 4
    elif isinstance(source, str | os.PathLike):
        taken = isinstance(preprocess, ClipPreprocess) and Path(source).suffix.lower() not in PICTURE_SUFFIXES
        found = is_video(source) or taken
    else:
        found = isinstance(source, Clip)
    if found and isinstance(preprocess, Preprocess):
        raise ValueError(f"input: the network takes pictures, got the video {_named(source)}")
    if not found and isinstance(preprocess, ClipPreprocess):
        raise ValueError(f"input: the network takes clips, got the picture {_named(source)}")
    return found


def prepare_clip(
    source: Any,
    preprocess: ClipPreprocess | Callable[[Any], Tensor] | None,
    mask: Any,
    boxes: Any,
    *,
    start: float | None = None,
    end: float | None = None,
    source_rate: float | None = None,
) -> PreparedClip:
    """Read the frames that the network sees and preprocess them, with the mask and boxes of the same frames.

    Args:
        source: a path, a `Clip`, or all frames there are, uint8 [T, H, W, 3] or [T, 3, H, W].
        preprocess: a `ClipPreprocess`, or a callable from uint8 [T, H, W, 3]; of files its attributes `frames` (16
            where it has none) and `rate` say which frames.
        mask: see `Sample`.
        boxes: likewise.
        start: seconds; the part of a file that is used.
        end: likewise.
        source_rate: of a folder of frames.

    Raises:
        TypeError, ValueError, OSError: what cannot be read or does not fit.
    """
    if preprocess is None:
        raise ValueError("preprocess: expected one for videos, got None; see midgrain.clips.ClipPreprocess")
    clip = _opened(source, preprocess, start, end, source_rate)
    x = preprocess(clip.frames)
    height, width = clip.frames.shape[1:3]
    known = _frames_of_mask(mask, clip, (height, width))
    placed = _frames_of_boxes(boxes, clip, (width, height))
    if known is None and placed is None:
        return PreparedClip(x, None, None)
    if not isinstance(preprocess, ClipPreprocess):
        raise ValueError(
            "preprocess: expected a midgrain.clips.ClipPreprocess for videos with masks or boxes, so that these can be "
            f"cropped alike, got {type(preprocess).__name__}"
        )
    if known is not None:
        known = preprocess.stencil(known)
    if placed is not None:
        placed = preprocess.placed(placed, (width, height))
        placed = placed[~np.isnan(placed).all((1, 2))]
        if not len(placed):
            raise ValueError("boxes: none of them is in what the network sees")
    return PreparedClip(x, known, placed)


def _named(source: object) -> str:
    return repr(str(source)) if isinstance(source, str | os.PathLike) else f"({type(source).__name__})"


def _opened(source: Any, preprocess: object, start: float | None, end: float | None, source_rate: float | None) -> Clip:
    if isinstance(source, str | os.PathLike):
        frames, rate = getattr(preprocess, "frames", 16), getattr(preprocess, "rate", None)
        return open_clip(source, frames, rate=rate, start=start, end=end, source_rate=source_rate)
    if start is not None or end is not None or source_rate is not None:
        raise ValueError("start: expected start, end and source_rate for files only, got them for frames")
    if isinstance(source, Clip):
        return source
    frames = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
    last, second = frames.shape[-1] == 3, frames.shape[1] == 3
    if last == second or 0 in frames.shape:
        raise ValueError(f"input: expected frames [T, H, W, 3] or [T, 3, H, W], got shape {list(frames.shape)}")
    pixels = np.ascontiguousarray(frames if last else np.moveaxis(frames, 1, -1))
    numbers = np.arange(len(pixels))
    return Clip(pixels, numbers, np.full(len(pixels), np.nan), len(pixels), None)


def _frames_of_mask(mask: Any, clip: Clip, size: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """Bool [T, H, W]: from one mask for all frames, or one for each of the video's."""
    if mask is None:
        return None
    if isinstance(mask, str | os.PathLike) and Path(mask).is_dir():
        files = frame_files(Path(mask))
        if len(files) != clip.length:
            raise ValueError(f"mask: expected a picture for each of {clip.length} frames, got {len(files)}")
        pictures = {number: read_mask(files[number]) for number in sorted({*clip.numbers.tolist()})}
        for number, each in pictures.items():
            if each.shape != size:
                raise ValueError(f"mask: expected {size} pixels in {files[number].name!r}, got {each.shape}")
        return checked_mask(np.stack([pictures[number] for number in clip.numbers.tolist()]), (len(clip), *size))
    values = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else mask
    if isinstance(values, np.ndarray) and values.ndim == 3:
        if len(values) != clip.length:
            raise ValueError(f"mask: expected one for each of {clip.length} frames, got {len(values)}")
        return checked_mask(values[clip.numbers], (len(clip), *size))
    single = checked_mask(values, size)
    assert single is not None
    return np.broadcast_to(single, (len(clip), *size))


def _frames_of_boxes(boxes: Any, clip: Clip, size: tuple[int, int]) -> npt.NDArray[np.float64] | None:
    """Float64 [n, T, 4]: from boxes for all frames, for each of the video's, or by number of a frame."""
    if boxes is None:
        return None
    if isinstance(boxes, Mapping):
        return _listed(boxes, clip, size)
    values = boxes.detach().cpu() if isinstance(boxes, Tensor) else boxes
    try:
        shape = np.asarray(values, dtype=np.float64).shape
    except (TypeError, ValueError) as error:
        raise TypeError(f"boxes: expected numbers x0, y0, x1, y1 for each object, got {boxes!r}") from error
    if len(shape) == 3:
        found = checked_boxes(values, size, clip.length)
        assert found is not None
        seen = found[:, clip.numbers]
        return _some(seen[~np.isnan(seen).all((1, 2))])
    found = checked_boxes(values, size, None)
    assert found is not None
    return np.repeat(found[:, None], len(clip), 1)


def _listed(boxes: Mapping[Any, Any], clip: Clip, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """From frame number -> boxes; frames that are not listed show none."""
    numbered: dict[int, npt.NDArray[np.float64]] = {}
    for key, value in boxes.items():
        text = str(key).strip()
        if not text.isdecimal() or int(text) >= clip.length:
            raise ValueError(f"boxes: expected numbers of frames in 0 .. {clip.length - 1}, got {key!r}")
        if len(value):
            found = checked_boxes(value, size, None)
            assert found is not None
            numbered[int(text)] = found
    most = max(map(len, numbered.values()), default=0)
    result = np.full((most, len(clip), 4), np.nan)
    for place, number in enumerate(clip.numbers.tolist()):
        if number in numbered:
            result[: len(numbered[number]), place] = numbered[number]
    return _some(result[~np.isnan(result).all((1, 2))])


def _some(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if not len(boxes):
        raise ValueError("boxes: none of the frames that the network sees has one")
    return boxes
