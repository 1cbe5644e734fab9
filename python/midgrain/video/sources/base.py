"""What every source of frames offers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain.video.frames import Frame

__all__ = ["Source", "check_frame", "check_rate"]


class Source:
    """Frames in order, once: iterate over it, then `close` it, or use it in a `with`.

    Attributes:
        name: for people.
        live: frames come by themselves and are late when they wait; otherwise each comes when it is asked for.
        rate: frames per second; None where it is not known. Of videos with a variable rate it is the mean.
        size: (width, height) of the first frame; None where it is not known yet.
        length: frames in all; None where it is not known.
        tick: the unit of its clock in seconds; None where it has none of its own.
        audio: the file whose sound belongs to the frames, and the time of the first frame by that file's clock in
            seconds; None without.
        counted: frames that there were, once all have come.
        reconnects: how often it was lost and found again.
        lost: did it end because it was lost for good?
        complaints: what was wrong with it so far.
    """

    name: str = ""
    live: bool = False
    rate: float | None = None
    size: tuple[int, int] | None = None
    length: int | None = None
    tick: Fraction | None = None
    audio: tuple[Path, float] | None = None

    def __init__(self) -> None:
        self.counted: int | None = None
        self.reconnects = 0
        self.lost = False
        self.complaints: list[str] = []
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        """The frames. `close`, from whatever thread, ends it."""
        raise NotImplementedError

    def close(self) -> None:
        """End it: an iteration under way, in another thread perhaps, stops at its next frame."""
        self._closed.set()

    @property
    def closed(self) -> bool:
        """Has it been closed?"""
        return self._closed.is_set()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _frame(self, pixels: npt.NDArray[np.uint8], number: int, seconds: float) -> Frame:
        if self.size is None:
            self.size = pixels.shape[1], pixels.shape[0]
        return Frame(pixels, number, seconds, time.monotonic())


def check_frame(pixels: Any, number: int) -> npt.NDArray[np.uint8]:
    """A frame that the user made, as an array.

    Raises:
        TypeError, ValueError: it is none.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8:
        raise TypeError(f"source: expected uint8 frames [H, W, 3], got dtype {pixels.dtype} at frame {number}")
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or not pixels.size:
        raise ValueError(f"source: expected frames of shape [H, W, 3], got {list(pixels.shape)} at frame {number}")
    # Torch wants its memory writable, although nobody writes.
    return np.ascontiguousarray(pixels) if pixels.flags.writeable else pixels.copy()


def check_rate(rate: object, name: str = "rate") -> float:
    """A number of frames per second.

    Raises:
        TypeError, ValueError: it is none.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number | Fraction):
        raise TypeError(f"{name}: expected a number, got {type(rate).__name__}")
    if not 0.01 <= rate <= 1000:
        raise ValueError(f"{name}: expected 0.01 .. 1000 frames per second, got {rate}")
    return float(rate)
