"""A stream explained for whoever opens a page."""

from __future__ import annotations

import atexit
import contextlib
import html
import math
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from midgrain.registry import method_options, methods
from midgrain.video.adapting import window_explainer
from midgrain.video.broadcast import Broadcast
from midgrain.video.choices import Choices
from midgrain.video.image_stream import ImageStream
from midgrain.video.report import StreamReport
from midgrain.video.settings import Controls, Settings
from midgrain.video.sources import Source, open_source
from midgrain.video.stats import StreamStats
from midgrain.video.streaming import explain_stream
from midgrain.video.windows import ClipWindows

if TYPE_CHECKING:
    from midgrain.video.server import PageServer

__all__ = ["LiveStream", "serve"]

_USUAL_WINDOW = 16
_LOOK = 0.2
# What says of a method that it asks the network many times.
_MANY = "batch_size"


class LiveStream:
    """A stream with its page; made by `serve`.

    Attributes:
        controls: the settings, to be read and changed.
        broadcast: the frames as viewers get them.
    """

    def __init__(
        self, source: Source, server: PageServer, broadcast: Broadcast, controls: Controls, stats: StreamStats
    ):
        self.controls = controls
        self.broadcast = broadcast
        self._source = source
        self._server = server
        self._stats = stats
        self._stop = threading.Event()
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The page's address, with the token where one is needed."""
        return self._server.url

    @property
    def token(self) -> str | None:
        """What viewers must know; None where they need nothing."""
        return self._server.token

    @property
    def report(self) -> StreamReport:
        """What became of the stream so far."""
        return self._stats.snapshot()

    @property
    def running(self) -> bool:
        """Whether frames still come."""
        return not self._done.is_set()

    def wait(self, seconds: float | None = None) -> StreamReport:
        """Until the stream ends, or so long.

        Raises:
            Exception: what ended the stream: whatever the source or the explainer raised.
        """
        until = math.inf if seconds is None else time.monotonic() + seconds
        # Not `Thread.join`: interrupted by Ctrl-C, Python 3.11's takes the thread for ended. And in short waits: a
        # signal that another thread was woken for is heard by this one when it wakes.
        while not self._done.wait(max(0.0, min(_LOOK, until - time.monotonic()))) and time.monotonic() < until:
            pass
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self.report

    def close(self) -> StreamReport:
        """End the stream, tell viewers, and close the page; a second time does nothing.

        Raises:
            Exception: see `wait`.
        """
        self._stop.set()
        try:
            return self.wait()
        finally:
            self._server.close("stopped")
            if self._thread is not None:
                self._thread.join()
            atexit.unregister(self._at_exit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            if kind is not None:  # What happened in the `with` is what is to be read.
                stack.enter_context(contextlib.suppress(Exception))
            self.close()

    def __repr__(self) -> str:
        return f"<LiveStream {self.url} {'running' if self.running else self.report.ended}>"

    def _repr_html_(self) -> str:
        """In notebooks: a link."""
        url = html.escape(self.url, quote=True)
        return f'<a href="{url}" target="_blank" rel="noopener">{url}</a>'

    def _start(self, explainer: Any, window: int, stride: int, options: dict[str, Any]) -> Self:
        self._server.start()

        def run() -> None:
            why = "failed"
            try:
                why = explain_stream(
                    self._source,
                    explainer,
                    self.broadcast,
                    window,
                    stride,
                    controls=self.controls,
                    stop=self._stop,
                    stats=self._stats,
                    **options,
                ).ended
            except BaseException as error:
                self._error = error
                why = f"failed: {error}"
            finally:
                self._server.close(why)
                self._done.set()

        self._thread = threading.Thread(target=run, name="midgrain-live", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)
        return self

    def _at_exit(self) -> None:
        # A thread inside a network while the interpreter goes down would end in a crash.
        with contextlib.suppress(Exception):
            self.close()


def serve(
    source: Any,
    explainer: Any,
    port: int = 8000,
    window: int | None = None,
    stride: int = 1,
    *,
    host: str = "127.0.0.1",
    token: str | None = None,
    allowed_hosts: Sequence[str] = (),
    loop: bool = False,
    controls: Controls | None = None,
    title: str | None = None,
    quality: int = 80,
    max_side: int = 1280,
    most_viewers: int = 32,
    preprocess: Any = None,
    labels: Sequence[str] | None = None,
    **options: Any,
) -> LiveStream:
    """Explain a stream, and show it on a page with switches.

    Returns at once; the stream runs in the background until its end, `close`, or the end of a `with`. `wait` waits.
    Files, folders and arrays are played at their own pace.

    Args:
        source: see `open_source`.
        explainer: see `explain_stream`. With a loaded network or a midgrain explainer the page offers all methods.
        port: 0 takes a free one.
        window: frames that are explained together; None takes what the network was trained with, or 16.
        stride: new ones that are waited for at least.
        host: the address to listen at. Others than this machine's own ones ("127.0.0.1", "localhost", "::1") let
            other machines in, and need a token.
        token: what viewers must know; None makes a random one where one is needed.
        allowed_hosts: further names that the page is reached by, as through a reverse proxy.
        loop: begin a file, folder or array again at its end.
        controls: settings to begin with, which may be changed later.
        title: of the page; by default that of the source.
        quality: of the JPEGs, 1 .. 95.
        max_side: pictures with a longer side, in pixels, are shrunk.
        most_viewers: that are let in at a time.
        preprocess: see `explain_stream`.
        labels: class names by index, likewise.
        **options: further ones of `explain_stream`: rate, target (a callable), merge, limits, colormap, batch_size.

    Raises:
        FileNotFoundError: there is no such source.
        ModuleNotFoundError: aiohttp is not installed.
        OSError: the port is busy, or not for this user.
        TypeError, ValueError: an unfit argument.

    Example:
        >>> import urllib.request
        >>> import numpy as np, torch, midgrain as mg
        >>> net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool3d(1),
        ...                           torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> frames = np.zeros((10, 48, 64, 3), np.uint8)
        >>> with mg.video.serve(frames, mg.SWAG(net), port=0, window=4, loop=True) as live:
        ...     with urllib.request.urlopen(live.url) as answer:
        ...         answer.status
        200
    """
    from midgrain.video import PageServer

    controls = controls if controls is not None else Controls()
    if not isinstance(controls, Controls):
        raise TypeError(f"controls: expected midgrain.video.Controls, got {type(controls).__name__}")
    _check_options(options)
    target = options.pop("target", None)
    if isinstance(target, int):
        controls.change(target=target)
        target = None
    windows = window_explainer(explainer, window, preprocess=preprocess, labels=labels, target=target)
    choices = _choices(windows)
    _check_settings(choices, controls.now)
    if window is None:
        window = getattr(windows, "window", None) or _USUAL_WINDOW
    opened = source if isinstance(source, Source) else open_source(source, live=True, loop=loop)
    try:
        broadcast, stats = Broadcast(quality=quality, max_side=max_side), StreamStats()
        server = PageServer(
            broadcast,
            controls,
            stats.snapshot,
            choices,
            host=host,
            port=port,
            token=token,
            allowed_hosts=allowed_hosts,
            title=title if title is not None else opened.name or "midgrain live",
            most_viewers=most_viewers,
        )
        stream = LiveStream(opened, server, broadcast, controls, stats)
        return stream._start(windows, window, stride, options)
    except BaseException:
        opened.close()
        raise


def _choices(windows: Any) -> Choices:
    """What may be chosen with this explainer of windows."""
    if not isinstance(windows, ClipWindows | ImageStream):
        return Choices(getattr(windows, "name", "") or type(windows).__name__)
    known = methods() if windows.switchable else {}
    slow = frozenset(name for name in known if _MANY in method_options(name))
    count = len(windows.labels) if windows.labels is not None else None
    return Choices(windows.method, known, slow, count, windows.labels)


def _check_settings(choices: Choices, settings: Settings) -> None:
    choices.check({name: getattr(settings, name) for name in ("method", "target", "n_segments")})


_OPTIONS = frozenset({"rate", "target", "merge", "limits", "colormap", "batch_size"})


def _check_options(options: dict[str, Any]) -> None:
    """Before anything listens: a misspelt option shall not end a stream that has begun."""
    unknown = options.keys() - _OPTIONS
    if unknown:
        raise TypeError(f"serve: there is no option {', '.join(sorted(unknown))}")
