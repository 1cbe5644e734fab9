"""Videos, cameras and network streams explained while they play."""

from __future__ import annotations

from midgrain.video.file_sink import VideoSink
from midgrain.video.frames import DrawnFrame, ExplainedFrame, Frame, HeatWindow, WindowExplainer
from midgrain.video.painting import draw_frame
from midgrain.video.report import StageTimes, StreamReport
from midgrain.video.settings import Controls, Settings
from midgrain.video.sinks import Sink
from midgrain.video.sources import Source, open_source
from midgrain.video.stats import StreamStats
from midgrain.video.streaming import explain_frames, explain_stream
from midgrain.video.windows import ClipWindows, NetworkWindows

__all__ = [
    "ClipWindows",
    "Controls",
    "DrawnFrame",
    "ExplainedFrame",
    "Frame",
    "HeatWindow",
    "NetworkWindows",
    "Settings",
    "Sink",
    "Source",
    "StageTimes",
    "StreamReport",
    "StreamStats",
    "VideoSink",
    "WindowExplainer",
    "draw_frame",
    "explain_frames",
    "explain_stream",
    "open_source",
]
