"""How near does each kernel come to what the device can do? Peaks measured in the same run, times from the profiler.

`gpu_kernel_models` says what a kernel needs at least. Its floor is the longer of two times: its bytes at the speed of a
large copy, and its integer operations at the rate of a kernel that does nothing else.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_kernel_models import Model
from benchmarks.gpu_timing import Clock

SOURCE = Path(__file__).with_name("gpu_integer_peak.cu")
#: Independent multiply-adds per round and thread of that source.
CHAINS = 8
_NAME = re.compile(r"midgrain.*?(\w+_kernel)\b")


def copy_bandwidth(clock: Clock, megabytes: int) -> float:
    """Bytes per second of a copy on the device that no cache holds; what is read and written both count."""
    source = torch.ones(megabytes << 18, device=clock.device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / clock.in_a_row([lambda: target.copy_(source)]).median * 1e6


def integer_rate(clock: Clock, rounds: int = 4096) -> float:
    """32-bit multiply-adds per second, all multiprocessors together.

    Raises:
        ImportError: CuPy, which compiles the kernel, is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cupy
    kernel = cupy.RawKernel(SOURCE.read_text(encoding="utf-8"), "multiply_adds")
    processors = torch.cuda.get_device_properties(clock.device).multi_processor_count
    blocks, threads = 16 * processors, 256
    out = cupy.empty(blocks * threads, cupy.uint32)
    arguments = (out, np.uint32(1664525), np.uint32(1013904223), np.int32(rounds))

    def call() -> None:
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            kernel((blocks,), (threads,), arguments)

    return blocks * threads * CHAINS * rounds / clock.alone([call]).median * 1e6


def short_name(name: str) -> str | None:
    """assign_kernel of "void midgrain::cuda::(anonymous namespace)::assign_kernel<4>(...)"; None for other kernels."""
    found = _NAME.search(name)
    return None if found is None else found[1]


def sum_by_kernel(events: Iterable[tuple[str, float]], calls: int) -> dict[str, float]:
    """Microseconds per call of the operation by our kernels' short names, from (name, microseconds) of every launch."""
    sums: dict[str, float] = {}
    for name, duration in events:
        kernel = short_name(name)
        if kernel is not None:
            sums[kernel] = sums.get(kernel, 0.0) + duration / calls
    return sums


def kernel_times(calls: Sequence[Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Microseconds per call by kernel, as CUPTI saw them; empty where it saw none."""
    from torch.profiler import ProfilerActivity, profile

    for call in calls:
        call()
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiled:
            for _ in range(repeats):
                for call in calls:
                    call()
            torch.cuda.synchronize()
    device = torch.autograd.DeviceType.CUDA
    launches = [(e.name, e.time_range.elapsed_us()) for e in profiled.events() if e.device_type == device]
    return sum_by_kernel(launches, repeats * len(calls))


def floor_rows(
    operation: str, models: Sequence[Model], times: dict[str, float], bandwidth: float, rate: float | None
) -> list[dict[str, Any]]:
    """One row per kernel: time, floors, and which share of the time the longer floor is."""
    rows = []
    for model in models:
        measured = times.get(model.kernel)
        memory = model.bytes / bandwidth * 1e6
        integer = None if rate is None else model.operations / rate * 1e6
        rows.append(
            {
                "operation": operation,
                "kernel": model.kernel,
                "launches": model.launches,
                "time [us]": _or_none(measured),
                "bytes [10^6]": model.bytes / 1e6,
                "integer operations [10^6]": model.operations / 1e6,
                "memory floor [us]": memory,
                "integer floor [us]": _or_none(integer),
                "of the bandwidth": _share(memory, measured),
                "of the integer rate": _share(integer, measured),
            }
        )
    return rows


def _share(floor: float | None, measured: float | None) -> str:
    return "not measured" if floor is None or not measured else f"{floor / measured:.1%}"


def _or_none(value: float | None) -> float | str:
    return "not measured" if value is None else value
