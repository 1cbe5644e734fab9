"""A stream for many viewers: every frame is encoded once, and nobody waits for anybody."""

from __future__ import annotations

import io
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain.classes import ClassScore
from midgrain.video.frames import DrawnFrame

__all__ = ["Broadcast", "ScorePoint", "Shot", "Viewer"]


@dataclass(frozen=True)
class ScorePoint:
    """The most probable classes at one moment of the stream.

    Attributes:
        number: of the frame.
        seconds: by the source's clock.
        classes: the most probable first.
    """

    number: int
    seconds: float
    classes: tuple[ClassScore, ...]


class Shot:
    """A drawn frame on its way to viewers; it becomes a JPEG when the first one asks, and only once.

    Args:
        drawn: the frame.
        quality: of the JPEG, 1 .. 95.
        max_side: a longer side in pixels is shrunk to this.

    Attributes:
        number: of the frame.
        arrived: when the frame was there to be worked on, `time.monotonic()`.
        facts: what JSON says about it: number, seconds, width, height (of the picture as it was drawn), method,
            target, classes; target is None where nothing explains the frame.
    """

    def __init__(self, drawn: DrawnFrame, quality: int, max_side: int):
        explained = drawn.explained
        self.number = explained.frame.number
        self.arrived = explained.frame.arrived
        self.facts: Mapping[str, Any] = {
            "number": self.number,
            "seconds": _finite(explained.frame.seconds),
            "width": int(drawn.pixels.shape[1]),
            "height": int(drawn.pixels.shape[0]),
            "explained": explained.heat is not None,
            "method": explained.method,
            "target": _class_facts(explained.target) if explained.target is not None else None,
            "classes": [_class_facts(each) for each in explained.classes],
        }
        self._quality = quality
        self._max_side = max_side
        self._pixels: npt.NDArray[np.uint8] | None = drawn.pixels
        self._jpeg = b""
        self._lock = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether the JPEG is there already."""
        return self._pixels is None

    @property
    def jpeg(self) -> bytes:
        """The picture as a JPEG; takes milliseconds when it is asked for first."""
        with self._lock:
            if self._pixels is not None:
                self._jpeg = _encode(self._pixels, self._quality, self._max_side)
                self._pixels = None
            return self._jpeg


class Viewer:
    """Who looks at a broadcast: a place for one frame, in which the newest one wins.

    Made by `Broadcast.join`. All its methods may be called from any thread.

    Attributes:
        taken: frames that were taken.
        skipped: frames that were replaced by newer ones before they were taken; not counted while paused.
    """

    def __init__(self, notify: Callable[[], None]):
        self.taken = 0
        self.skipped = 0
        self._notify = notify
        self._paused = False
        self._shot: Shot | None = None
        self._lock = threading.Lock()

    @property
    def paused(self) -> bool:
        """Whether it wants no frames at the moment; set it from any thread."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        with self._lock:
            self._paused = paused
            if paused:
                self._shot = None

    def offer(self, shot: Shot) -> None:
        """Hand it a frame; never waits."""
        with self._lock:
            if self._paused:
                return
            self.skipped += self._shot is not None
            self._shot = shot
        self._notify()

    def take(self) -> Shot | None:
        """The newest frame that it has not had yet; None where there is none."""
        with self._lock:
            shot, self._shot = self._shot, None
            self.taken += shot is not None
            return shot


