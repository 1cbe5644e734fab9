"""The sound of one file, into another one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from midgrain.clips.video_file import av_module, open_reason

__all__ = ["Soundtrack"]

# Containers and what they take, beyond what FFmpeg would let them; and what sound is encoded as where it must be.
_TAKES = {
    "mp4": frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}),
    "webm": frozenset({"opus", "vorbis"}),
    "matroska": None,
}
_ENCODERS = {"mp4": "aac", "webm": "libopus", "matroska": "aac"}
_RATES = {"libopus": 48000}
# Seconds by which sound begins before the picture where encoders only fill their buffers.
_PRIMING = 0.1


class Soundtrack:
    """Copies the first sound of a file, as far as the picture has come.

    Attributes:
        offset: seconds by which the picture has to begin later, because the sound begins before it.
    """

    @staticmethod
    def open(path: Path, origin: float, target: Any, complaints: list[str]) -> Soundtrack | None:
        """The sound of `path`, to be written into a PyAV container that has not begun; None where there is none.

        Args:
            path: where the sound is.
            origin: the first picture's time by this file's clock, seconds.
            target: the container.
            complaints: gets why there is no sound although there should be.
        """
        av = av_module()
        try:
            container = av.open(str(path), metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            complaints.append(f"the sound of {path.name} cannot be read ({open_reason(error)})")
            return None
        try:
            if container.streams.audio:
                return Soundtrack(container, container.streams.audio[0], origin, target, complaints, path.name)
        except (av.error.FFmpegError, ValueError, TypeError, OSError) as error:
            complaints.append(f"the sound of {path.name} cannot be kept ({open_reason(error)})")
        container.close()
        return None

    def __init__(self, container: Any, source: Any, origin: float, target: Any, complaints: list[str], name: str):
        self._av = av_module()
        self._container, self._source, self._target = container, source, target
        self._complaints, self._name = complaints, name
        kind = target.format.name
        taken = _TAKES.get(kind)
        codec = source.codec_context.name if source.codec_context is not None else ""
        self._copied = bool(codec) and (taken is None or codec.removesuffix("float") in taken)
        self._resampler: Any = None
        if self._copied:
            self._stream = target.add_stream_from_template(source)
        else:
            encoder = _ENCODERS[kind]
            rate = _RATES.get(encoder, source.rate)
            self._stream = target.add_stream(encoder, rate=rate)
            self._stream.layout = "stereo" if source.channels > 1 else "mono"
            codec_format = self._stream.codec_context.format
            self._resampler = self._av.AudioResampler(
                format=codec_format or "fltp", layout=self._stream.layout, rate=rate
            )
        begins = float(source.start_time * source.time_base) if source.start_time is not None else origin
        self.offset = origin - begins if begins < origin - _PRIMING else 0.0
        self._shift = self.offset - origin
        self._packets = self._read()
        self._waiting: Any = next(self._packets, None)

    def _read(self) -> Iterator[Any]:
        """Packets with usable times."""
        try:
            for packet in self._container.demux(self._source):
                if packet.size and packet.pts is not None:
                    yield packet
        except self._av.error.FFmpegError as error:
            self._complaints.append(f"the sound of {self._name} breaks off ({open_reason(error)})")

    def copy_until(self, seconds: float) -> None:
        """Everything that is heard before the picture's moment, counted from its first frame."""
        while self._waiting is not None:
            packet = self._waiting
            if float(packet.pts * packet.time_base) + self._shift - self.offset > seconds:
                return
            self._waiting = next(self._packets, None)
            self._put(packet)

    def finish(self, seconds: float) -> None:
        """The rest up to this moment, and what encoders still hold back."""
        self.copy_until(seconds)
        if not self._copied:
            for frame in self._resampler.resample(None):
                self._target.mux(self._stream.encode(frame))
            self._target.mux(self._stream.encode())

    def close(self) -> None:
        """Let go of the file that is read."""
        self._container.close()

    def _put(self, packet: Any) -> None:
        error = self._av.error.FFmpegError
        if self._copied:
            ticks = round(self._shift / float(packet.time_base))
            packet.pts += ticks
            if packet.dts is not None:
                packet.dts += ticks
            packet.stream = self._stream
            self._target.mux(packet)
            return
        try:
            frames = packet.decode()
        except error as refusal:
            complaint = f"some of the sound of {self._name} cannot be decoded ({open_reason(refusal)})"
            if complaint not in self._complaints:
                self._complaints.append(complaint)
            return
        for frame in frames:
            if frame.pts is not None:
                frame.pts = round((float(frame.pts * frame.time_base) + self._shift) / float(frame.time_base))
            for each in self._resampler.resample(frame):
                self._target.mux(self._stream.encode(each))
