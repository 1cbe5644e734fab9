"""Counts and times of a running stream, to be read from any thread."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from midgrain.video.report import StageTimes, StreamReport

__all__ = ["StreamStats"]

# Of each stage, for its percentiles.
_LATEST = 1024
# Seconds over which the rate is taken.
_RATE_OVER = 5.0


class _Times:
    def __init__(self) -> None:
        self.count, self.total = 0, 0.0
        self.latest: deque[float] = deque(maxlen=_LATEST)

    def add(self, seconds: float) -> None:
        self.count += 1
        self.total += seconds
        self.latest.append(seconds)

    def summary(self) -> StageTimes:
        p50, p95 = np.percentile(self.latest, (50, 95)).tolist() if self.latest else (math.nan, math.nan)
        return StageTimes(self.count, self.total, p50, p95)


class StreamStats:
    """What a stream has done so far. The stream writes, everybody may read.

    Example:
        >>> from midgrain.video import StreamStats
        >>> StreamStats().snapshot().ended
        'running'
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._seconds: float | None = None
        self._counts = {"frames": 0, "windows": 0, "dropped": 0, "written": 0}
        self._stages: dict[str, _Times] = {}
        self._latency = _Times()
        self._written_at: deque[float] = deque()
        self._reconnects = 0
        self._ended = "running"
        self._complaints: dict[str, None] = {}

    def snapshot(self) -> StreamReport:
        """The figures of this moment."""
        with self._lock:
            seconds = self._seconds if self._seconds is not None else time.monotonic() - self._begun
            return StreamReport(
                **self._counts,
                reconnects=self._reconnects,
                seconds=seconds,
                rate=self._rate(),
                stages={name: times.summary() for name, times in self._stages.items()},
                latency=self._latency.summary(),
                ended=self._ended,
                complaints=tuple(self._complaints),
            )

    def _rate(self) -> float:
        until = time.monotonic() if self._ended == "running" else (self._written_at[-1] if self._written_at else 0.0)
        recent = [at for at in self._written_at if at > until - _RATE_OVER]
        lasts = min(_RATE_OVER, until - self._begun)
        return len(recent) / lasts if lasts > 0 else 0.0

    def begin(self) -> None:
        """The clock starts now."""
        with self._lock:
            self._begun = time.monotonic()

    def count(self, **more: int) -> None:
        """Add to "frames", "windows" or "dropped"."""
        with self._lock:
            for name, number in more.items():
                self._counts[name] += number

    def spent(self, stage: str, seconds: float) -> None:
        """A stage has worked on an item for so long."""
        with self._lock:
            self._stages.setdefault(stage, _Times()).add(seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What is done inside belongs to a stage."""
        start = time.perf_counter()
        yield
        self.spent(name, time.perf_counter() - start)

    def written(self, arrived: float) -> None:
        """The sink has taken a frame that was there at `arrived`, `time.monotonic()`."""
        now = time.monotonic()
        with self._lock:
            self._counts["written"] += 1
            self._latency.add(now - arrived)
            self._written_at.append(now)
            while self._written_at[0] <= now - _RATE_OVER:
                self._written_at.popleft()

    def source(self, reconnects: int, complaints: Iterable[str]) -> None:
        """What the source says of itself."""
        with self._lock:
            self._reconnects = reconnects
            self._complaints.update(dict.fromkeys(complaints))

    def complain(self, complaint: str) -> None:
        """Something is not as it should be; told once."""
        with self._lock:
            self._complaints[complaint] = None

    def end(self, how: str) -> None:
        """Nothing more comes."""
        with self._lock:
            self._ended = how
            self._seconds = time.monotonic() - self._begun
