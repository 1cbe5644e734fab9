"""What a live stream shows: the latest window that could be explained."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from midgrain.video.channels import Ending
from midgrain.video.frames import Frame, HeatWindow

__all__ = ["NewestWindow"]


class NewestWindow(Ending):
    """The latest samples of a live stream, and the heat of the latest window of them."""

    def __init__(self, window: int):
        super().__init__()
        self._samples: deque[Frame] = deque(maxlen=window)
        self._new = 0
        #: The window, its colour limits and its frames.
        self.heat: tuple[HeatWindow, tuple[float, float], Sequence[Frame]] | None = None

    def add(self, sample: Frame) -> None:
        """The next sample; one of another size begins anew."""
        with self._changed:
            if self._samples and self._samples[-1].pixels.shape != sample.pixels.shape:
                self._samples.clear()
                self._new = 0
            self._samples.append(sample)
            self._new += 1
            self._changed.notify_all()

    def windows(self, stride: int) -> Iterator[list[Frame]]:
        """The latest samples, as soon as the last answer's successor has `stride` new ones; the first at once."""
        first = True
        while True:
            with self._changed:
                wanted = 1 if first else stride
                self._changed.wait_for(lambda: self._new >= wanted or self._finished or self._aborted)  # noqa: B023
                if self._aborted or self._new < wanted:
                    return
                self._new, first = 0, False
                samples = [*self._samples]
            yield samples
