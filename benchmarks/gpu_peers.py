"""Other SLICs on a GPU: a straightforward one in CuPy and in Numba, run here, and the figures that others published.

Neither of the two enforces connectivity, takes clips or a gradient; both sum floats in the order that atomics come in.
They are what someone writes who has no library for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import COMPACTNESS, ITERATIONS

SOURCE = Path(__file__).with_name("gpu_slic_peer.cu")
THREADS = 256
#: Share of the labels that must be the float64 definition's: the rest are pixels between two nearly equal centres.
AGREEMENT = 0.98


@dataclass(frozen=True)
class Published:
    """A figure that was not measured here."""

    library: str
    size: str
    milliseconds: float
    device: str
    source: str


#: gSLICr leaves superpixels in several pieces (it replaces single pixels by their neighbours' label).
PUBLISHED = (
    Published("gSLICr", "640 x 480", 3.4, "GTX Titan X", "Ren, Prisacariu, Reid, arXiv:1509.04232 (2015)"),
    Published("gSLICr", "640 x 480", 4.5, "GTX Titan Black", "github.com/carlren/gSLICr, README"),
    Published("gSLICr", "1280 x 960", 13.0, "GTX Titan Black", "github.com/carlren/gSLICr, README"),
    Published("gSLICr", "1920 x 1080", 25.0, "GTX Titan Black", "github.com/carlren/gSLICr, README"),
)


def grid(height: int, width: int, wanted: int) -> tuple[int, int, float]:
    """Cells along y and x, and the step between centres in pixels."""
    step = (height * width / wanted) ** 0.5
    return max(1, round(height / step)), max(1, round(width / step)), step


def definition(rgb: np.ndarray, wanted: int) -> np.ndarray:
    """What the peers compute, in NumPy and float64: uint8 [H, W, 3] -> int [H, W]."""
    from skimage.color import rgb2lab

    height, width = rgb.shape[:2]
    cells_y, cells_x, step = grid(height, width, wanted)
    y, x = np.mgrid[:height, :width]
    pixels = np.concatenate([rgb2lab(rgb), y[..., None], x[..., None]], axis=-1)
    at_y = (2 * np.arange(cells_y) + 1) * height // (2 * cells_y)
    at_x = (2 * np.arange(cells_x) + 1) * width // (2 * cells_x)
    centres = pixels[at_y][:, at_x].reshape(-1, 5)
    weights = np.array([1 / COMPACTNESS**2] * 3 + [1 / step**2] * 2)
    cell = np.stack([y * cells_y // height, x * cells_x // width], -1)
    labels = np.zeros((height, width), np.int64)
    for _ in range(ITERATIONS):
        best = np.full((height, width), np.inf)
        for move in np.ndindex(3, 3):
            k = cell + np.array(move) - 1
            inside = (k >= 0).all(-1) & (k < [cells_y, cells_x]).all(-1)
            number = np.where(inside, k[..., 0] * cells_x + k[..., 1], 0)
            distance = np.where(inside, ((pixels - centres[number]) ** 2 * weights).sum(-1), np.inf)
            closer = distance < best
            best, labels = np.where(closer, distance, best), np.where(closer, number, labels)
        members = np.bincount(labels.ravel(), minlength=len(centres))
        for v in range(5):
            total = np.bincount(labels.ravel(), pixels[..., v].ravel(), len(centres))
            centres[:, v] = np.where(members > 0, total / np.maximum(members, 1), centres[:, v])
    return labels


@dataclass
class Arrays:
    """What a peer works on, allocated once: tensors on the device."""

    rgb: Any  # uint8 [items, H, W, 3]
    wanted: int

    def __post_init__(self) -> None:
        items, height, width, _ = self.rgb.shape
        cells_y, cells_x, step = grid(height, width, self.wanted)
        self.shape = (height, width, cells_y, cells_x)
        self.items, self.pixels, self.count = items, height * width, cells_y * cells_x
        self.weights = (1 / COMPACTNESS**2, 1 / step**2)
        place = {"device": self.rgb.device}
        self.lab = torch.empty(items * self.pixels, 3, **place)
        self.centres = torch.empty(items * self.count, 5, **place)
        self.sums = torch.empty(items * self.count, 6, **place)
        self.labels = torch.empty(items * self.pixels, dtype=torch.int32, **place)


def blocks(n: int) -> int:
    """Blocks of threads that hold n."""
    return -(-n // THREADS)


def run_steps(arrays: Arrays, launch: Callable[..., None]) -> None:
    """The launches of one call; `launch(name, threads, *arguments)` starts a kernel of the `.cu` file's signature."""
    a = arrays
    everything, centres = a.items * a.pixels, a.items * a.count
    launch("to_lab", everything, a.rgb, a.lab, everything)
    launch("seed", centres, a.lab, a.centres, a.sums, a.items, *a.shape)
    for iteration in range(ITERATIONS):
        weights = tuple(map(np.float32, a.weights))
        launch("assign", everything, a.lab, a.centres, a.sums, a.labels, a.items, *a.shape, *weights)
        if iteration + 1 < ITERATIONS:
            launch("update", centres, a.centres, a.sums, centres)


