"""Which frames of a video a network is shown: a window, by number or by time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["POSITIONS", "SHORT", "Window"]

POSITIONS = ("start", "centre", "end")
#: What becomes of windows longer than the video.
SHORT = ("repeat", "loop", "refuse")
_MOST_FRAMES = 4096
# Seconds; far below any frame's duration, far above float64's rounding.
_NOTHING = 1e-6


@dataclass(frozen=True)
class Window:
    """The frames to take; see `midgrain.clips.open_clip`."""

    frames: int = 16
    rate: float | None = None
    stride: int | None = None
    position: str | int = "centre"
    start: float | None = None
    end: float | None = None
    short: str = "repeat"

    def __post_init__(self) -> None:
        _check_int(self.frames, "frames", 1, _MOST_FRAMES)
        if self.stride is not None:
            _check_int(self.stride, "stride", 1)
        if self.rate is not None:
            _check_number(self.rate, "rate")
            if self.stride is not None:
                raise ValueError(f"rate: expected either rate or stride, got {self.rate} and stride {self.stride}")
        if isinstance(self.position, float):
            raise TypeError(f"position: expected a frame's number, got {self.position}; start= takes seconds")
        if not isinstance(self.position, str):
            _check_int(self.position, "position", 0)
        elif self.position not in POSITIONS:
            raise ValueError(f"position: expected {', '.join(POSITIONS)} or a frame's number, got {self.position!r}")
        for name in ("start", "end"):
            if getattr(self, name) is not None:
                _check_number(getattr(self, name), name, zero=name == "start")
        if self.end is not None and self.end <= (self.start or 0.0):
            raise ValueError(f"end: expected seconds after start ({self.start or 0.0:g}), got {self.end:g}")
        if self.short not in SHORT:
            raise ValueError(f"short: expected one of {', '.join(SHORT)}, got {self.short!r}")

    def choose(self, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """The numbers of the frames to show.

        Args:
            seconds: when each frame of the video begins, rising, [n].

        Returns:
            Numbers in 0 .. n - 1, [frames], never falling but where a short video is looped.

        Raises:
            ValueError: `start` or a `position` after the end of the video; a short one that is to be refused.
        """
        part = self._part(seconds)
        if not isinstance(self.position, str):
            if self.position not in part:
                raise ValueError(f"position: expected a frame in {part[0]} .. {part[-1]}, got {self.position}")
            part = part[part >= self.position]
        if self.rate is None:
            steps = part[:: self.stride or 1]
            if isinstance(self.position, str) and self.position != "start":
                # Not every stride-th frame from the first on: the window itself lies in the middle or at the end.
                extra = len(part) - ((self.frames - 1) * (self.stride or 1) + 1)
                steps = part[self._offset(extra) :: self.stride or 1] if extra > 0 else steps
            return self._filled(steps)
        usual = (seconds[part[-1]] - seconds[part[0]]) / max(len(part) - 1, 1)
        duration = seconds[part[-1]] - seconds[part[0]] + (usual or 1.0 / self.rate)
        grid = max(1, math.floor(duration * self.rate + _NOTHING))
        first = self._offset(max(0, grid - self.frames)) if isinstance(self.position, str) else 0
        times = seconds[part[0]] + np.arange(first, min(grid, first + self.frames)) / self.rate
        return self._filled(part[np.searchsorted(seconds[part], times + _NOTHING, side="right") - 1])

    def _part(self, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """The frames between start and end, the one shown at the start if there is no other."""
        start, end = self.start or 0.0, math.inf if self.end is None else self.end
        usual = seconds[-1] / max(len(seconds) - 1, 1)
        if start >= seconds[-1] + max(usual, _NOTHING):
            raise ValueError(f"start: expected seconds before the end ({seconds[-1] + usual:.3f}), got {start:g}")
        part = np.flatnonzero((seconds > start - _NOTHING) & (seconds < end - _NOTHING))
        if not len(part):
            part = np.array([np.searchsorted(seconds, start + _NOTHING, side="right") - 1])
        return part.astype(np.int64)

    def _offset(self, extra: int) -> int:
        return {"start": 0, "centre": extra // 2, "end": extra}[str(self.position)]

    def _filled(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """As many as are wanted."""
        if len(numbers) >= self.frames:
            return numbers[: self.frames]
        if self.short == "refuse":
            raise ValueError(f"frames: expected a video of {self.frames} frames or more, got {len(numbers)}")
        steps = np.arange(self.frames)
        return numbers[steps % len(numbers) if self.short == "loop" else np.minimum(steps, len(numbers) - 1)]


def _check_int(value: object, name: str, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if value < low or (high is not None and value > high):
        allowed = f"{low} or more" if high is None else f"{low} .. {high}"
        raise ValueError(f"{name}: expected {allowed}, got {value}")


def _check_number(value: object, name: str, *, zero: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name}: expected a {'non-negative' if zero else 'positive'} finite number, got {value}")
