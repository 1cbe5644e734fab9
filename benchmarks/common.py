"""Photographs, timing and reporting shared by the benchmarks."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import sklearn
from PIL import Image
from rich.console import Console
from rich.table import Table

import midgrain as mg


def photographs() -> dict[str, np.ndarray]:
    """The photographs in scikit-image's and scikit-learn's packages, uint8 RGB at their own size."""
    skimage_data = Path(skimage.__file__).parent / "data"
    sklearn_data = Path(sklearn.__file__).parent / "datasets" / "images"
    paths = {
        "chelsea": skimage_data / "chelsea.png",
        "coffee": skimage_data / "coffee.png",
        "astronaut": skimage_data / "astronaut.png",
        "rocket": skimage_data / "rocket.jpg",
        "motorcycle": skimage_data / "motorcycle_left.png",
        "china": sklearn_data / "china.jpg",
        "flower": sklearn_data / "flower.jpg",
    }
    return {name: np.asarray(Image.open(path).convert("RGB")) for name, path in paths.items()}


def resized(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """A centre crop of the wanted aspect, resized; uint8."""
    h, w = photo.shape[:2]
    scale = min(h / height, w / width)
    ch, cw = round(height * scale), round(width * scale)
    top, left = (h - ch) // 2, (w - cw) // 2
    crop = Image.fromarray(photo[top : top + ch, left : left + cw])
    return np.asarray(crop.resize((width, height), Image.Resampling.BICUBIC))


def pictures_or_clips(photos: Iterable[np.ndarray], frames: int, height: int, width: int) -> list[np.ndarray]:
    """The photographs at this size; with more than one frame each is a slow pan, uint8 [T, H, W, 3]."""
    pictures = []
    for photo in photos:
        wide = resized(photo, height, width + frames - 1)
        clip = np.stack([wide[:, t : t + width] for t in range(frames)])
        pictures.append(clip if frames > 1 else clip[0])
    return pictures


def race(contestants: Mapping[str, Sequence[Callable[[], Any]]], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of one call of each contestant: median, fastest and slowest.

    A contestant is a list of calls, one per input. All contestants take turns on each input, so that a busy moment
    of the machine hits them alike, and no single input is learnt by heart.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):  # the first is a warm-up
        for calls in zip(*contestants.values(), strict=True):
            for name, call in zip(contestants, calls, strict=True):
                start = time.perf_counter()
                call()
                if turn > 0:
                    times[name].append((time.perf_counter() - start) * 1e3)
    return {name: {"median": statistics.median(t), "min": min(t), "max": max(t)} for name, t in times.items()}


def environment() -> dict[str, Any]:
    """What the figures were measured with."""
    return {
        "midgrain": mg.__version__,
        "scikit-image": skimage.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "kernels": mg.build_info()["cpu"],
    }


def report(name: str, columns: Sequence[str], rows: Sequence[dict[str, Any]], note: str = "") -> None:
    """Print a Markdown-ready table, and write JSON where `--json FILE` says."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    table = Table(box=None, title=name, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        table.add_row(*[f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c]) for c in columns])
    console = Console(width=200)
    console.print(table)
    if note:
        console.print(note, highlight=False)
    if arguments.json:
        arguments.json.write_text(json.dumps({"environment": environment(), "rows": list(rows)}, indent=2) + "\n")
