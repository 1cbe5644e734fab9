"""A video file's frames by number: an index without decoding, then decoding from the nearest keyframe on."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["VideoFile", "av_module", "open_reason", "upright"]

_INDICES_KEPT = 16


class _NotAsIndexed(Exception):  # noqa: N818 - no error for the user: the file is read another way
    """The decoder gives other frames than the packets promised."""


@dataclass(frozen=True)
class _Index:
    """When frames begin."""

    #: In ticks, rising, int64 [n].
    stamps: npt.NDArray[np.int64]
    #: Numbers of the frames that decoding can begin at; none where it must begin at the first.
    keys: npt.NDArray[np.int64]
    #: Seconds from the first frame on, float64 [n].
    seconds: npt.NDArray[np.float64]
    #: What is not there although the file's head says so.
    missing: float = 0.0
    #: Packets that the decoder refused, as far as it was asked.
    damaged: int = 0
    #: Seconds of a tick, the first frame's time on the file's own clock in seconds.
    tick: Fraction = Fraction(1, 1000)
    origin: float = 0.0
    #: Are the stamps only numbers, for want of times?
    untimed: bool = False


class VideoFile:
    """A video, of which only the frames asked for are kept.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: PyAV is not installed.
        ValueError: it is no video, or one of which nothing can be decoded.
    """

    def __init__(self, path: Path):
        if not path.exists():
            raise FileNotFoundError(f"clip: there is no file {str(path)!r}")
        if not path.is_file():
            raise ValueError(f"clip: {str(path)!r} is not a file")
        self.path = path
        state = path.stat()
        self._key = (str(path.absolute()), state.st_mtime_ns, state.st_size)
        self._decoded = False
        self._index = _packets(*self._key)
        if self._index is None:
            self.count_by_decoding()

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """When each frame begins, the first at 0, rising, [n]."""
        assert self._index is not None
        return self._index.seconds

    @property
    def complaint(self) -> str:
        """What is wrong with the file, as far as that is known; empty where nothing is."""
        assert self._index is not None
        index, complaints = self._index, []
        if index.damaged:
            complaints.append(f"{index.damaged} of its packets cannot be decoded")
        if index.missing:
            complaints.append(f"it ends at {index.seconds[-1]:.2f} s, {index.missing:.2f} s earlier than it says")
        return " and ".join(complaints)

    @property
    def tick(self) -> Fraction:
        """The unit of the file's clock, seconds."""
        assert self._index is not None
        return self._index.tick

    @property
    def origin(self) -> float:
        """When the first frame is shown by the file's own clock, seconds; sound goes by the same one."""
        assert self._index is not None
        return self._index.origin

    def play(self, complaints: list[str] | None = None) -> Generator[tuple[float, npt.NDArray[np.uint8]], None, None]:
        """Every frame that can be decoded, in order, whatever its size; nothing is kept.

        Args:
            complaints: gets what was wrong, at the end.

        Yields:
            Seconds, the first frame's 0, rising; pixels, uint8 [H, W, 3], RGB, upright.
        """
        assert self._index is not None
        index, damaged, count, last = self._index, 0, 0, -np.inf
        refused: list[Any] = []
        with _opened(self.path) as container:
            stream = _stream(container, self.path)
            for frame in _each(container, stream, refused):
                if frame.is_corrupt:
                    damaged += 1
                    continue
                seconds = self._when(frame.pts, count + damaged, stream)
                if seconds is None:
                    continue  # From before the first frame that is to be shown.
                count += 1
                last = seconds if seconds > last else last + float(index.tick)
                yield last, upright(frame, self.path)
        found = [self.complaint] if self.complaint else []
        missing = len(index.seconds) - count
        if missing > 0 and (refused or damaged or not self.complaint):
            found.append(f"{missing} of its {len(index.seconds)} frames cannot be decoded")
        if complaints is not None:
            complaints += found

    def _when(self, stamp: int | None, count: int, stream: Any) -> float | None:
        """When the frame of this time stamp is shown; None where it is not."""
        assert self._index is not None
        stamps, seconds = self._index.stamps, self._index.seconds
        if self._untimed or stamp is None:
            return float(seconds[count]) if count < len(seconds) else float(seconds[-1] + count - len(seconds) + 1)
        try:
            number = _numbered(stamps, stamp)
        except _NotAsIndexed:
            return float((stamp - stamps[0]) * stream.time_base)
        return None if number < 0 else float(seconds[number])

    @property
    def _untimed(self) -> bool:
        """Are there no time stamps to go by, only the order?"""
        assert self._index is not None
        return self._index.untimed

    def count_by_decoding(self) -> None:
        """Look at every frame, where the packets do not tell what there is."""
        self._decoded = True
        self._index = _frames(*self._key)
        if not len(self._index.stamps):
            raise ValueError(f"clip: no frame of {str(self.path)!r} can be decoded")

    def read(self, numbers: Sequence[int]) -> dict[int, npt.NDArray[np.uint8]] | None:
        """Frames by their numbers.

        Args:
            numbers: each once, rising.

        Returns:
            Number -> uint8 [H, W, 3], RGB, upright; None where the file has other frames than its packets promised:
            then `count_by_decoding` and choose again.

        Raises:
            ValueError: a damaged frame, frames of several sizes.
        """
        try:
            return self._read(numbers)
        except _NotAsIndexed:
            if self._decoded:
                raise ValueError(f"clip: {str(self.path)!r} is read differently each time") from None
            return None

    def _read(self, numbers: Sequence[int]) -> dict[int, npt.NDArray[np.uint8]]:
        found: dict[int, npt.NDArray[np.uint8]] = {}
        wanted = set(numbers)
        for number, frame in self._decode(numbers):
            if number not in wanted:
                continue
            if frame.is_corrupt:
                if not self._decoded:  # Perhaps only for want of what came before the keyframe.
                    raise _NotAsIndexed
                raise ValueError(f"clip: frame {number} of {str(self.path)!r} is damaged")
            pixels = upright(frame, self.path)
            first = next(iter(found.values()), pixels)
            if pixels.shape != first.shape:
                raise ValueError(
                    f"clip: expected frames of one size in {str(self.path)!r}, got {first.shape[1]} x {first.shape[0]} "
                    f"and, at frame {number}, {pixels.shape[1]} x {pixels.shape[0]}"
                )
            found[number] = pixels
        if len(found) < len(wanted):
            raise _NotAsIndexed
        return found

    def _decode(self, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Frames with their numbers, up to the last one wanted; stretches without one are jumped over."""
        assert self._index is not None
        stamps, keys = self._index.stamps, self._index.keys
        with _opened(self.path) as container:
            stream = _stream(container, self.path)
            frames = _each(container, stream)
            last = -1
            for target in numbers:
                near = keys[np.searchsorted(keys, target, side="right") - 1] if len(keys) else 0
                if near > last + 1:
                    container.seek(int(stamps[near]), stream=stream, backward=True, any_frame=False)
                    frames, last = _each(container, stream), int(near) - 1
                while last < target:
                    frame = next(frames, None)
                    if frame is None:
                        raise _NotAsIndexed
                    if self._decoded:
                        last += 1
                    else:
                        # After a jump frames from before the keyframe may come first.
                        number = _numbered(stamps, frame.pts)
                        if number <= last:
                            continue
                        if number != last + 1:
                            raise _NotAsIndexed
                        last = number
                    yield last, frame


def _numbered(stamps: npt.NDArray[np.int64], stamp: int | None) -> int:
    if stamp is None:
        raise _NotAsIndexed
    number = int(np.searchsorted(stamps, stamp))
    if number < len(stamps) and stamps[number] == stamp:
        return number
    if number == 0:
        return -1  # Before the first frame that is to be shown.
    raise _NotAsIndexed


def av_module() -> Any:
    """PyAV.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "clip: the package av is not installed, which reads videos; pip install 'midgrain[video]'"
        ) from error


