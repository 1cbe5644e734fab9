"""Videos, cameras and network streams explained while they play."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from midgrain.video.broadcast import Broadcast
from midgrain.video.choices import Choices
from midgrain.video.frames import DrawnFrame, ExplainedFrame, Frame, HeatWindow, WindowExplainer
from midgrain.video.report import StageTimes, StreamReport
from midgrain.video.settings import Controls, Settings

if TYPE_CHECKING:
    from midgrain.video.server import PageServer

__all__ = [
    "Broadcast",
    "Choices",
    "Controls",
    "DrawnFrame",
    "ExplainedFrame",
    "Frame",
    "HeatWindow",
    "PageServer",
    "Settings",
    "StageTimes",
    "StreamReport",
    "WindowExplainer",
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