def cupy_peer() -> Callable[[Arrays], Callable[[], None]]:
    """From arrays to a function without arguments that runs the CuPy peer on torch's current stream.

    Raises:
        ImportError: CuPy is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cupy
    module = cupy.RawModule(code=SOURCE.read_text(encoding="utf-8"))
    kernels = {name: module.get_function(name) for name in ("to_lab", "seed", "assign", "update")}

    def prepare(arrays: Arrays) -> Callable[[], None]:
        shared = {
            id(tensor): cupy.asarray(tensor)
            for tensor in (arrays.rgb, arrays.lab, arrays.centres, arrays.sums, arrays.labels)
        }

        def launch(name: str, threads: int, *arguments: Any) -> None:
            given = [np.int32(v) if isinstance(v, int) else shared.get(id(v), v) for v in arguments]
            kernels[name]((blocks(threads),), (THREADS,), tuple(given))

        def call() -> None:
            with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
                run_steps(arrays, launch)

        return call

    return prepare


def numba_peer(simulated: bool = False) -> Callable[[Arrays], Callable[[], None]]:
    """The same with Numba; `simulated` for its simulator, whose arrays are NumPy's.

    Raises:
        ImportError: Numba is not installed or finds no device.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from numba import cuda
    if not simulated and not cuda.is_available():
        raise ImportError("numba.cuda finds no device")
    from benchmarks import gpu_peer_numba as kernels

    def prepare(arrays: Arrays) -> Callable[[], None]:
        def share(tensor: torch.Tensor) -> Any:
            return tensor.numpy() if simulated else cuda.as_cuda_array(tensor)

        a = arrays
        rgb = share(a.rgb.reshape(-1, 3))
        lab, centres, sums, labels = (share(tensor) for tensor in (a.lab, a.centres, a.sums, a.labels))
        of_kernel: dict[str, tuple[Any, ...]] = {
            "to_lab": (rgb, lab),
            "seed": (lab, centres, sums, *a.shape),
            "assign": (lab, centres, sums, labels, *a.shape, *map(np.float32, a.weights)),
            "update": (centres, sums),
        }

        def call() -> None:
            stream = 0 if simulated else cuda.external_stream(torch.cuda.current_stream().cuda_stream)

            def launch(name: str, threads: int, *_: Any) -> None:
                getattr(kernels, name)[blocks(threads), THREADS, stream](*of_kernel[name])

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Small grids are slow, it says.
                run_steps(arrays, launch)

        return call

    return prepare


def assert_right(arrays: Arrays, pictures: np.ndarray, name: str) -> float:
    """The least share of the first pictures' labels that are the definition's; raises where it is too small."""
    found = arrays.labels.cpu().numpy().reshape(-1, *pictures.shape[1:3])
    least = min(
        float((labels == definition(picture, arrays.wanted)).mean())
        for labels, picture in zip(found[: len(pictures)], pictures, strict=True)
    )
    assert least >= AGREEMENT, f"{name}: only {least:.1%} of the labels are those of its definition"
    return least
