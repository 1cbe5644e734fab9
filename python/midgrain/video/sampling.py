"""Which frames of a stream a network is shown: as many per second as it was trained with."""

from __future__ import annotations

import math
from dataclasses import dataclass

from midgrain.video.frames import Frame

__all__ = ["Sampler"]

# Seconds; far below any frame's duration, far above float64's rounding.
_NOTHING = 1e-6


@dataclass
class Sampler:
    """Chooses frames as they come: at every moment k / rate the one that is shown then.

    These are the frames that `midgrain.clips.open_clip` takes with the same rate from the video's start on. A rate
    below the source's leaves frames out, a higher one repeats them.

    Args:
        rate: frames per second; None takes every frame.
        live: a frame counts at once for the moments since the one before it, without waiting for the next, which
            would cost its time in latency. Where frames come at a constant rate and moments fall on frames there is
            no difference.
        most: repetitions of a frame after a gap.
    """

    rate: float | None = None
    live: bool = False
    most: int = 4096

    def __post_init__(self) -> None:
        self._next = 0
        self._shown: Frame | None = None
        self._usual = 0.0

    def push(self, frame: Frame) -> list[Frame]:
        """The frames that are now known to be taken, in order, each as often as it is taken."""
        if self.rate is None:
            return [frame]
        if self.live:
            first = self._shown is None
            self._shown = frame
            if first:
                self._next = math.floor(frame.seconds * self.rate + _NOTHING)
            return self._take(frame, frame.seconds + _NOTHING)
        before, self._shown = self._shown, frame
        if before is None:
            self._next = math.ceil(frame.seconds * self.rate - _NOTHING)
            return []
        self._usual = frame.seconds - before.seconds
        return self._take(before, frame.seconds - _NOTHING)

    def end(self) -> list[Frame]:
        """Those that are taken because no other frame comes."""
        if self.rate is None or self.live or self._shown is None:
            return []
        last = self._shown
        return self._take(last, last.seconds + (self._usual or 1.0 / self.rate) - _NOTHING)

    def _take(self, frame: Frame, until: float) -> list[Frame]:
        """The frame for every moment before `until`."""
        assert self.rate is not None
        first, self._next = self._next, max(self._next, math.ceil(until * self.rate))
        return [frame] * min(self._next - first, self.most)
