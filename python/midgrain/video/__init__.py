"""Videos, cameras and network streams explained while they play."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from midgrain.video.adapting import network_explainer
from midgrain.video.broadcast import Broadcast
from midgrain.video.choices import Choices
from midgrain.video.file_sink import VideoSink
from midgrain.video.flow import optical_flow
from midgrain.video.frames import DrawnFrame, ExplainedFrame, Frame, HeatWindow, WindowExplainer
from midgrain.video.image_stream import ImageStream
from midgrain.video.linked import LinkedFrames
from midgrain.video.painting import draw_frame
from midgrain.video.report import StageTimes, StreamReport
from midgrain.video.serving import LiveStream, serve
from midgrain.video.settings import Controls, Settings
from midgrain.video.sinks import Sink
from midgrain.video.sources import Source, open_source
from midgrain.video.stats import StreamStats
from midgrain.video.streaming import explain_frames, explain_stream
from midgrain.video.two_stream import TwoStream, TwoStreamExplanation
from midgrain.video.two_stream_windows import TwoStreamWindows
from midgrain.video.windows import ClipWindows, NetworkWindows

if TYPE_CHECKING:
    from midgrain.video.server import PageServer

__all__ = [
    "Broadcast",
    "Choices",
    "ClipWindows",
    "Controls",
    "DrawnFrame",
    "ExplainedFrame",
    "Frame",
    "HeatWindow",
    "ImageStream",
    "LinkedFrames",
    "LiveStream",
    "NetworkWindows",
    "PageServer",
    "Settings",
    "Sink",
    "Source",
    "StageTimes",
    "StreamReport",
    "StreamStats",
    "TwoStream",
    "TwoStreamExplanation",
    "TwoStreamWindows",
    "VideoSink",
    "WindowExplainer",
    "draw_frame",
    "explain_frames",
    "explain_stream",
    "network_explainer",
    "open_source",
    "optical_flow",
    "serve",
]


def __getattr__(name: str) -> Any:
    # Needs aiohttp, which is not there unless somebody wants pages.
    if name == "PageServer":
        try:
            from midgrain.video.server import PageServer
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("the package aiohttp is not installed; pip install 'midgrain[live]'") from error
        return PageServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
