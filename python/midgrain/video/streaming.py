"""Streams explained: every frame of a file, or the newest of a camera."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import Any

from midgrain.driver import Target
from midgrain.progress import progress_bar
from midgrain.video.adapting import window_explainer
from midgrain.video.channels import Channel
from midgrain.video.frames import ExplainedFrame
from midgrain.video.limits import LIMITS
from midgrain.video.report import StreamReport
from midgrain.video.settings import Controls, Settings
from midgrain.video.sinks import Sink, open_sink
from midgrain.video.sliding import MERGES
from midgrain.video.sources import open_source
from midgrain.video.sources.base import check_rate
from midgrain.video.stages import Plan, Stages
from midgrain.video.stats import StreamStats
from midgrain.video.windows import FramesPreprocess

__all__ = ["explain_frames", "explain_stream"]

_MOST_FRAMES = 4096
# Seconds between looks at `stop`.
_LOOK = 0.05


def explain_stream(
    source: Any,
    explainer: Any,
    sink: Any = None,
    window: int | None = 16,
    stride: int = 1,
    *,
    preprocess: FramesPreprocess | None = None,
    rate: float | None = None,
    target: Target = None,
    labels: Sequence[str] | None = None,
    controls: Controls | None = None,
    alpha: float | None = None,
    contours: bool | None = None,
    side_by_side: bool | None = None,
    merge: str = "mean",
    limits: str = "running",
    colormap: str = "turbo",
    draw: bool = True,
    audio: bool = True,
    batch_size: int = 1,
    stop: threading.Event | None = None,
    stats: StreamStats | None = None,
    progress: bool | Callable[[StreamReport], object] = False,
) -> StreamReport:
    """Explain a video while it is read, or a camera while it films.

    Windows of the source's frames are explained; every frame gets heat, is drawn and handed to the sink. Decoding,
    preprocessing, explaining, drawing and writing each have a thread, with bounded queues between them. Of a file
    every frame comes out, in order and at its time; of a live source the newest window is explained and the newest
    frame shown with the newest heat, and frames that come too fast are left out and counted.

    Args:
        source: what `open_source` takes, or a source that it made. It is closed at the end.
        explainer: a midgrain explainer (`mg.SWAG(model)`), a loaded network (`mg.models.load_model("demo-clip")`), any
            callable `(x, target) -> Explanation`, or a `WindowExplainer`, known by its parameters' names `frames` and
            `settings`.
        sink: a file (.mp4, .mkv, .webm); a callable that takes each `DrawnFrame`; a list; an object with `write` and
            `close`; None, which only counts.
        window: sampled frames that are explained together; None takes what the network was trained with.
        stride: sampled frames by which the window moves. Live, so many new ones are waited for at least.
        preprocess: see `ClipWindows`; by default the loaded network's, otherwise torchvision's for clips, for
            `window=1` that for pictures.
        rate: sampled frames per second; by default what the network was trained with, where that is known, and every
            frame otherwise. Frames in between take the nearest sample's heat.
        target: a class for all windows; None means each window's predicted one. A callable picks another score. With
            `controls` a class stands there.
        labels: class names by index.
        controls: settings that may be changed while the stream runs: a method, class or number of superpixels from
            the next window on, the drawing from the next frame on. What the explainer refuses is told among the
            complaints and put back.
        alpha: opacity of the heat, 0 .. 1 (0.5); with `controls` it stands there, like the next two.
        contours: draw superpixel borders (True).
        side_by_side: draw the frame itself beside its explanation (False).
        merge: heat of a frame in several windows is their "mean", that of the most "centre" one, or the "latest" one.
        limits: of the colours: "running" follow the scores over a second or so, "window" are each window's own.
        colormap: a Matplotlib colour map.
        draw: False hands undrawn `ExplainedFrame`s to the sink.
        audio: keep the sound of a file, where the sink is one.
        batch_size: windows that are explained together, where the explainer can do so.
        stop: ends the stream when it is set; what is explained is written.
        stats: gets the figures while the stream runs: `stats.snapshot()` from any thread.
        progress: True draws a bar on stderr; a callable gets the report a few times per second.

    Returns:
        What became of it.

    Raises:
        FileNotFoundError, ModuleNotFoundError: see `open_source`.
        KeyboardInterrupt: after Ctrl-C, when all threads have ended and the sink is closed.
        TypeError, ValueError: an unfit argument; whatever the source, the explainer or the sink raise.

    Example:
        >>> import numpy as np, torch, midgrain as mg
        >>> net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool3d(1),
        ...                           torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> shown = []
        >>> frames = np.zeros((10, 48, 64, 3), np.uint8)
        >>> report = mg.video.explain_stream(frames, mg.SWAG(net), shown, window=4, stride=2)
        >>> report.frames, report.windows, report.written, report.ended, shown[0].pixels.shape
        (10, 4, 10, 'end of stream', (48, 64, 3))
    """
    plan = _plan(
        source,
        explainer,
        sink,
        window=window,
        stride=stride,
        preprocess=preprocess,
        rate=rate,
        target=target,
        labels=labels,
        controls=controls,
        merge=merge,
        limits=limits,
        batch_size=batch_size,
        alpha=alpha,
        contours=contours,
        side_by_side=side_by_side,
        colormap=colormap,
        draw=draw,
        audio=audio,
        stop=stop,
    )
    stats = stats or StreamStats()
    stages = Stages(plan, stats)
    total = plan.source.length
    bar = progress_bar("explaining", total, shown=True, unit="frames") if progress is True else nullcontext()
    with bar as advance:
        written = 0
        try:
            stages.start()
            while not stages.wait(_LOOK):
                if stop is not None and stop.is_set():
                    stages.stop()
                if advance is not None or callable(progress):
                    report = stats.snapshot()
                    if advance is not None:
                        advance(report.written - written)
                    if callable(progress):
                        progress(report)
                    written = report.written
        except BaseException:
            # Ctrl-C, or a failure of `progress` or of a stage: what is explained is written, then all threads end.
            stages.stop()
            with suppress(Exception):
                stages.wait()
            raise
    return stats.snapshot()


def explain_frames(
    source: Any,
    explainer: Any,
    window: int | None = 16,
    stride: int = 1,
    *,
    preprocess: FramesPreprocess | None = None,
    rate: float | None = None,
    target: Target = None,
    labels: Sequence[str] | None = None,
    controls: Controls | None = None,
    merge: str = "mean",
    limits: str = "running",
    batch_size: int = 1,
    stats: StreamStats | None = None,
) -> Iterator[ExplainedFrame]:
    """The same as a generator of explained frames: for notebooks, and for whoever draws by himself.

    Reading ahead goes as far as the queues are long; a live source drops what is not taken in time. Leaving the loop
    early (or `close()`) ends the stream and all of its threads.

    Args: see `explain_stream`.

    Yields:
        Frames in order; `draw_frame` makes pictures of them.

    Raises:
        TypeError, ValueError: see `explain_stream`; all but an unfit argument come out of the loop.

    Example:
        >>> import numpy as np, torch, midgrain as mg
        >>> net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool3d(1),
        ...                           torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> frames = mg.video.explain_frames(np.zeros((10, 48, 64, 3), np.uint8), mg.SWAG(net), 4, 2)
        >>> [each.frame.number for each in frames]
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    hand = _Hand()
    plan = _plan(
        source,
        explainer,
        hand,
        window=window,
        stride=stride,
        preprocess=preprocess,
        rate=rate,
        target=target,
        labels=labels,
        controls=controls,
        merge=merge,
        limits=limits,
        batch_size=batch_size,
        draw=False,
    )
    return _frames(Stages(plan, stats or StreamStats()), hand)


