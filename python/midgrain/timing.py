"""Races between implementations, and the machine that they were run on; shared with `benchmarks/` of the repository."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["Times", "machine", "race", "summary"]

Input = TypeVar("Input")


@dataclass(frozen=True)
class Times:
    """Milliseconds of each call of one contestant, by two clocks.

    Example:
        >>> from midgrain.timing import Times, summary
        >>> summary(Times([3.0, 5.0], [2.0, 3.0]))["median"]
        4.0
    """

    #: As they passed on the wall.
    wall: list[float] = field(default_factory=list)
    #: That the calling thread had a core: what a call of one thread costs, whatever else the machine is doing.
    cpu: list[float] = field(default_factory=list)


def race(
    contestants: Mapping[str, Callable[[Input], Any]],
    inputs: Sequence[Input],
    seconds: float,
    *,
    least: int = 3,
    before: Mapping[str, Callable[[], Any]] | None = None,
    rest: float = 0.0,
) -> dict[str, Times]:
    """The times of every call, contestants taking turns on one input after the other.

    All of them meet a busy moment of the machine alike, whoever begins changes from turn to turn, and where there are
    many inputs none is learnt by heart by the branch predictor.

    Args:
        contestants: by name, functions of one input.
        inputs: taken round and round.
        seconds: for all together, after one warm-up turn. A turn that has begun is ended.
        least: turns that are run however long they take.
        before: what to do, unmeasured, before each call of the contestant of that name (a thread setting).
        rest: seconds before each call. OpenMP's workers wait busily for some milliseconds after their last one, on the
            cores that the next contestant needs.

    Returns:
        By name one time per turn; the n-th times of all contestants belong to the same input.

    Example:
        >>> from midgrain.timing import race
        >>> times = race({"sum": sum, "sorted": sorted}, [[1, 2], [3]], 0.0)
        >>> [len(t.wall) for t in times.values()]
        [3, 3]
    """
    names = list(contestants)
    prepare = before or {}
    times = {name: Times() for name in names}
    turn = -1
    end = 0.0
    while turn < least or time.perf_counter() < end:
        item = inputs[turn % len(inputs)]
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if name in prepare:
                prepare[name]()
            rested = time.perf_counter() + rest
            while time.perf_counter() < rested:  # Awake, so that this core keeps its clock.
                pass
            start, start_cpu = time.perf_counter(), time.thread_time()
            contestants[name](item)
            wall, cpu = time.perf_counter() - start, time.thread_time() - start_cpu
            if turn >= 0:
                times[name].wall.append(wall * 1e3)
                times[name].cpu.append(cpu * 1e3)
        turn += 1
        if turn == 0:
            end = time.perf_counter() + seconds
    return times


def summary(times: Times, inputs: int = 1) -> dict[str, float]:
    """The figures of one contestant's times.

    Args:
        times: as `race` returns them.
        inputs: how many there were; they came round and round.

    Returns:
        On the wall: "median", "p10" and "p90" of all runs (10th and 90th percentile); "fastest", the median over the
        inputs of the fastest run of each, which a machine with other things to do blurs least; "runs", how many
        there were. "cpu": as "fastest", of the calling thread's time on a core.

    Example:
        >>> from midgrain.timing import Times, summary
        >>> summary(Times([1.0, 2.0, 3.0], [0.5, 0.5, 0.5]))
        {'median': 2.0, 'p10': 1.2, 'p90': 2.8, 'fastest': 1.0, 'cpu': 0.5, 'runs': 3}
    """
    ordered = sorted(times.wall)

    def percentile(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    def fastest(values: Sequence[float]) -> float:
        return statistics.median(min(values[i::inputs]) for i in range(min(inputs, len(values))))

    return {
        "median": statistics.median(ordered),
        "p10": percentile(0.1),
        "p90": percentile(0.9),
        "fastest": fastest(times.wall),
        "cpu": fastest(times.cpu),
        "runs": len(ordered),
    }


def machine() -> dict[str, Any]:
    """The processor's name, its kind and the cores that this process may use.

    Example:
        >>> from midgrain.timing import machine
        >>> sorted(machine())
        ['architecture', 'cores', 'processor']
    """
    name = ""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": name or platform.processor() or "unknown",
        "architecture": platform.machine(),
        "cores": usable,
    }
