"""Clips as files that play."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from midgrain.files import write_whole

__all__ = ["CLIP_SUFFIXES", "FILM_SUFFIXES", "find_encoder", "write_clip"]

# Suffix -> FFmpeg's name of the container and encoders in order of preference, each with its options.
_VIDEOS: dict[str, tuple[str, tuple[tuple[str, dict[str, str]], ...]]] = {
    ".mp4": ("mp4", (("libx264", {"crf": "18"}), ("mpeg4", {"qscale": "3"}))),
    ".mkv": ("matroska", (("libx264", {"crf": "18"}), ("mpeg4", {"qscale": "3"}))),
    ".webm": ("webm", (("libvpx-vp9", {"crf": "24", "b": "0"}), ("libvpx", {"crf": "10", "b": "4M"}))),
}
_ANIMATIONS = (".webp", ".gif")
#: File name endings of videos.
FILM_SUFFIXES = (*_VIDEOS,)
#: File name endings that `write_clip` knows.
CLIP_SUFFIXES = (*_VIDEOS, *_ANIMATIONS)


def write_clip(frames: npt.NDArray[np.uint8], path: str | os.PathLike[str], rate: float = 15.0) -> Path:
    """Write frames as a video or an animation, whole or not at all. Returns the path.

    Args:
        frames: uint8 RGB [T, H, W, 3]. Videos have even sides: the last row or column of odd ones is doubled.
        path: the file; its ending says how: .mp4, .mkv, .webm (PyAV: `pip install "midgrain[video]"`), .webp, .gif.
        rate: frames per second, 0.1 .. 1000.

    Raises:
        ModuleNotFoundError: PyAV is not installed.
        TypeError, ValueError: no such frames, rate or ending.
        OSError: it cannot be written.

    Example:
        >>> import numpy as np, tempfile
        >>> from midgrain.clips import write_clip
        >>> frames = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), np.uint8)
        >>> path = write_clip(frames, f"{tempfile.mkdtemp()}/noise.webp", rate=8)
    """
    path = Path(path)
    if path.suffix.lower() not in CLIP_SUFFIXES:
        raise ValueError(f"path: expected a file ending in {', '.join(CLIP_SUFFIXES)}, got {path.name!r}")
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        got = f"dtype {frames.dtype}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise TypeError(f"frames: expected a uint8 array [T, H, W, 3], got {got}")
    if frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"frames: expected shape [T, H, W, 3], got {list(frames.shape)}")
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number):
        raise TypeError(f"rate: expected a number, got {type(rate).__name__}")
    if not math.isfinite(rate) or not 0.1 <= rate <= 1000:
        raise ValueError(f"rate: expected 0.1 .. 1000, got {rate}")
    write = _animation(frames, path, rate) if path.suffix.lower() in _ANIMATIONS else _video(frames, path, rate)
    write_whole(path, write)
    return path


def find_encoder(path: Path) -> tuple[Any, str, str, dict[str, str]]:
    """How a video of this name is written: PyAV, the container's format, the encoder and its options.

    Raises:
        ModuleNotFoundError: PyAV is not installed.
        ValueError: this FFmpeg has none of the encoders.
    """
    try:
        av = importlib.import_module("av")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "clip: the package av is not installed, which writes videos; pip install 'midgrain[video]', or write .webp"
        ) from error
    container_format, encoders = _VIDEOS[path.suffix.lower()]
    usable = [each for each in encoders if each[0] in av.codecs_available]
    if not usable:
        raise ValueError(f"path: this FFmpeg cannot encode {path.suffix} files; write .webp")
    encoder, options = usable[0]
    return av, container_format, encoder, options


def _animation(frames: npt.NDArray[np.uint8], path: Path, rate: float) -> Callable[[IO[bytes]], Any]:
    pictures = [Image.fromarray(frame) for frame in frames]
    # In whole ticks (of 10 ms in GIF), rounded so that the whole lasts as long as it should.
    tick = 10 if path.suffix.lower() == ".gif" else 1
    ends = np.rint(np.arange(len(frames) + 1) * 1000 / rate / tick).astype(int) * tick

    def write(file: IO[bytes]) -> None:
        pictures[0].save(
            file,
            format=path.suffix[1:].upper(),
            save_all=True,
            append_images=pictures[1:],
            duration=np.diff(ends).tolist(),
            loop=0,
            **({"quality": 85} if path.suffix.lower() == ".webp" else {}),
        )

    return write


def _video(frames: npt.NDArray[np.uint8], path: Path, rate: float) -> Callable[[IO[bytes]], Any]:
    av, container_format, encoder, options = find_encoder(path)
    even = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")

    def write(file: IO[bytes]) -> None:
        with av.open(file, "w", format=container_format) as container:
            exact = Fraction(rate).limit_denominator(1001)
            stream = container.add_stream(encoder, rate=exact, options=options)
            stream.height, stream.width = even.shape[1:3]
            stream.pix_fmt = "yuv420p"
            for number, pixels in enumerate(even):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number, 1 / exact
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return write
