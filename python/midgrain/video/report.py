"""What became of a stream: counts, times per stage, latency."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["StageTimes", "StreamReport"]


@dataclass(frozen=True)
class StageTimes:
    """How long one stage worked on its items, waiting excluded.

    Attributes:
        count: items so far.
        total: seconds.
        p50: median of the latest items, seconds; NaN without any.
        p95: likewise the 95th percentile.
    """

    count: int
    total: float
    p50: float
    p95: float


@dataclass(frozen=True)
class StreamReport:
    """A stream so far, or as a whole.

    Attributes:
        frames: that the source delivered.
        windows: that were explained.
        written: frames that the sink took.
        dropped: frames left out because newer ones had come; always 0 for files.
        reconnects: how often a live source was lost and found again.
        seconds: since the beginning.
        rate: frames written per second of the latest seconds.
        stages: by name ("decode", "preprocess", "network", "explain", "draw", "write").
        latency: from a frame's arrival to its being written.
        ended: "running", "end of stream", "stopped" (by the user) or "source lost".
        complaints: what was wrong with the source, each once.
    """

    frames: int = 0
    windows: int = 0
    written: int = 0
    dropped: int = 0
    reconnects: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    stages: Mapping[str, StageTimes] = field(default_factory=dict)
    latency: StageTimes = field(default_factory=lambda: StageTimes(0, 0.0, float("nan"), float("nan")))
    ended: str = "running"
    complaints: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """The same as JSON has it: None for what is not known.

        Example:
            >>> from midgrain.video import StreamReport
            >>> facts = StreamReport(frames=3).facts()
            >>> facts["frames"], facts["latency"]["p50"]
            (3, None)
        """
        found: dict[str, Any] = _plain(asdict(self))
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
