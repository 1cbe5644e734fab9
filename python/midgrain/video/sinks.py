"""Where explained frames go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from midgrain.video.file_sink import VideoSink
from midgrain.video.frames import DrawnFrame, ExplainedFrame
from midgrain.video.sources.base import Source

__all__ = ["Sink", "open_sink"]


@runtime_checkable
class Sink(Protocol):
    """Takes frames in order, from one thread. Where it has `complaints`, a list of texts, they are read at the end."""

    def write(self, frame: Any) -> object:
        """Take the next frame: a `DrawnFrame`, or an `ExplainedFrame` of a stream with `draw=False`."""
        ...

    def close(self) -> object:
        """No more frames come, for whatever reason. Called once."""
        ...


class _Calls:
    """A sink of a function."""

    def __init__(self, take: Any):
        self._take = take

    def write(self, frame: DrawnFrame | ExplainedFrame) -> None:
        """Hand it over."""
        self._take(frame)

    def close(self) -> None:
        """Nothing to be done."""


def open_sink(sink: Any, source: Source, *, audio: bool = True) -> Sink | None:
    """What `explain_stream` was given, as a sink.

    Args:
        sink: the path of a video file, a callable, a list (anything with `append`), a `Sink`, or None.
        source: whose times and sound a file gets.
        audio: False leaves the sound out.

    Raises:
        TypeError, ValueError: none of these; a file of another ending, or the one that is read.
        OSError: it cannot be written.
    """
    if sink is None:
        return None
    if isinstance(sink, str | os.PathLike):
        return VideoSink(Path(sink), source, audio=audio)
    if isinstance(sink, Sink):
        return sink
    if callable(sink):
        return _Calls(sink)
    if callable(getattr(sink, "append", None)):
        return _Calls(sink.append)
    raise TypeError(
        f"sink: expected a path, a callable, a list, an object with write and close, or None, got {type(sink).__name__}"
    )
