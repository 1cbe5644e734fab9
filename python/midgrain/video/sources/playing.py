"""Files and arrays played at their own pace, as if a camera filmed them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from midgrain.video.frames import Frame
from midgrain.video.sources.arrays import USUAL_RATE
from midgrain.video.sources.base import Source

__all__ = ["PlayedSource"]


class PlayedSource(Source):
    """A live source made of one that is not.

    Args:
        make: opens the source, anew for each round.
        loop: begin again at the end.
    """

    def __init__(self, make: Callable[[], Source], *, loop: bool = False):
        super().__init__()
        self._make, self._loop = make, loop
        self._inner = make()
        inner = self._inner
        self.name, self.live, self.rate, self.size, self.tick = inner.name, True, inner.rate, inner.size, inner.tick
        self.length = None if loop else inner.length

    def __iter__(self) -> Iterator[Frame]:
        begun, number, offset = time.monotonic(), 0, 0.0
        while True:
            seconds, usual = 0.0, 1.0 / (self.rate or USUAL_RATE)
            for frame in self._inner:
                usual = frame.seconds - seconds if frame.seconds > seconds else usual
                seconds = frame.seconds
                due = begun + offset + seconds
                if self._closed.wait(max(0.0, due - time.monotonic())):
                    return
                yield replace(frame, number=number, seconds=offset + seconds, arrived=time.monotonic())
                number += 1
            self.complaints += [each for each in self._inner.complaints if each not in self.complaints]
            if not self._loop or number == 0 or self.closed:
                return
            offset += seconds + usual
            self._inner.close()
            self._inner = self._make()

    def close(self) -> None:
        """See `Source.close`."""
        super().close()
        self._inner.close()
