"""Photographs, correctness checks and reporting shared by the benchmarks."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from PIL import Image
from scipy import ndimage

import midgrain as mg
from midgrain._kernels import cpu
from midgrain.timing import machine, race, summary

COMPACTNESS = 10.0
ITERATIONS = 10
LAB_RANGES = list(mg.ops.LAB_RANGES)
SKIMAGE_DATA = Path(skimage.__file__).parent / "data"

_PACKAGES = ("numpy", "scikit-image", "scipy", "fast-slic", "torch", "torchvision", "grad-cam", "captum", "torchcam")
# Standard deviation, of 255, of the noise that an enlarged photograph lacks and a camera of its size has.
_SENSOR_NOISE = 2.0


def photographs() -> dict[str, np.ndarray]:
    """The photographs in scikit-image's and scikit-learn's packages, uint8 RGB at their own size."""
    import sklearn  # Here, because what needs no photographs can be measured without it.

    sklearn_data = Path(sklearn.__file__).parent / "datasets" / "images"
    paths = {
        "chelsea": SKIMAGE_DATA / "chelsea.png",
        "coffee": SKIMAGE_DATA / "coffee.png",
        "astronaut": SKIMAGE_DATA / "astronaut.png",
        "rocket": SKIMAGE_DATA / "rocket.jpg",
        "motorcycle": SKIMAGE_DATA / "motorcycle_left.png",
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


def pictures(count: int, frames: int, height: int, width: int) -> list[np.ndarray]:
    """Different pictures of one size, uint8 [H, W, 3]; with several frames slow pans, [T, H, W, 3].

    First every photograph as a whole, then random parts of them, every other one mirrored.
    """
    random = np.random.default_rng(0)
    photos = list(photographs().values())
    result = []
    for index in range(count):
        photo = photos[index % len(photos)]
        if index >= len(photos):
            part = random.uniform(0.6, 0.95)
            h, w = (round(part * n) for n in photo.shape[:2])
            top, left = random.integers(photo.shape[0] - h + 1), random.integers(photo.shape[1] - w + 1)
            photo = photo[top : top + h, left : left + w]
            if index % 2:
                photo = photo[:, ::-1]
        picture = resized(photo, height, width + frames - 1)
        if photo.shape[0] < height or photo.shape[1] < width:
            noise = random.normal(0.0, _SENSOR_NOISE, picture.shape)
            picture = np.rint(np.clip(picture + noise, 0, 255)).astype(np.uint8)
        if frames > 1:
            picture = np.stack([picture[:, t : t + width] for t in range(frames)])
        result.append(np.array(picture))  # contiguous and writable, as torch wants it
    return result


def race_calls(contestants: Mapping[str, Sequence[Callable[[], Any]]], seconds: float) -> dict[str, dict[str, float]]:
    """The summary of each contestant's times; a contestant is a list of calls, one per input."""
    number = len(next(iter(contestants.values())))
    by_index = {name: (lambda index, calls=calls: calls[index]()) for name, calls in contestants.items()}
    return {name: summary(times, number) for name, times in race(by_index, range(number), seconds).items()}


def slope(picture: np.ndarray) -> np.ndarray:
    """How steep the brightness is, float32 [(T,) H, W]: it stands in for a network's gradient map."""
    dy, dx = np.gradient(picture.astype(np.float32).mean(-1), axis=(-2, -1))
    return np.hypot(dy, dx)


def lab_features(picture: np.ndarray) -> np.ndarray:
    """L, a and b, float32 [3, (T,) H, W]."""
    lab: np.ndarray = mg.ops.rgb_to_lab(picture[None], channel_axis=-1)[0]
    return lab


def pieces(labels: np.ndarray) -> list[int]:
    """How many pieces (faces touching) each of the labels 0 .. max is in; 0 for one that is missing."""
    structure = ndimage.generate_binary_structure(labels.ndim, 1)
    boxes = ndimage.find_objects(labels + 1)
    return [
        0 if box is None else int(ndimage.label(labels[box] == label, structure)[1]) for label, box in enumerate(boxes)
    ]


def assert_connected(labels: np.ndarray) -> None:
    """Labels are 0 .. n-1, and each is one piece."""
    for label, number in enumerate(pieces(labels)):
        assert number == 1, f"superpixel {label} is in {number} pieces"


def environment() -> dict[str, Any]:
    """What the figures were measured with."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    # OpenCV comes in packages of several names.
    versions["opencv"] = getattr(sys.modules.get("cv2"), "__version__", None)
    torch = sys.modules.get("torch")
    return {
        "midgrain": mg.__version__,
        "python": platform.python_version(),
        "packages": versions,
        "torch threads": torch.get_num_threads() if torch is not None else None,
        "machine": machine(),
        "load": os.getloadavg()[0],  # busy processes over the last minute: what else the machine had to do
        "kernels": mg.build_info()["cpu"],
        "compiler": compiler(),
    }


def compiler() -> str:
    """What compiled the kernels, as the compiler itself noted in the file; empty where it did not."""
    found = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", Path(cpu.__file__).read_bytes())
    return found.group().decode() if found else ""


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    result = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=(description or "").split("\n")[0]
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="also write tables and environment here")
    result.add_argument("--quick", action="store_true", help="the smallest form: does it run?")
    return result


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table with a column per key of the first row."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += ["| " + " | ".join(_text(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def report(
    arguments: argparse.Namespace,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    notes: Iterable[str] = (),
    details: Any = None,
) -> None:
    """Print the tables as Markdown; write them, the details and the environment where `--json FILE` says."""
    here = environment()
    sets = here["kernels"]
    print(f"{here['machine']['processor']}, {here['machine']['cores']} cores, {sets['instruction_set']}")
    for title, rows in tables.items():
        print(f"\n**{title}**\n\n{markdown(rows)}")
    for note in notes:
        print(f"\n{note}")
    if arguments.json:
        content = {"environment": here, "tables": {title: list(rows) for title, rows in tables.items()}}
        if details is not None:
            content["details"] = details
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
