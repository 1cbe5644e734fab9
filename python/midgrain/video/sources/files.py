"""Frames of a video file, and of a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np

from midgrain.clips.reading import frame_files
from midgrain.clips.video_file import VideoFile
from midgrain.pictures import open_picture
from midgrain.video.frames import Frame
from midgrain.video.sources.arrays import USUAL_RATE
from midgrain.video.sources.base import Source

__all__ = ["FolderSource", "VideoFileSource"]


class VideoFileSource(Source):
    """Every frame of a video file, in order, at the file's own times.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: PyAV is not installed.
        ValueError: it is no video, or one of which nothing can be decoded.
    """

    def __init__(self, path: Path):
        super().__init__()
        self._video = VideoFile(path)
        self.name = path.name
        seconds = self._video.seconds
        self.length = len(seconds)
        lasts = float(seconds[-1] - seconds[0])
        self.rate = (len(seconds) - 1) / lasts if lasts > 0 else None
        self.tick = self._video.tick
        self.audio = path, self._video.origin
        with closing(self._video.play()) as frames:
            first = next(frames, None)
        if first is None:
            raise ValueError(f"source: no frame of {str(path)!r} can be decoded")
        self.size = first[1].shape[1], first[1].shape[0]

    def __iter__(self) -> Iterator[Frame]:
        number = -1
        with closing(self._video.play(self.complaints)) as frames:
            for number, (seconds, pixels) in enumerate(frames):
                if self.closed:
                    return
                yield self._frame(pixels, number, seconds)
        self.counted = number + 1


class FolderSource(Source):
    """The pictures of a folder, in the order of the numbers in their names.

    Args:
        folder: where they are.
        rate: frames per second.

    Raises:
        ValueError: it holds no pictures, or the first is none.
    """

    def __init__(self, folder: Path, rate: float | None = None):
        super().__init__()
        self._files = frame_files(folder)
        self.name = folder.name
        self.rate, self.length = rate, len(self._files)
        self.tick = 1 / Fraction(rate or USUAL_RATE).limit_denominator(1001)
        self.size = open_picture(self._files[0]).size

    def __iter__(self) -> Iterator[Frame]:
        for number, path in enumerate(self._files):
            if self.closed:
                return
            yield self._frame(np.array(open_picture(path)), number, number / (self.rate or USUAL_RATE))
