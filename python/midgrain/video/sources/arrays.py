"""Frames that are in memory, or that the user's own code makes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from midgrain.video.frames import Frame
from midgrain.video.sources.base import Source, check_frame

__all__ = ["ArraySource", "IterableSource"]

# Frames per second where nothing says how fast they are to be played.
USUAL_RATE = 25.0


class ArraySource(Source):
    """The frames of an array.

    Args:
        frames: uint8 [T, H, W, 3], NumPy's or torch's.
        rate: frames per second.

    Raises:
        TypeError, ValueError: another array.
    """

    def __init__(self, frames: Any, rate: float | None = None):
        super().__init__()
        if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise ValueError(f"source: expected frames of shape [T, H, W, 3], got {list(frames.shape)}")
        check_frame(frames[0], 0)
        self._frames = frames
        self.name = "array"
        self.rate, self.length = rate, len(frames)
        self.size = int(frames.shape[2]), int(frames.shape[1])
        self.tick = 1 / Fraction(rate or USUAL_RATE).limit_denominator(1001)

    def __iter__(self) -> Iterator[Frame]:
        for number in range(len(self._frames)):
            if self.closed:
                return
            pixels = check_frame(self._frames[number], number)
            yield self._frame(pixels, number, number / (self.rate or USUAL_RATE))


class IterableSource(Source):
    """Whatever yields frames.

    Args:
        frames: yields uint8 [H, W, 3], or whole `Frame`s with numbers and times of their own.
        rate: frames per second. A live one without a rate goes by the clock.
        live: see `Source`.
    """

    def __init__(self, frames: Iterable[Any], rate: float | None = None, *, live: bool = False):
        super().__init__()
        self._frames = frames
        self.name = "frames"
        self.rate, self.live = rate, live
        if rate is not None:
            self.tick = 1 / Fraction(rate).limit_denominator(1001)

    def __iter__(self) -> Iterator[Frame]:
        first, last = 0.0, -1.0
        for number, pixels in enumerate(self._frames):
            if self.closed:
                return
            if isinstance(pixels, Frame):
                yield pixels
                continue
            if self.live and self.rate is None:
                now = time.monotonic()
                first = now if number == 0 else first
                # Rising even where two come within a tick of the clock.
                last = max(now - first, last + 1e-6) if number else 0.0
                yield self._frame(check_frame(pixels, number), number, last)
            else:
                yield self._frame(check_frame(pixels, number), number, number / (self.rate or USUAL_RATE))