def _opened(path: Path) -> Any:
    av = av_module()
    try:
        return av.open(str(path), metadata_errors="replace")
    except PermissionError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"clip: {str(path)!r} is not a video that can be read ({open_reason(error)})") from error


def open_reason(error: BaseException) -> str:
    """What FFmpeg or the system said, without the path."""
    return str(getattr(error, "strerror", None) or error)


def _stream(container: Any, path: Path) -> Any:
    """The video; pictures of covers are none."""
    cover = av_module().stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise ValueError(f"clip: there is no video in {str(path)!r}")
    streams[0].thread_type = "AUTO"
    # Frames with holes are refused instead of being patched up from their neighbours.
    streams[0].codec_context.options = {"err_detect": "explode"}
    return streams[0]


def _each(container: Any, stream: Any, refused: list[Any] | None = None) -> Iterator[Any]:
    """Decoded frames; packets that cannot be decoded are passed over, and put into `refused`."""
    error = av_module().error.FFmpegError
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except error as refusal:
                if refused is not None:
                    refused.append(refusal)
    except error:  # The end of a file that was cut off.
        return


@functools.lru_cache(_INDICES_KEPT)
def _packets(name: str, _time: int, _size: int) -> _Index | None:
    """What the packets say, which is quick; None where they do not say enough."""
    path = Path(name)
    stamps: list[int] = []
    keys: list[int] = []
    with _opened(path) as container:
        stream = _stream(container, path)
        try:
            for packet in container.demux(stream):
                if not packet.size or packet.is_discard or packet.is_corrupt:
                    continue
                if packet.pts is None:
                    return None
                stamps.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        except av_module().error.FFmpegError:
            pass  # The end of a file that was cut off.
        if not stamps or len(set(stamps)) < len(stamps):
            return None
        rising = np.sort(np.array(stamps, np.int64))
        seconds = _seconds(rising, stream)
        return _Index(
            rising,
            np.searchsorted(rising, np.sort(keys)),
            seconds,
            _missing(container, stream, seconds),
            tick=stream.time_base,
            origin=float(rising[0] * stream.time_base),
        )