def _frames(stages: Stages, hand: _Hand) -> Iterator[ExplainedFrame]:
    stages.start()
    try:
        yield from hand.channel
        stages.wait()
    finally:
        hand.channel.abort()
        stages.abort()
        stages.wait()


class _Hand:
    """A sink that hands frames to whoever iterates."""

    def __init__(self) -> None:
        self.channel: Channel[ExplainedFrame] = Channel(1)

    def write(self, frame: ExplainedFrame) -> None:
        """Wait until it is taken."""
        self.channel.put(frame)

    def close(self) -> None:
        """The loop ends."""
        self.channel.finish()


def _plan(
    source: Any,
    explainer: Any,
    sink: Any,
    *,
    window: int | None,
    stride: int,
    preprocess: FramesPreprocess | None,
    rate: float | None,
    target: Target,
    labels: Sequence[str] | None,
    controls: Controls | None,
    merge: str,
    limits: str,
    batch_size: int,
    alpha: float | None = None,
    contours: bool | None = None,
    side_by_side: bool | None = None,
    colormap: str = "turbo",
    draw: bool = True,
    audio: bool = True,
    stop: threading.Event | None = None,
) -> Plan:
    """The arguments of a stream, checked; what is opened is closed again where a later one does not fit."""
    for name, value in (("window", window), ("stride", stride), ("batch_size", batch_size)):
        _check_count(value, name, optional=name == "window")
    for name, wanted, allowed in (("merge", merge, MERGES), ("limits", limits, LIMITS)):
        if wanted not in allowed:
            raise ValueError(f"{name}: expected {', '.join(allowed)}, got {wanted!r}")
    if stop is not None and not hasattr(stop, "is_set"):
        raise TypeError(f"stop: expected a threading.Event, got {type(stop).__name__}")
    _check_colormap(colormap)
    if not draw and isinstance(sink, str | os.PathLike):
        raise ValueError(f"draw: expected True for the file {str(sink)!r}")
    controls, target = _controls(controls, target, alpha=alpha, contours=contours, side_by_side=side_by_side)
    runs = window_explainer(explainer, window, preprocess=preprocess, labels=labels, target=target)
    window = window if window is not None else getattr(runs, "window", None)
    if window is None:
        raise ValueError("window: expected a number of frames, as the explainer does not say what it was trained with")
    if rate is not None:
        rate = check_rate(rate)
    opened = open_source(source)
    try:
        if rate is None and (opened.rate is not None or opened.live):
            rate = getattr(runs, "rate", None)
        writes: Sink | None = open_sink(sink, opened, audio=audio)
    except BaseException:
        opened.close()
        raise
    return Plan(
        source=opened,
        explainer=runs,
        sink=writes,
        controls=controls,
        window=window,
        stride=stride,
        rate=rate,
        merge=merge,
        limits=limits,
        batch_size=batch_size,
        draw=draw,
        colormap=colormap,
    )


def _controls(controls: Controls | None, target: Target, **drawing: Any) -> tuple[Controls, Target]:
    """The settings to go by, and a target that they cannot hold."""
    wanted = {name: value for name, value in drawing.items() if value is not None}
    settable = target is None or (isinstance(target, int) and not isinstance(target, bool))
    if settable and target is not None:
        wanted["target"] = target
    if controls is None:
        controls = Controls(Settings(**wanted))
    elif not isinstance(controls, Controls):
        raise TypeError(f"controls: expected midgrain.video.Controls, got {type(controls).__name__}")
    elif wanted:
        raise ValueError(f"{', '.join(wanted)}: expected among the settings of `controls` where these are given")
    return controls, None if settable else target


def _check_count(value: object, name: str, *, optional: bool) -> None:
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if not 1 <= value <= _MOST_FRAMES:
        raise ValueError(f"{name}: expected 1 .. {_MOST_FRAMES}, got {value}")


def _check_colormap(name: object) -> None:
    from matplotlib import colormaps

    if not isinstance(name, str):
        raise TypeError(f"colormap: expected a name, got {type(name).__name__}")
    if name not in colormaps:
        raise ValueError(f"colormap: Matplotlib has no colour map {name!r}")
