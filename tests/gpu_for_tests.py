"""Pictures, comparisons and small tools of the tests in `tests/gpu`.

Every check there is a function of the device: on "cuda" it is a test of the GPU, on "cpu" the same lines run with other
threads and batches than the reference, so that a mistake in a check is found where there is no GPU.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from PIL import Image
from torch import Tensor

import midgrain as mg

Array = np.ndarray[Any, Any]

_PACKAGED = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png")


def why_no_gpu() -> str | None:
    """Why the tests of the GPU cannot run here; None where they can."""
    cuda = mg.build_info()["cuda"]
    if not cuda["usable"]:
        return str(cuda["reason"])
    return None if torch.cuda.is_available() else "torch sees no CUDA device"


@functools.cache
def photographs() -> dict[str, Array]:
    """The photographs in scikit-image's package and, where it is there, scikit-learn's; uint8 RGB, their own sizes."""
    paths = [Path(skimage.__file__).parent / "data" / name for name in _PACKAGED]
    with contextlib.suppress(ModuleNotFoundError):
        import sklearn

        paths += [Path(sklearn.__file__).parent / "datasets" / "images" / name for name in ("china.jpg", "flower.jpg")]
    return {path.stem: np.array(Image.open(path).convert("RGB")) for path in paths}


def resized(photo: Array, height: int, width: int) -> Array:
    return np.array(Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC))


def pictures(count: int, height: int = 224, width: int = 224) -> Array:
    """Different pictures, uint8 [count, H, W, 3]: whole photographs, then parts of them."""
    random = np.random.default_rng(0)
    photos = list(photographs().values())
    found = []
    for index in range(count):
        photo = photos[index % len(photos)]
        if index >= len(photos):
            h, w = (round(random.uniform(0.5, 0.95) * n) for n in photo.shape[:2])
            top, left = random.integers(photo.shape[0] - h + 1), random.integers(photo.shape[1] - w + 1)
            photo = photo[top : top + h, left : left + w]
        found.append(resized(photo, height, width))
    return np.stack(found)


def clips(count: int, frames: int = 16, height: int = 112, width: int = 112) -> Array:
    """Slow pans over photographs, uint8 [count, T, H, W, 3]."""
    wide = pictures(count, height, width + 2 * frames)
    return np.stack([wide[:, :, 2 * t : 2 * t + width] for t in range(frames)], axis=1)


def slopes(images: Array) -> Array:
    """How steep the brightness is, float32 [B, (T,) H, W]: it stands in for a gradient map."""
    brightness = images.astype(np.float32).mean(-1)
    dy = np.diff(brightness, axis=-2, append=brightness[..., -1:, :])
    dx = np.diff(brightness, axis=-1, append=brightness[..., -1:])
    return np.hypot(dy, dx)


def channels_first(images: Array) -> Array:
    """[B, ..., 3] -> [B, 3, ...], contiguous."""
    return np.ascontiguousarray(np.moveaxis(images, -1, 1))


def put(array: Array, device: torch.device | None) -> Any:
    """A tensor on the device with memory of its own; without a device the array itself."""
    if device is None:
        return array
    return torch.from_numpy(np.array(array)).to(device)


def bits(array: Array) -> Array:
    """The values' bits, every NaN being the same one."""
    if array.dtype.kind != "f":
        return array
    plain = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    return plain.view(f"i{array.dtype.itemsize}")


def assert_same(result: Tensor, expected: Array, device: torch.device) -> None:
    """The result lies on the device and has the expected array's dtype, shape and bits."""
    assert result.device.type == device.type
    found = result.detach().cpu().numpy()
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    different = int((bits(found) != bits(expected)).sum())
    assert different == 0, f"{different} of {expected.size} values differ"


def assert_equal_explanations(first: Any, second: Any) -> None:
    """Heat maps, superpixels, scores and targets of two explanations are the same, bit for bit."""
    for name in ("heatmap", "segments", "scores", "counts", "target"):
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert np.array_equal(bits(a.cpu().numpy()), bits(b.cpu().numpy())), name


@contextlib.contextmanager
def stream_of_its_own(device: torch.device) -> Iterator[None]:
    """On CUDA, work goes to a new stream that waits for what came before; afterwards the old one waits for it."""
    if device.type != "cuda":
        yield
        return
    outer, inner = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    inner.wait_stream(outer)
    with torch.cuda.stream(inner):
        yield
    outer.wait_stream(inner)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def record(call: Callable[[], Any], device: torch.device) -> tuple[Any, Callable[[], None]]:
    """Captures what `call` launches as a CUDA graph, after three warm-up calls.

    Returns:
        what the captured call returned, and a function that replays it into the same memory. On the CPU, where there
        are no graphs, the function calls again and copies.
    """
    if device.type == "cuda":
        with stream_of_its_own(device):
            for _ in range(3):
                call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = call()
        return captured, graph.replay
    first = call()
    static = [each.clone() for each in as_tuple(first)]

    def again() -> None:
        for target, source in zip(static, as_tuple(call()), strict=True):
            target.copy_(source)

    return tuple(static) if isinstance(first, tuple) else static[0], again


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
