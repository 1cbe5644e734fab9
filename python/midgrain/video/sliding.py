"""Windows that slide over all frames of a video, and what their heat says about each frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from midgrain.video.frames import ExplainedFrame, Frame, HeatWindow
from midgrain.video.limits import ColourLimits

__all__ = ["MERGES", "SlidingWindows", "explained"]

#: What becomes of the heat of overlapping windows.
MERGES = ("mean", "centre", "latest")
# Seconds; far below any frame's duration, far above float64's rounding.
_NOTHING = 1e-6


@dataclass(eq=False)
class _Sample:
    """A frame that windows hold, with what they said about it so far."""

    frame: Frame
    place: int
    #: Of the window that it is explained by, apart from the heat: its part there, and the limits.
    window: HeatWindow | None = None
    part: int = 0
    limits: tuple[float, float] = (0.0, 1.0)
    off_centre: float = float("inf")
    heat: npt.NDArray[np.float32] | None = None
    count: int = 0


class SlidingWindows:
    """Takes frames in order, explains windows of the sampled ones, gives every frame back with its heat.

    Windows begin at the first sample and move by `stride`; one more ends with the last sample, so that all samples
    are covered. A video shorter than the window is filled up with its last frame, as `midgrain.clips.open_clip` does;
    the heat of such repetitions is not used. Frames between samples take the heat of the sample that is nearest in
    time, of two the earlier one. Frames of another size begin anew: no window spans both.

    Args:
        explain: from windows, [n][window] frames, to what they show.
        window: samples per window.
        stride: by how many samples the window moves. Where it is larger than the window, the samples that no window
            holds count as frames between samples.
        merge: the heat of a sample in several windows is their "mean", that of the window in whose middle it lies
            most nearly ("centre"), or that of the "latest" one. Superpixels, class and colours are those of the most
            central or the latest window. Scores of different methods or targets are not averaged: the newest count.
        limits: of the colours.
        batch: windows that are explained together.
    """

    def __init__(
        self,
        explain: Callable[[Sequence[Sequence[Frame]]], Sequence[HeatWindow]],
        window: int,
        stride: int,
        merge: str,
        limits: ColourLimits,
        batch: int = 1,
    ):
        self._explain, self._limits = explain, limits
        self._window, self._stride, self._merge, self._batch = window, stride, merge, batch
        self._pending: deque[Frame] = deque()
        self._shape: tuple[int, ...] | None = None
        self._begin()

    def _begin(self) -> None:
        self._count = 0  # Samples since the beginning.
        self._start = 0  # Of the next window.
        self._recent: deque[_Sample] = deque(maxlen=self._window)
        self._samples: deque[_Sample] = deque()  # Those that frames may still need.
        self._waiting: list[list[_Sample]] = []  # Windows for the next batch.

    def push(self, frame: Frame | None, samples: Sequence[Frame]) -> list[ExplainedFrame]:
        """The next frame, and which ones (up to it) are now known to be sampled; returns those that are explained."""
        done = []
        for sample in samples:
            done += self._sized(sample)
            self._add(sample)
        if frame is not None:
            done += self._sized(frame)
            self._pending.append(frame)
        return done + self._finished(ended=False)

    def end(self) -> list[ExplainedFrame]:
        """No frame of this size comes any more: explain what is left."""
        if not self._recent and self._pending:
            self._add(self._pending[0])
        self._explain_waiting()
        if any(sample.window is None for sample in self._samples):
            self._waiting = [[*self._recent]]
            # Which samples are also in a regular window must not depend on when it is explained.
            self._explain_waiting(self._start)
        done = self._finished(ended=True)
        self._begin()
        return done

    def _sized(self, frame: Frame) -> list[ExplainedFrame]:
        """End what went before a change of size."""
        shape, self._shape = self._shape, frame.pixels.shape
        return self.end() if shape not in (None, self._shape) else []

    def _add(self, frame: Frame) -> None:
        sample = _Sample(frame, self._count)
        self._count += 1
        self._recent.append(sample)
        if (sample.place % self._stride) < self._window:
            self._samples.append(sample)
        if sample.place == self._start + self._window - 1:
            self._waiting.append([*self._recent])
            self._start += self._stride
            if len(self._waiting) == self._batch:
                self._explain_waiting()

    def _explain_waiting(self, first: int = 0) -> None:
        """Explain the windows of a batch; samples before the `first` place know enough."""
        windows, self._waiting = self._waiting, []
        if not windows:
            return
        filled = [
            [sample.frame for sample in (*window, *window[-1:] * self._window)][: self._window] for window in windows
        ]
        for window, heat in zip(windows, self._explain(filled), strict=True):
            limits = self._limits.of(heat.heat, window[-1].frame.seconds, heat.method)
            for part, sample in enumerate(window):
                if sample.place < first:
                    continue
                self._tell(sample, heat, part, limits)

    def _tell(self, sample: _Sample, window: HeatWindow, part: int, limits: tuple[float, float]) -> None:
        """What one more window says about a sample."""
        off_centre = abs(part - (self._window - 1) / 2)
        heat = window.heat[part]
        before = sample.window
        same = before is not None and sample.heat is not None and _comparable(before, window, sample.heat, heat)
        if self._merge == "mean" and same:
            assert sample.heat is not None
            sample.heat = sample.heat + heat
            sample.count += 1
        elif self._merge != "centre" or not same or off_centre < sample.off_centre:
            sample.heat, sample.count = heat, 1
        if self._merge == "latest" or not same or off_centre < sample.off_centre:
            sample.window, sample.part, sample.limits, sample.off_centre = window, part, limits, off_centre

    def _finished(self, *, ended: bool) -> list[ExplainedFrame]:
        """Frames whose sample is known and in no window to come."""
        done: list[ExplainedFrame] = []
        # Windows that wait for their batch are still to come.
        certain = min([self._start, *(window[0].place for window in self._waiting)])
        samples = self._samples
        while self._pending and samples:
            frame = self._pending[0]
            while len(samples) > 1 and samples[1].frame.number <= frame.number:
                samples.popleft()
            nearest = samples[0]
            if nearest.frame.number != frame.number:
                if len(samples) > 1:
                    before, after = (abs(frame.seconds - each.frame.seconds) for each in (samples[0], samples[1]))
                    nearest = samples[0] if before <= after + _NOTHING else samples[1]
                elif not ended and nearest.frame.number < frame.number:
                    break  # The next sample may be nearer.
            if not ended and nearest.place >= certain:
                break
            done.append(self._frame(frame, nearest))
            self._pending.popleft()
        return done

    @staticmethod
    def _frame(frame: Frame, sample: _Sample) -> ExplainedFrame:
        assert sample.window is not None
        assert sample.heat is not None
        if sample.count > 1:
            sample.heat, sample.count = (sample.heat / np.float32(sample.count)).astype(np.float32), 1
        return explained(frame, sample.window, sample.part, sample.limits, sample.heat)


def explained(
    frame: Frame,
    window: HeatWindow,
    part: int,
    limits: tuple[float, float],
    heat: npt.NDArray[np.float32] | None = None,
) -> ExplainedFrame:
    """A frame with one part of a window, or with other heat than that."""
    return ExplainedFrame(
        frame,
        window.heat[part] if heat is None else heat,
        window.region,
        None if window.segments is None else window.segments[part],
        limits,
        window.target,
        window.classes,
        window.method,
    )


def _comparable(
    first: HeatWindow, second: HeatWindow, first_heat: npt.NDArray[np.float32], second_heat: npt.NDArray[np.float32]
) -> bool:
    """Were both explained in the same way, so that an average means something?"""
    return first.method == second.method and first_heat.shape == second_heat.shape and first.region == second.region
