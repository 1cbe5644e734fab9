"""What can this machine do at most? Peak multiply-adds and memory bandwidth, and what SLIC needs at least of each."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.common import ITERATIONS, parser, report
from midgrain._kernels import cpu
from midgrain.timing import race

# name, frames, height, width, wanted superpixels
CASES = [
    ("224 x 224, 300", 1, 224, 224, 300),
    ("1080 x 1920, 2000", 1, 1080, 1920, 2000),
    ("16 x 112 x 112, 120", 16, 112, 112, 120),
]


def multiply_adds(threads: int, seconds: float = 0.5) -> float:
    """Most multiply-adds per second, int16 x int16 to int32 in registers, with the instruction set in use."""
    bursts = 10
    return max(cpu.multiply_adds_per_second(seconds / bursts, threads) for _ in range(bursts))


def bandwidth(threads: int, seconds: float = 0.5, megabytes: int = 256) -> float:
    """Most bytes per second of a copy between arrays that no cache holds; what is read and written both count."""
    arrays = [[np.ones(megabytes << 17) for _ in range(2)] for _ in range(threads)]
    size = sum(array.nbytes for pair in arrays for array in pair)
    with ThreadPoolExecutor(threads) as pool:
        copy = {"copy": lambda pairs: list(pool.map(lambda pair: np.copyto(*pair), pairs))}
        return size / min(race(copy, [arrays], seconds)["copy"].wall) * 1e3


def candidates(frames: int, height: int, width: int, wanted: int) -> float:
    """Centres that compete for a pixel, on average: windows of two steps to each side, cut at the borders."""
    dims = (frames, height, width)
    plan = cpu.slic_geometry(dims, wanted, (1.0, 1.0, 1.0), [1.0])
    product = 1.0
    for pixels, cells in zip(dims, plan["cells"], strict=True):
        centres = (np.arange(cells) + 0.5) * pixels / cells
        reach = np.abs(np.arange(pixels) + 0.5 - centres[:, None]) <= 2 * plan["step"]
        product *= float(reach.sum() / pixels)
    return product


def slic_multiply_adds(frames: int, height: int, width: int, wanted: int, channels: int) -> float:
    """Of one whole SLIC that looks at every candidate: features alone, taken in pairs; positions come on top."""
    pairs = math.ceil(channels / 2)
    pixels = frames * height * width
    return pixels * candidates(frames, height, width, wanted) * 2 * pairs * ITERATIONS


def slic_bytes(frames: int, height: int, width: int, channels: int) -> float:
    """Of one whole SLIC that keeps nothing in caches: per iteration int16 features in, int32 labels in and out."""
    return frames * height * width * (2 * channels + 8) * ITERATIONS


def slic_floor(case: tuple[int, int, int, int], channels: int, rate: float) -> float:
    """Milliseconds that the assignment of all candidates takes at `rate` multiply-adds per second."""
    return slic_multiply_adds(*case, channels) / rate * 1e3


def main() -> None:
    """Print the tables."""
    arguments = parser("floors", __doc__).parse_args()
    seconds, megabytes = (0.02, 8) if arguments.quick else (0.5, 256)
    before = cpu.instruction_set()
    peaks: list[dict[str, Any]] = []
    for name in cpu.available_instruction_sets():
        cpu.select_instruction_set(name)
        one, two = multiply_adds(1, seconds), multiply_adds(2, seconds)
        peaks.append(
            {"multiply-adds": f"10^9 per second, {name}", "1 thread": one / 1e9, "2 threads": two / 1e9},
        )
    cpu.select_instruction_set(before)
    rates = {threads: multiply_adds(threads, seconds) for threads in (1, 2)}
    speeds = {threads: bandwidth(threads, seconds, megabytes) for threads in (1, 2)}
    copies = [{"copy": "10^9 bytes per second", "1 thread": speeds[1] / 1e9, "2 threads": speeds[2] / 1e9}]
    needs = []
    for name, *case in CASES:
        work, moved = slic_multiply_adds(*case, channels=4), slic_bytes(*case[:3], channels=4)
        needs.append(
            {
                "size, superpixels": name,
                "candidates of a pixel": candidates(*case),
                "multiply-adds [10^6]": work / 1e6,
                "arithmetic, 1 thread [ms]": work / rates[1] * 1e3,
                "2 threads [ms]": work / rates[2] * 1e3,
                "bytes [10^6]": moved / 1e6,
                "memory, 1 thread [ms]": moved / speeds[1] * 1e3,
                "memory, 2 threads [ms]": moved / speeds[2] * 1e3,
            }
        )
    report(
        arguments,
        {"Peaks": peaks, "Memory": copies, f"SLIC with four features, {ITERATIONS} iterations": needs},
        [
            f"Times with {before}. The arithmetic is that of comparing every candidate; a kernel that rules candidates "
            "out in groups may take less. Memory is what a picture that fits no cache would move."
        ],
    )


if __name__ == "__main__":
    main()
