"""`midgrain video`: a whole film in, the same film with what the network looked at out."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midgrain.cli import shared
from midgrain.cli.options import (
    Wishes,
    check_alpha,
    check_methods,
    class_number,
    load_network,
)
from midgrain.cli.output import complain, print_json, say

if TYPE_CHECKING:
    from midgrain.video import StreamReport

__all__ = ["video"]

_INTERRUPTED = 130


def video(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A video file, a folder of frames, camera:0, or a URL (rtsp, http, ...). Live ones end with Ctrl-C.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A file ending in .mp4, .mkv or .webm.")],
    model: shared.Model = "demo-clip",
    method: Annotated[str, typer.Option(help="See 'midgrain methods'.")] = "swag-ig",
    target: shared.Target = None,
    alpha: shared.Alpha = 0.5,
    contours: shared.Contours = True,
    side_by_side: shared.SideBySide = False,
    stride: Annotated[
        int | None,
        typer.Option(
            help="Sampled frames by which the window moves; by default half of the window, 1 for pictures' networks."
        ),
    ] = None,
    merge: Annotated[
        str, typer.Option(help="Heat of frames in several windows: mean, centre (the most central one's) or latest.")
    ] = "mean",
    limits: Annotated[str, typer.Option(help="Colours that follow the scores slowly (running), or each window's.")] = (
        "running"
    ),
    audio: Annotated[bool, typer.Option(help="Keep the sound.")] = True,
    source_rate: shared.SourceRate = None,
    layer: shared.Layer = None,
    n_segments: shared.Segments = None,
    option: shared.MethodOptions = None,
    size: shared.Size = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    frames: shared.Frames = None,
    rate: shared.Rate = None,
    device: shared.Device = "auto",
    allow_pickle: shared.AllowPickle = False,
    as_json: shared.Json = False,
) -> None:
    """Explain every frame of a video, or of a camera until Ctrl-C.

    Exit code 1: the video is damaged, what can be decoded is written. 130: interrupted, what was done is written.
    """
    from midgrain.video import NetworkWindows, explain_stream, network_explainer, open_source

    check_methods([method])
    check_alpha(alpha)
    wishes = Wishes.of(option, [method], n_segments=n_segments, layer=layer)
    with open_source(source, rate=source_rate) as opened:
        loaded = load_network(model, device, size, mean, std, layer, frames, rate, allow_pickle=allow_pickle)
        explainer = network_explainer(loaded, method, **wishes.options(method))
        usual = explainer.window // 2 if isinstance(explainer, NetworkWindows) and explainer.window else 1
        with _stopped_by_ctrl_c() as stop:
            report = explain_stream(
                opened,
                explainer,
                output,
                None,
                stride if stride is not None else max(1, usual),
                target=class_number(target, loaded),
                alpha=alpha,
                contours=contours,
                side_by_side=side_by_side,
                merge=merge,
                limits=limits,
                audio=audio,
                stop=stop,
                progress=not as_json,
            )
    _tell(report, source, output, as_json)
    if report.ended == "stopped" and not opened.live:
        sys.exit(_INTERRUPTED)
    if opened.complaints and not opened.live:
        sys.exit(1)


@contextmanager
def _stopped_by_ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one ends the program as always."""
    stop = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        stop.set()

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _tell(report: StreamReport, source: str, output: Path, as_json: bool) -> None:
    for complaint in report.complaints:
        complain(f"{complaint}")
    if as_json:
        print_json({"source": source, "output": str(output) if report.written else None, **report.facts()})
        return
    if not report.written:
        say(f"{source}: {report.ended}, nothing written")
        return
    speed = report.written / report.seconds if report.seconds else 0.0
    dropped = f", {report.dropped} left out" if report.dropped else ""
    ended = "" if report.ended == "end of stream" else f" ({report.ended})"
    made = f"{report.written} frames{dropped}, {report.windows} windows, {speed:.1f} frames/s"
    say(f"{source}: {made}{ended} -> {output}")
