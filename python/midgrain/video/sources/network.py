"""Cameras and network streams, which may vanish and come back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain.clips.video_file import av_module, open_reason, upright
from midgrain.video.frames import Frame
from midgrain.video.sources.arrays import USUAL_RATE
from midgrain.video.sources.base import Source

__all__ = ["LiveSource", "device_of", "is_url"]

_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "http://", "https://", "udp://", "tcp://", "srt://", "rtp://")
# Seconds: for a connection, for the next packet, between tries.
_OPEN_TIMEOUT, _READ_TIMEOUT = 10.0, 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_TICK = Fraction(1, 90000)


def is_url(text: str) -> bool:
    """Is it the address of a stream?"""
    return text.lower().startswith(_SCHEMES)


def device_of(text: str) -> str | None:
    """The file of a camera: "camera:0" and "/dev/video0"; None where it is none.

    Raises:
        ValueError: "camera:" without a number.
    """
    kind, colon, number = text.partition(":")
    if kind == "camera" and colon:
        if not number.isdecimal():
            raise ValueError(f"source: expected camera:NUMBER, like camera:0, got {text!r}")
        return f"/dev/video{int(number)}"
    return text if text.startswith("/dev/video") else None


@dataclass(frozen=True)
class _Address:
    """How PyAV opens it."""

    file: str
    format: str | None
    options: dict[str, str]


class LiveSource(Source):
    """A camera (Video4Linux) or a stream (RTSP, RTMP, HTTP, UDP, ...), decoded by PyAV.

    Frames are decoded as they come; whoever reads too slowly has to leave some out. Where the stream ends, breaks or
    stands still for 5 seconds, it is opened again after a pause of 0.25 seconds, then 0.5, 1, ... up to 8, until it
    has been away for `reconnect` seconds. `close` ends an iteration at its next frame, or after these 5 seconds.

    Args:
        spec: "camera:0", "/dev/video0" or a URL.
        live: False reads a stream like a file: frames wait, its end is the end, and nothing is opened again. None does
            so with what comes by HTTP and knows how long it is: a film that is somewhere else.
        rate: that a camera is asked for; streams have their own.
        reconnect: seconds; 0 gives up at once, None never.

    Raises:
        FileNotFoundError, PermissionError: no such camera, or none that may be used.
        ModuleNotFoundError: PyAV is not installed.
        ValueError: it cannot be opened, or holds no video.
    """

    def __init__(
        self, spec: str, *, live: bool | None = None, rate: float | None = None, reconnect: float | None = 60.0
    ):
        super().__init__()
        self.name, self.tick = spec, _TICK
        self._address = _address(spec, rate)
        self._container: Any = self._open()
        self.live = not _is_film(self._container, spec) if live is None else live
        self._reconnect = reconnect if self.live else 0.0
        stream = _video(self._container, spec)
        self.rate = float(stream.average_rate) if stream.average_rate else rate
        self.size = (stream.width, stream.height) if stream.width and stream.height else None

    def __iter__(self) -> Iterator[Frame]:
        errors = (av_module().error.FFmpegError, OSError)
        number, last, begun = 0, -1.0, time.monotonic()
        try:
            while self._container is not None:
                reason = "it ended"
                first: float | None = None
                try:
                    for pixels, stamp in _decoded(self._container, self.name):
                        if self._closed.is_set():
                            return
                        now = time.monotonic()
                        if number == 0:
                            begun = now
                        if first is None and stamp is not None:
                            # After an interruption the clock on the wall says where the stream goes on.
                            first = stamp - (max(now - begun, last + 1 / (self.rate or USUAL_RATE)) if number else 0.0)
                        seconds = now - begun if stamp is None or first is None else stamp - first
                        last = max(seconds, last + float(_TICK))
                        yield self._frame(pixels, number, last)
                        number += 1
                except errors as error:
                    reason = open_reason(error)
                self._shut()
                if self.live:
                    self._again(reason)
                elif reason != "it ended":
                    self.complaints.append(f"{self.name} broke off: {reason}")
        finally:
            self._shut()

    def _again(self, reason: str) -> None:
        """Open it again, with growing pauses."""
        lost_at, pause = time.monotonic(), _FIRST_PAUSE
        self.complaints.append(f"{self.name} was lost: {reason}")
        while not self.closed:
            if self._reconnect is not None and time.monotonic() - lost_at + pause > self._reconnect:
                self.lost = True
                return
            if self._closed.wait(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                self._container = self._open()
                self.reconnects += 1
                return
            except (ValueError, OSError):
                self._shut()

    def _open(self) -> Any:
        av = av_module()
        address = self._address
        try:
            container = av.open(
                address.file,
                format=address.format,
                options=address.options,
                timeout=(_OPEN_TIMEOUT, _READ_TIMEOUT),
                metadata_errors="replace",
            )
        except (FileNotFoundError, PermissionError) as error:
            if address.format is None:
                raise ValueError(f"source: {self.name} cannot be opened ({open_reason(error)})") from error
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else PermissionError
            raise kind(
                f"source: there is no camera that may be used at {address.file} ({open_reason(error)})"
            ) from error
        except (av.error.FFmpegError, OSError) as error:
            raise ValueError(f"source: {self.name} cannot be opened ({open_reason(error)})") from error
        try:
            _video(container, self.name)
        except ValueError:
            container.close()
            raise
        return container

    def _shut(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()


def _address(spec: str, rate: float | None) -> _Address:
    device = device_of(spec)
    if device is not None:
        return _Address(device, "video4linux2", {} if rate is None else {"framerate": f"{rate:g}"})
    # Microseconds of the stream that are looked at before the first frame is shown; by default it is 5 seconds.
    options = {"analyzeduration": "1000000"}
    if spec.lower().startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    return _Address(spec, None, options)


def _is_film(container: Any, spec: str) -> bool:
    """Does it come by HTTP and know how long it is? Of play lists the size says nothing."""
    listed = container.format.name in ("hls", "dash")
    return spec.lower().startswith("http") and bool(container.duration or (container.size > 0 and not listed))


def _video(container: Any, name: str) -> Any:
    streams = container.streams.video
    if not streams:
        raise ValueError(f"source: there is no video in {name}")
    return streams[0]


def _decoded(container: Any, name: str) -> Iterator[tuple[npt.NDArray[np.uint8], float | None]]:
    """Frames with their time stamps in seconds; packets that cannot be decoded are passed over."""
    av = av_module()
    stream = _video(container, name)
    # Frame threads would hold back as many frames as there are cores.
    stream.thread_type = "SLICE"
    broken: Exception | None = None
    packets = container.demux(stream)
    while broken is None:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            # What the decoder holds back is shown before that is told.
            broken, packet = error, av.Packet()
            packet.stream = stream
        if packet is None:
            return
        try:
            frames = packet.decode()
        except (av.error.InvalidDataError, av.error.EOFError):
            continue
        for frame in frames:
            if not frame.is_corrupt:
                yield upright(frame, name), None if frame.pts is None else float(frame.pts * stream.time_base)
    raise broken
