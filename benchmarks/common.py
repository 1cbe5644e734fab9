"""Photographs, timing and reporting shared by the benchmarks."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
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


def milliseconds(calls: Sequence[Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median, fastest and slowest time of one call. The calls take turns, so no single input is learnt by heart."""
    for call in calls:
        call()
    times = []
    for _ in range(repeats):
        for call in calls:
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


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
