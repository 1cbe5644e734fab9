"""What flows through a stream: frames, windows of them with their heat, frames with what explains them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from midgrain.classes import ClassScore
from midgrain.video.settings import Settings

__all__ = ["DrawnFrame", "ExplainedFrame", "Frame", "HeatWindow", "WindowExplainer"]


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One frame of a source.

    Attributes:
        pixels: uint8 RGB [H, W, 3], upright.
        number: counted from 0 on in the order of showing; frames that a live stream dropped are counted too.
        seconds: when it begins by the source's own clock, the first frame at 0.
        arrived: when it was there to be worked on, `time.monotonic()`.
    """

    pixels: npt.NDArray[np.uint8]
    number: int
    seconds: float
    arrived: float


@dataclass(frozen=True, eq=False, slots=True)
class HeatWindow:
    """What a network looked at in some frames.

    Attributes:
        numbers: of the frames, rising, [T].
        heat: raw scores, float32 [T, h, w], over what the network saw.
        region: what it saw, in a frame's pixels: x0, y0, x1, y1, the last ones excluded.
        segments: superpixels, int32 [T, h, w]; None for methods without regions.
        target: the class that is explained; None where a callable picked the score.
        classes: the most probable ones, the most probable first; empty where the network returns no logits.
        method: the explainer's name.
    """

    numbers: tuple[int, ...]
    heat: npt.NDArray[np.float32]
    region: tuple[float, float, float, float]
    segments: npt.NDArray[np.int32] | None = None
    target: ClassScore | None = None
    classes: tuple[ClassScore, ...] = ()
    method: str = ""


class WindowExplainer(Protocol):
    """Explains the frames of one window.

    A stream calls it with windows in order, from one thread. It may keep what it knows of frames by their numbers, but
    must not rely on frames coming again; the next stream has other frames (other `pixels`) of the same numbers.

    Where it has `prepare(frame)`, a stream calls that once for every sampled frame before it is in a window, from
    another thread: preprocessing goes there. Where it has `several(windows, settings) -> list[HeatWindow]`, that
    explains windows of one length together. Attributes `rate` (frames per second) and `window` (frames) say what the
    network was trained with.
    """

    def __call__(self, frames: Sequence[Frame], settings: Settings) -> HeatWindow:
        """Explain frames of one size, [T] of them, as the settings of this moment say.

        Raises:
            TypeError, ValueError: settings that cannot be followed.
        """
        ...


@dataclass(frozen=True, eq=False, slots=True)
class ExplainedFrame:
    """A frame with what explains it.

    Attributes:
        frame: the frame.
        heat: raw scores, float32 [h, w], over `region`; None where nothing explains the frame yet.
        region: see `HeatWindow`.
        segments: int32 [h, w] or None.
        limits: the scores that are drawn as cold and as hot.
        target: the class that is explained.
        classes: the most probable classes.
        method: the explainer's name.
    """

    frame: Frame
    heat: npt.NDArray[np.float32] | None = None
    region: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    segments: npt.NDArray[np.int32] | None = None
    limits: tuple[float, float] = (0.0, 1.0)
    target: ClassScore | None = None
    classes: tuple[ClassScore, ...] = ()
    method: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class DrawnFrame:
    """An explained frame as a picture.

    Attributes:
        explained: the frame and its explanation.
        pixels: uint8 RGB [H, W, 3], or [H, 2 W, 3] where frame and explanation stand side by side.
    """

    explained: ExplainedFrame
    pixels: npt.NDArray[np.uint8]

    @property
    def frame(self) -> Frame:
        """The frame itself."""
        return self.explained.frame

    @property
    def heat(self) -> npt.NDArray[np.float32] | None:
        """Raw scores, see `ExplainedFrame`."""
        return self.explained.heat
