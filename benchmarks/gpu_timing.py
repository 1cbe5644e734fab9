"""Times on a GPU by its own events, on rotated inputs, after a warm-up; the CPU's clock where there is no GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

Call = Callable[[], Any]

#: Calls before the first that counts.
WARM_UP = 5
#: Calls between two events where they follow one another without a pause.
IN_A_ROW = 20


@dataclass(frozen=True)
class Spread:
    """Microseconds per call: the median of all runs and where the middle 80 % of them lie."""

    median: float
    p10: float
    p90: float
    runs: int

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def spread(times: Sequence[float]) -> Spread:
    """The figures of some times in microseconds."""
    ordered = sorted(times)

    def percentile(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    return Spread(statistics.median(ordered), percentile(0.1), percentile(0.9), len(ordered))


class Clock:
    """Measures calls on one device.

    Args:
        device: where the calls put their work.
        seconds: for one measurement.
        least: runs of one measurement, however long they take.
    """

    def __init__(self, device: torch.device, seconds: float, least: int = 5):
        self.device = device
        self.seconds = seconds
        self.least = least

    def synchronise(self) -> None:
        """Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def one(self, calls: Sequence[Call]) -> float:
        """Microseconds that the calls take together, one after the other, from an idle device on."""
        self.synchronise()
        if self.device.type != "cuda":
            start = time.perf_counter()
            for call in calls:
                call()
            return (time.perf_counter() - start) * 1e6
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for call in calls:
            call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e3

    def _measure(self, groups: Sequence[Sequence[Call]]) -> Spread:
        for index in range(WARM_UP if self.device.type == "cuda" else 1):
            self.one(groups[index % len(groups)])
        times: list[float] = []
        end = time.perf_counter() + self.seconds
        while len(times) < self.least or time.perf_counter() < end:
            group = groups[len(times) % len(groups)]
            times.append(self.one(group) / len(group))
        return spread(times)

    def alone(self, calls: Sequence[Call]) -> Spread:
        """One call at a time, the device idle before it: latency, launching included. Calls take turns."""
        return self._measure([[call] for call in calls])

    def in_a_row(self, calls: Sequence[Call]) -> Spread:
        """Per call of many that follow one another: throughput. Calls take turns."""
        n = max(len(calls), IN_A_ROW if self.device.type == "cuda" else 1)
        return self._measure([[calls[i % len(calls)] for i in range(n)]])

    def race(self, contestants: dict[str, Sequence[Call]]) -> dict[str, Spread]:
        """`alone` of several contestants that take turns, so that a change of clocks meets all of them alike."""
        for calls in contestants.values():
            for index in range(WARM_UP if self.device.type == "cuda" else 1):
                self.one([calls[index % len(calls)]])
        times: dict[str, list[float]] = {name: [] for name in contestants}
        end = time.perf_counter() + self.seconds
        turn = 0
        while turn < self.least or time.perf_counter() < end:
            for name, calls in contestants.items():
                times[name].append(self.one([calls[turn % len(calls)]]))
            turn += 1
        return {name: spread(each) for name, each in times.items()}


def captured_all(calls: Sequence[Call], device: torch.device) -> list[Call]:
    """`captured` of calls that are replayed in turn and whose results nobody reads: temporary memory is shared."""
    pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
    return [captured(call, device, pool) for call in calls]


def captured(call: Call, device: torch.device, pool: Any = None) -> Call:
    """The call as the replay of a CUDA graph, into the memory of its first run; itself where there are no graphs."""
    if device.type != "cuda":
        return call
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        kept = call()

    def replay(_: Any = kept) -> None:
        graph.replay()

    return replay
