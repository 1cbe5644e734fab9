"""Streams without a network: frames that say their number, an explainer that says what it was asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from midgrain.classes import ClassScore
from midgrain.video import Frame, HeatWindow, Settings


def frames_at(seconds: Sequence[float], height: int = 12, width: int = 16) -> list[Frame]:
    """Frames at these moments, of a level that is their number."""
    return [
        Frame(np.full((height, width, 3), number % 256, np.uint8), number, float(when), 0.0)
        for number, when in enumerate(seconds)
    ]


class Told:
    """A window explainer whose heat is 1000 * (the window's number) + the part of the window, 2 x 3 pixels."""

    def __init__(self, seconds: float = 0.0, fail_at: int | None = None):
        self.windows: list[list[int]] = []
        self.settings: list[Settings] = []
        self.threads: set[str] = set()
        self.seconds, self.fail_at = seconds, fail_at

    def __call__(self, frames: Sequence[Frame], settings: Settings) -> HeatWindow:
        if self.fail_at == len(self.windows):
            raise RuntimeError("this window is refused")
        assert len({frame.pixels.shape for frame in frames}) == 1
        time.sleep(self.seconds)
        number = len(self.windows)
        self.windows.append([frame.number for frame in frames])
        self.settings.append(settings)
        self.threads.add(threading.current_thread().name)
        heat = np.broadcast_to(
            1000.0 * number + np.arange(len(frames), dtype=np.float32)[:, None, None], (len(frames), 2, 3)
        ).astype(np.float32)
        size = frames[0].pixels.shape
        return HeatWindow(
            tuple(self.windows[-1]),
            heat,
            (0.0, 0.0, float(size[1]), float(size[0])),
            np.zeros((len(frames), 2, 3), np.int32),
            ClassScore(number, f"class {number}", 1.0),
            (),
            settings.method or "told",
        )


def our_threads() -> list[str]:
    """Names of the stages' threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("midgrain-")]
