"""Explained frames as a video file, with the source's times and sound."""

from __future__ import annotations

import math
import os
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from midgrain.clips.writing import FILM_SUFFIXES, find_encoder
from midgrain.files import check_writable_folder
from midgrain.video.frames import DrawnFrame
from midgrain.video.soundtrack import Soundtrack
from midgrain.video.sources.base import Source

__all__ = ["VideoSink"]

# For frames that come faster than slow presets can follow; the quality is kept, files get a little larger.
_QUICK = {
    "libx264": {"preset": "veryfast"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "6", "row-mt": "1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "6"},
}
_USUAL_RATE = 25.0
# Of the clocks of encoders (MPEG-4's is the coarsest).
_MOST_TICKS = 65535


class VideoSink:
    """Writes drawn frames as .mp4, .mkv or .webm.

    Every frame keeps its time, also where these are irregular. The sound is copied without being encoded again where
    the container takes it, and encoded anew where it does not. The file grows under another name beside its own,
    which it gets in `close`, whatever ended the stream; where no frame came there is none.

    Args:
        path: the file. One that is there is replaced.
        source: gives the clock, the rate and the sound.
        audio: False leaves the sound out.

    Attributes:
        complaints: what could not be kept: sound of a kind that cannot be read, frames of another size.

    Raises:
        ModuleNotFoundError: PyAV is not installed.
        ValueError: another ending, the file that is read, no such folder.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, source: Source, *, audio: bool = True):
        self.path = Path(path)
        self.complaints: list[str] = []
        if self.path.suffix.lower() not in FILM_SUFFIXES:
            raise ValueError(f"sink: expected a file ending in {', '.join(FILM_SUFFIXES)}, got {self.path.name!r}")
        if self.path.is_dir():
            raise ValueError(f"sink: expected a file, but {str(self.path)!r} is a folder")
        check_writable_folder(self.path.parent, "sink")
        if source.audio is not None and self.path.exists() and self.path.samefile(source.audio[0]):
            raise ValueError(f"sink: expected another file than the source, got {str(self.path)!r} for both")
        self._av, self._format, self._encoder, self._options = find_encoder(self.path)
        self._source, self._audio = source, audio
        self._container: Any = None
        self._stream: Any = None
        self._sound: Soundtrack | None = None
        self._temporary: Path | None = None
        self._size = (0, 0)
        self._last = -1
        self._tick = Fraction(1, 1)
        self._resized = False
        self._shown = -1, 0.0

    def write(self, frame: DrawnFrame) -> None:
        """Add a frame.

        Raises:
            OSError: the disc is full, for one.
        """
        pixels = frame.pixels
        if self._container is None:
            self._open(pixels.shape[1], pixels.shape[0])
        explained = frame.explained.frame
        if (pixels.shape[1], pixels.shape[0]) != self._size:
            pixels = self._fitted(pixels, explained.number)
        even = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
        picture = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        # Strictly rising, as containers want it.
        self._last = max(self._last + 1, round(Fraction(explained.seconds + self._offset) / self._tick))
        picture.pts, picture.time_base = self._last, self._tick
        self._container.mux(self._stream.encode(picture))
        self._shown = explained.number, explained.seconds
        if self._sound is not None:
            self._sound.copy_until(explained.seconds)

    def close(self) -> None:
        """End the file with what there is, and give it its name.

        Raises:
            OSError: it cannot be written.
        """
        container, self._container = self._container, None
        if container is None:
            return
        assert self._temporary is not None
        try:
            try:
                container.mux(self._stream.encode())
                if self._sound is not None:
                    self._sound.finish(self._end())
            finally:
                if self._sound is not None:
                    self._sound.close()
                container.close()
            mask = os.umask(0)
            os.umask(mask)
            self._temporary.chmod(0o666 & ~mask)
            self._temporary.replace(self.path)
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise

    def _end(self) -> float:
        """How far the sound goes: to its own end where all frames are there, otherwise as far as they go."""
        if self._source.counted is not None and self._shown[0] == self._source.counted - 1:
            return math.inf
        return self._shown[1]

    def _open(self, width: int, height: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        os.close(handle)
        self._temporary = Path(name)
        self._size = width, height
        rate = Fraction(self._source.rate or _USUAL_RATE).limit_denominator(1001)
        self._tick = self._source.tick or 1 / rate
        if self._encoder == "mpeg4" and self._tick.denominator > _MOST_TICKS:
            self._tick = Fraction(1, _MOST_TICKS)
        try:
            container = self._av.open(name, "w", format=self._format)
            self._container = container
            self._stream = container.add_stream(
                self._encoder, rate=rate, options={**self._options, **_QUICK.get(self._encoder, {})}
            )
            self._stream.width, self._stream.height = width + width % 2, height + height % 2
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = self._tick
            self._offset = 0.0
            if self._audio and self._source.audio is not None:
                self._sound = Soundtrack.open(*self._source.audio, container, self.complaints)
                self._offset = self._sound.offset if self._sound is not None else 0.0
        except BaseException:
            self._container = None
            self._temporary.unlink(missing_ok=True)
            raise

    def _fitted(self, pixels: npt.NDArray[np.uint8], number: int) -> npt.NDArray[np.uint8]:
        """A frame of another size within the first one's, undistorted, the rest black."""
        width, height = self._size
        if not self._resized:
            self._resized = True
            self.complaints.append(
                f"frames change their size at frame {number} from {width} x {height} to {pixels.shape[1]} x "
                f"{pixels.shape[0]}; {self.path.name} keeps the first"
            )
        scale = min(width / pixels.shape[1], height / pixels.shape[0])
        w, h = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
        fitted = np.zeros((height, width, 3), np.uint8)
        top, left = (height - h) // 2, (width - w) // 2
        smaller = Image.fromarray(pixels).resize((w, h), Image.Resampling.BILINEAR)
        fitted[top : top + h, left : left + w] = np.asarray(smaller)
        return fitted