class Broadcast:
    """A sink of `explain_stream` that any number of viewers look at.

    Writing costs the encoding of one JPEG (nothing without viewers) and never waits for a viewer: each has a place for
    one frame, in which the newest one wins, so a stalled viewer costs nothing but that frame.

    Args:
        quality: of the JPEGs, 1 .. 95.
        max_side: pictures with a longer side, in pixels, are shrunk for viewers.
        points: how many moments of the class scores are kept.
        spacing: seconds of the stream between two of them.

    Raises:
        TypeError, ValueError: a value of another kind or out of range.

    Example:
        >>> import numpy as np
        >>> from midgrain.video import Broadcast, DrawnFrame, ExplainedFrame, Frame
        >>> pixels = np.zeros((48, 64, 3), np.uint8)
        >>> broadcast = Broadcast(quality=80)
        >>> viewer = broadcast.join()
        >>> for number in range(3):
        ...     broadcast.write(DrawnFrame(ExplainedFrame(Frame(pixels, number, number / 25, 0.0)), pixels))
        >>> viewer.take().number, viewer.take(), viewer.skipped
        (2, None, 2)
    """

    def __init__(self, *, quality: int = 80, max_side: int = 1280, points: int = 600, spacing: float = 0.1):
        for name, value, low, high in (
            ("quality", quality, 1, 95),
            ("max_side", max_side, 16, 65500),  # JPEG's own limit.
            ("points", points, 1, 1_000_000),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
            if not low <= value <= high:
                raise ValueError(f"{name}: expected {low} .. {high}, got {value}")
        if not (isinstance(spacing, int | float) and math.isfinite(spacing) and spacing >= 0):
            raise ValueError(f"spacing: expected 0 or more seconds, got {spacing!r}")
        self._quality = quality
        self._max_side = max_side
        self._spacing = spacing
        self._history: deque[ScorePoint] = deque(maxlen=points)
        self._viewers: list[Viewer] = []
        self._latest: Shot | None = None
        self._closed = False
        self._lock = threading.Lock()

    def write(self, drawn: DrawnFrame) -> None:
        """Offer a frame to every viewer.

        Raises:
            TypeError, ValueError: pixels that are no uint8 [H, W, 3] with at least one pixel.
            RuntimeError: the broadcast is closed.
        """
        _check_pixels(drawn.pixels)
        shot = Shot(drawn, self._quality, self._max_side)
        with self._lock:
            if self._closed:
                raise RuntimeError("broadcast: it is closed")
            viewers = [viewer for viewer in self._viewers if not viewer.paused]
            self._remember(drawn)
        if viewers:
            # Here, not where viewers are served: that thread must answer all of them.
            _ = shot.jpeg
        with self._lock:
            self._latest = shot
            viewers = list(self._viewers)
        for viewer in viewers:
            viewer.offer(shot)

    def close(self) -> None:
        """No frames come any more; viewers keep what they have."""
        with self._lock:
            self._closed = True

    def join(self, notify: Callable[[], None] | None = None) -> Viewer:
        """A new viewer; it begins with the latest frame.

        Args:
            notify: called from the writing thread whenever there is something to take; it must not block.
        """
        viewer = Viewer(notify or _nothing)
        with self._lock:
            self._viewers.append(viewer)
            latest = self._latest
        if latest is not None:
            viewer.offer(latest)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """It gets no frames any more; leaving twice does nothing."""
        with self._lock:
            if viewer in self._viewers:
                self._viewers.remove(viewer)

    @property
    def viewers(self) -> int:
        """How many there are."""
        return len(self._viewers)

    @property
    def latest(self) -> Shot | None:
        """The newest frame; None before the first one."""
        return self._latest

    @property
    def history(self) -> tuple[ScorePoint, ...]:
        """The class scores of the latest moments, the oldest first."""
        with self._lock:
            return tuple(self._history)

    def _remember(self, drawn: DrawnFrame) -> None:
        explained = drawn.explained
        seconds = explained.frame.seconds
        if not explained.classes or not math.isfinite(seconds):
            return
        since = seconds - self._history[-1].seconds if self._history else math.inf
        # Negative where a source began again.
        if since >= self._spacing or since < 0:
            self._history.append(ScorePoint(explained.frame.number, seconds, explained.classes))


def _nothing() -> None:
    pass


def _check_pixels(pixels: npt.NDArray[np.uint8]) -> None:
    if pixels.dtype != np.uint8:
        raise TypeError(f"pixels: expected uint8, got {pixels.dtype}")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"pixels: expected [H, W, 3], got {list(pixels.shape)}")


def _encode(pixels: npt.NDArray[np.uint8], quality: int, max_side: int) -> bytes:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    longest = max(picture.size)
    if longest > max_side:
        width, height = (max(1, round(side * max_side / longest)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    file = io.BytesIO()
    picture.save(file, format="jpeg", quality=quality)
    return file.getvalue()


def _class_facts(score: ClassScore) -> dict[str, Any]:
    return {"index": score.index, "label": score.label, "probability": _finite(score.probability)}


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