@functools.lru_cache(_INDICES_KEPT)
def _frames(name: str, _time: int, _size: int) -> _Index:
    """What the decoder makes of the whole file, of which nothing is kept."""
    path = Path(name)
    refused: list[Any] = []
    with _opened(path) as container:
        stream = _stream(container, path)
        stamps = [frame.pts for frame in _each(container, stream, refused)]
        rising = np.array([stamp for stamp in stamps if stamp is not None], np.int64)
        timed = len(rising) == len(stamps) and bool((np.diff(rising) > 0).all())
        tick, origin = stream.time_base, 0.0
        if timed:
            seconds = _seconds(rising, stream)
            origin = float(rising[0] * tick) if len(rising) else 0.0
        else:
            # Without usable times there is only the order, and the rate that the file claims.
            rising = np.arange(len(stamps))
            rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            seconds, tick = rising / float(rate), 1 / rate
        return _Index(
            rising,
            np.empty(0, np.int64),
            seconds,
            _missing(container, stream, seconds),
            len(refused),
            tick,
            origin,
            not timed,
        )


def _missing(container: Any, stream: Any, seconds: npt.NDArray[np.float64]) -> float:
    """Seconds that the file's head promises and that are not there."""
    promised = 0.0
    if stream.duration:
        promised = float(stream.duration * stream.time_base)
    elif container.duration and len(container.streams) == 1:
        promised = container.duration / 1e6
    if not len(seconds):
        return 0.0
    usual = float(np.diff(seconds).max()) if len(seconds) > 1 else 1.0
    found = float(seconds[-1]) + usual
    # The last frame may be shown for longer than any other.
    return promised - found if promised > found + max(usual, 0.2) else 0.0


def _seconds(stamps: npt.NDArray[np.int64], stream: Any) -> npt.NDArray[np.float64]:
    """Times from the first frame on, exact where the rate is constant and only the ticks are coarse."""
    if not len(stamps):
        return np.empty(0)
    tick = float(stream.time_base)
    seconds = (stamps - stamps[0]) * tick
    numbers = np.arange(len(stamps))
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate:
            regular: npt.NDArray[np.float64] = numbers / float(rate)
            # Both ends are rounded to ticks.
            if (np.abs(regular - seconds) < 0.999 * tick).all():
                return regular
    return np.asarray(seconds, np.float64)


def upright(frame: Any, path: Path | str) -> npt.NDArray[np.uint8]:
    """RGB pixels turned as the file says, uint8 [H, W, 3]."""
    turned = frame.rotation
    if turned % 90:
        raise ValueError(f"clip: expected frames turned by quarters in {str(path)!r}, got {turned} degrees")
    pixels: npt.NDArray[np.uint8] = np.rot90(frame.to_ndarray(format="rgb24"), turned // 90 % 4)
    return np.ascontiguousarray(pixels)
