"""Where frames come from: files, folders, arrays, cameras, network streams."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from midgrain.video.sources.arrays import ArraySource, IterableSource
from midgrain.video.sources.base import Source, check_rate
from midgrain.video.sources.files import FolderSource, VideoFileSource
from midgrain.video.sources.network import LiveSource, device_of, is_url
from midgrain.video.sources.playing import PlayedSource

__all__ = ["Source", "open_source"]


def open_source(
    spec: str | os.PathLike[str] | Iterable[Any],
    *,
    live: bool | None = None,
    rate: float | None = None,
    loop: bool = False,
    reconnect: float | None = 60.0,
) -> Source:
    """Open what frames come from.

    Args:
        spec: a video file (whatever FFmpeg reads); a folder of pictures, taken in the order of the numbers in their
            names; an array uint8 [T, H, W, 3]; whatever yields uint8 frames [H, W, 3]; a camera, "camera:0" or
            "/dev/video0"; a URL (rtsp, rtmp, http, udp, tcp, srt). A `Source` is returned as it is.
        live: do frames come by themselves, so that those left too late are dropped? By default cameras and URLs are
            live, but for films that come by HTTP and know how long they are, and nothing else. True plays a file, a
            folder or an array at its own pace, as a camera would; of what yields frames it says that it waits for them
            itself. False reads a URL to its end like a file.
        rate: frames per second of a folder, an array or what yields frames (25 where they are played and nothing
            says otherwise; then the network's rate is not followed), or what a camera is asked for.
        loop: play a live file, folder or array again and again.
        reconnect: seconds for which a lost camera or URL is looked for before the stream ends; None looks for ever.

    Returns:
        A source; iterate over it once, then close it.

    Raises:
        FileNotFoundError: there is no such file, folder or camera.
        ModuleNotFoundError: PyAV is not installed.
        TypeError, ValueError: nothing that frames come from; an option that does not fit it.

    Example:
        >>> import numpy as np
        >>> from midgrain.video import open_source
        >>> source = open_source(np.zeros((5, 48, 64, 3), np.uint8), rate=10)
        >>> [(frame.number, frame.seconds) for frame in source][-1], source.live
        ((4, 0.4), False)
    """
    if isinstance(spec, Source):
        return spec
    if live is not None and not isinstance(live, bool):
        raise TypeError(f"live: expected True, False or None, got {type(live).__name__}")
    if rate is not None:
        rate = check_rate(rate)
    _check_reconnect(reconnect)
    if isinstance(spec, str) and (is_url(spec) or device_of(spec) is not None):
        if loop:
            raise ValueError(f"loop: expected False for {spec}, which does not end")
        if live is False and not is_url(spec):
            raise ValueError(f"live: expected True or None for the camera {spec}")
        return LiveSource(spec, live=live, rate=rate, reconnect=reconnect)
    if not isinstance(spec, str | os.PathLike) and not _is_array(spec):
        if loop:
            raise ValueError("loop: expected False for what yields frames, which is gone through once")
        if not isinstance(spec, Iterable):
            raise TypeError(
                f"source: expected a file, a folder, a URL, a camera, an array or frames, got {type(spec).__name__}"
            )
        if isinstance(spec, dict | set | bytes):
            raise TypeError(f"source: expected frames in order, got {type(spec).__name__}")
        return IterableSource(spec, rate, live=bool(live))
    make = _opener(spec, rate)
    if live:
        return PlayedSource(make, loop=loop)
    if loop:
        raise ValueError("loop: expected live=True with it; what is not live ends")
    return make()


def _opener(spec: Any, rate: float | None) -> Callable[[], Source]:
    if _is_array(spec):
        return lambda: ArraySource(spec, rate)
    path = Path(spec)
    if path.is_dir():
        return lambda: FolderSource(path, rate)
    if rate is not None:
        raise ValueError(f"rate: expected None for a video file, which says itself, got {rate}")
    return lambda: VideoFileSource(path)


def _is_array(spec: object) -> bool:
    return isinstance(spec, np.ndarray) or (hasattr(spec, "ndim") and hasattr(spec, "shape"))


def _check_reconnect(reconnect: object) -> None:
    if reconnect is None:
        return
    if isinstance(reconnect, bool) or not isinstance(reconnect, int | float):
        raise TypeError(f"reconnect: expected seconds or None, got {type(reconnect).__name__}")
    if not reconnect >= 0:
        raise ValueError(f"reconnect: expected 0 or more seconds, got {reconnect}")
