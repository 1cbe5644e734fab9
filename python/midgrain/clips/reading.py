"""Clips: some frames of a video file or of a folder of numbered pictures."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from midgrain.clips.timing import Window
from midgrain.clips.video_file import VideoFile
from midgrain.pictures import PICTURE_SUFFIXES, open_picture

__all__ = ["VIDEO_SUFFIXES", "Clip", "frame_files", "is_video", "open_clip"]

#: File name endings taken from a folder.
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".flv", ".gif"})


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of a video.

    Attributes:
        frames: uint8 RGB [T, H, W, 3], upright.
        numbers: which frames of the video they are, counted from 0 on in the order of showing, int64 [T]; a short
            video's last frame, or all of them, come more than once.
        seconds: when each of them begins, the video's first frame at 0, float64 [T]; NaN where a folder's rate is not
            known.
        length: frames in the whole video.
        rate: frames of the clip per second, to play it; None where a folder's rate is not known.
    """

    frames: npt.NDArray[np.uint8]
    numbers: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    length: int
    rate: float | None

    def __len__(self) -> int:
        return len(self.frames)


def open_clip(
    path: str | os.PathLike[str],
    frames: int = 16,
    *,
    rate: float | None = None,
    stride: int | None = None,
    position: str | int = "centre",
    start: float | None = None,
    end: float | None = None,
    short: str = "repeat",
    source_rate: float | None = None,
) -> Clip:
    """Read some frames of a video.

    Only these are kept in memory, and where the file's packets allow it, decoding begins at the keyframe before them;
    the frames are the same as from decoding everything.

    Args:
        path: a video file (whatever FFmpeg reads; of several videos in it the first), or a folder of pictures of one
            size, taken in the order of the numbers in their names.
        frames: T, 1 .. 4096.
        rate: take so many frames per second, as the network was trained: for every moment the frame that is shown
            then, so that a low rate leaves frames out and a high one repeats them. Right for variable rates too.
        stride: instead, take every stride-th frame; 1 where neither is given.
        position: where the window lies: "start", "centre", "end", or the number of its first frame.
        start: use the video from so many seconds on.
        end: and up to there.
        short: a window longer than the video "repeat"s its last frame (as PySlowFast does), "loop"s it from the
            beginning (as I3D and MMAction2 do), or is "refuse"d (torchvision's data sets leave such videos out).
        source_rate: frames per second of a folder of pictures. Where it is not known, `rate` cannot be followed and
            the pictures are taken one by one.

    Returns:
        The clip; `.frames` uint8 [T, H, W, 3] as stored, turned upright as the file says. Pixels that are not square
        stay as they are.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ModuleNotFoundError: PyAV is not installed.
        TypeError, ValueError: an unfit argument; no video, or a broken one; a damaged frame among those wanted; frames
            of several sizes; a `start` or `position` after the end.

    A file that ends earlier than its head says is read as far as it goes, with a warning.

    Example:
        >>> import midgrain.clips as clips
        >>> clip = clips.open_clip("bikes.mp4", 16, rate=15)  # doctest: +SKIP
        >>> clip.frames.shape, clip.seconds[:3]  # doctest: +SKIP
        ((16, 272, 640, 3), array([4.44, 4.52, 4.56]))
    """
    window = Window(frames, rate, stride, position, start, end, short)
    path = Path(path)
    if path.is_dir():
        return _of_folder(path, window, source_rate)
    if source_rate is not None:
        raise ValueError(f"source_rate: expected None for a file, which says itself, got {source_rate}")
    video = VideoFile(path)
    numbers = window.choose(video.seconds)
    found = video.read(sorted({*numbers.tolist()}))
    if found is None:
        video.count_by_decoding()
        numbers = window.choose(video.seconds)
        found = video.read(sorted({*numbers.tolist()}))
        assert found is not None
    if video.complaint:
        warnings.warn(f"clip: {path.name!r} is damaged: {video.complaint}", stacklevel=2)
    return _clip(found, numbers, video.seconds, window)


def is_video(path: str | os.PathLike[str]) -> bool:
    """Does the name end like a video's, or is it a folder of frames?"""
    path = Path(path)
    return path.suffix.lower() in VIDEO_SUFFIXES or path.is_dir()


def frame_files(folder: Path) -> list[Path]:
    """A folder's pictures in the order of the numbers in their names: frame-2 before frame-10.

    Raises:
        ValueError: it holds none.
    """
    files = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()]
    if not files:
        raise ValueError(f"clip: the folder {str(folder)!r} holds no pictures")
    return sorted(files, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _of_folder(folder: Path, window: Window, source_rate: float | None) -> Clip:
    if source_rate is not None:
        Window(rate=source_rate)  # The same check.
    files = frame_files(folder)
    if source_rate is None:
        if window.start is not None or window.end is not None:
            raise ValueError("source_rate: expected the pictures' rate where start or end is given, got None")
        single = Window(window.frames, None, window.stride, window.position, short=window.short)
        numbers, seconds = single.choose(np.arange(len(files), dtype=np.float64)), np.full(len(files), np.nan)
    else:
        seconds = np.arange(len(files)) / source_rate
        numbers = window.choose(seconds)
    found: dict[int, npt.NDArray[np.uint8]] = {}
    for number in sorted({*numbers.tolist()}):
        found[number] = np.asarray(open_picture(files[number]))
        first = next(iter(found.values()))
        if found[number].shape != first.shape:
            raise ValueError(
                f"clip: expected frames of one size in {str(folder)!r}, got {first.shape[1]} x {first.shape[0]} and, "
                f"in {files[number].name!r}, {found[number].shape[1]} x {found[number].shape[0]}"
            )
    return _clip(found, numbers, seconds, window)


def _clip(
    found: Mapping[int, npt.NDArray[np.uint8]],
    numbers: npt.NDArray[np.int64],
    seconds: npt.NDArray[np.float64],
    window: Window,
) -> Clip:
    chosen: Sequence[int] = numbers.tolist()
    stacked = np.stack([found[number] for number in chosen])
    rate = window.rate
    if rate is None or np.isnan(seconds[0]):
        lasts = float(seconds[-1] - seconds[0])
        rate = round((len(seconds) - 1) / lasts / (window.stride or 1), 6) if lasts > 0 else window.rate
    return Clip(stacked, numbers, seconds[numbers], len(seconds), rate)
