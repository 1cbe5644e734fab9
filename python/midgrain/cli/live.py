"""`midgrain live`: a camera, a URL or a film explained on a page with switches."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
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
from midgrain.cli.output import complain, console, errors, print_json, say

if TYPE_CHECKING:
    from midgrain.video import LiveStream, StreamReport

__all__ = ["live"]

_TOKEN = "MIDGRAIN_TOKEN"
_PAUSE = 0.5


def live(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="camera:0, a URL (rtsp, http, ...), or a video file or folder of frames, played at its own pace.",
        ),
    ],
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="The address to listen at. 0.0.0.0 lets other machines in, and needs a token.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            envvar=_TOKEN,
            show_envvar=False,
            help=f"What viewers must know [env: {_TOKEN}]; by default a random one where one is needed.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name that the page is reached by, as through a reverse proxy; several times."),
    ] = None,
    model: shared.Model = "demo-clip",
    method: Annotated[str, typer.Option(help="To begin with; see 'midgrain methods'.")] = "swag-ig",
    target: shared.Target = None,
    loop: Annotated[bool, typer.Option(help="Play a file or folder again and again.")] = True,
    alpha: shared.Alpha = 0.5,
    contours: shared.Contours = True,
    side_by_side: shared.SideBySide = False,
    stride: Annotated[int, typer.Option(help="New sampled frames that a window waits for at least.")] = 1,
    quality: Annotated[int, typer.Option(help="Of the page's JPEGs, 1 to 95.")] = 80,
    max_side: Annotated[int, typer.Option(help="Larger pictures are shrunk for the page.")] = 1280,
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
    """Explain a stream on a page, http://127.0.0.1:8000, until Ctrl-C.

    Exit code 0: the stream ended or was stopped. 1: the source was lost.
    """
    from midgrain.video import Controls, Settings, network_explainer, serve

    check_methods([method])
    check_alpha(alpha)
    # Ctrl-C while the network is loaded ends the program like any other; from here on it ends the stream.
    wishes = Wishes.of(option, [method], layer=layer)
    _check_port(host, port)
    with _opened(source, source_rate, loop) as opened, _terminated_like_interrupted():
        loaded = load_network(model, device, size, mean, std, layer, frames, rate, allow_pickle=allow_pickle)
        settings = Settings(None, class_number(target, loaded), n_segments, alpha, contours, side_by_side)
        served = serve(
            opened,
            network_explainer(loaded, method, **wishes.options(method)),
            port,
            None,
            stride,
            host=host,
            token=token,
            allowed_hosts=allow_host or (),
            controls=Controls(settings),
            title=f"{source}, {model}",
            quality=quality,
            max_side=max_side,
        )
        # Not `with`: the report is wanted after Ctrl-C, too.
        try:
            with contextlib.suppress(KeyboardInterrupt):
                _announce(served, as_json)
                _watch(served, as_json)
        finally:
            report = served.close()
    _tell(report, source, served.url, as_json)
    if report.ended == "source lost":
        raise typer.Exit(1)


def _check_port(host: str, port: int) -> None:
    """Before a network is loaded: raises OSError where the port is busy."""
    from midgrain.video import Broadcast, Controls, PageServer, StreamReport

    with PageServer(Broadcast(), Controls(), StreamReport, host=host, port=port):
        pass


@contextlib.contextmanager
def _opened(source: str, rate: float | None, loop: bool) -> Iterator[Any]:
    from midgrain.video import open_source

    # A camera or a URL does not end; others are files.
    is_file = os.path.exists(source) and not source.startswith("/dev/")
    with open_source(source, live=True, rate=rate, loop=loop and is_file) as opened:
        yield opened


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """What stops services, SIGTERM, is Ctrl-C."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # Not the main thread.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _announce(served: LiveStream, as_json: bool) -> None:
    out = errors if as_json else console
    out.print(f"{served.url}  (Ctrl-C ends it)", highlight=False, markup=False, soft_wrap=True)
    if served.token is not None:
        out.print("Whoever has this address sees the stream; it is not encrypted.", highlight=False, soft_wrap=True)


def _watch(served: LiveStream, as_json: bool) -> None:
    """Until the stream ends, with a line of figures where somebody reads it."""
    if as_json or not errors.is_terminal:
        served.wait()
        return
    with errors.status("waiting for the first frame") as status:
        while served.running:
            time.sleep(_PAUSE)
            status.update(_line(served))
    served.wait()


def _line(served: LiveStream) -> str:
    report, viewers = served.report, served.broadcast.viewers
    latency = f", {1000 * report.latency.p50:.0f} ms late" if report.latency.count else ""
    speed = f"{report.rate:.1f} frames/s{latency}, {report.windows} windows, {report.dropped} dropped"
    return f"{speed}, {viewers} viewer{'' if viewers == 1 else 's'}"


def _tell(report: StreamReport, source: str, url: str, as_json: bool) -> None:
    for complaint in report.complaints:
        complain(f"{complaint}")
    if as_json:
        print_json({"source": source, "url": url.partition("?")[0], **report.facts()})
        return
    made = f"{report.written} frames shown, {report.dropped} dropped, {report.windows} windows"
    latency = f", {1000 * report.latency.p50:.0f} ms late (median)" if report.latency.count else ""
    say(f"{source}: {made}{latency} ({report.ended})")
