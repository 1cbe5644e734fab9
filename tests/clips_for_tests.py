"""Videos whose every frame says its number, written with PyAV."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

#: Brightness from one frame to the next.
STEP = 3


def numbered_frames(n: int, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 [n, height, width, 3]: frame i is a level of i * STEP with a white mark at the top left."""
    frames = np.empty((n, height, width, 3), np.uint8)
    frames[:] = (np.arange(n) * STEP % 251)[:, None, None, None]
    frames[:, :8, :16] = 255
    return frames


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    codec: str = "ffv1",
    rate: Fraction | int = 25,
    stamps: Sequence[int] | None = None,
    tick: Fraction | None = None,
    rotation: int = 0,
    audio: bool = False,
    options: dict[str, str] | None = None,
    pixels: str | None = None,
) -> Path:
    """A video in the container of the path's ending; ffv1 keeps every pixel.

    Args:
        path: the file.
        frames: uint8 [H, W, 3] each.
        codec: FFmpeg's name.
        rate: frames per second.
        stamps: when each frame is shown, in ticks; by default one after the other.
        tick: seconds; by default one frame.
        rotation: quarter turns in degrees by which players turn it, of an .mp4 file.
        audio: with a silent track, too.
        options: the encoder's.
        pixels: FFmpeg's pixel format.
    """
    pixels = pixels or {"ffv1": "bgr0", "gif": "rgb8"}.get(codec, "yuv420p")
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(rate), options=options or {})
        stream.pix_fmt = pixels
        if tick is not None:
            stream.codec_context.time_base = tick
        sound: Any = container.add_stream("aac", rate=16000) if audio else None
        for number, each in enumerate(frames):
            if not number:
                stream.height, stream.width = each.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(each), format="rgb24")
            frame.pts = number if stamps is None else stamps[number]
            frame.time_base = tick or 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 16000
            container.mux(sound.encode(silence))
            container.mux(sound.encode())
    if rotation:
        _turn(path, rotation)
    return path


def _turn(path: Path, rotation: int) -> None:
    """Write a matrix into the head of an .mp4 file's track (ISO 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    c, s = {90: (0, 1), 180: (-1, 0), -90: (0, -1)}[rotation]
    one = 1 << 16
    content[place : place + 36] = struct.pack(">9i", c * one, s * one, 0, -s * one, c * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def decoded(path: Path) -> np.ndarray:
    """Every frame by decoding the whole file, as stored, uint8 [n, H, W, 3]."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
