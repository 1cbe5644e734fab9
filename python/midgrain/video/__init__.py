"""Videos, cameras and network streams explained while they play."""

from __future__ import annotations

from midgrain.video.flow import optical_flow
from midgrain.video.frames import DrawnFrame, ExplainedFrame, Frame, HeatWindow, WindowExplainer
from midgrain.video.image_stream import ImageStream
from midgrain.video.linked import LinkedFrames
from midgrain.video.report import StageTimes, StreamReport
from midgrain.video.settings import Controls, Settings
from midgrain.video.two_stream import TwoStream, TwoStreamExplanation
from midgrain.video.two_stream_windows import TwoStreamWindows

__all__ = [
    "Controls",
    "DrawnFrame",
    "ExplainedFrame",
    "Frame",
    "HeatWindow",
    "ImageStream",
    "LinkedFrames",
    "Settings",
    "StageTimes",
    "StreamReport",
    "TwoStream",
    "TwoStreamExplanation",
    "TwoStreamWindows",
    "WindowExplainer",
    "optical_flow",
]
