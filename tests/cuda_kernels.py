"""The CUDA kernels as the CPU module's functions: the same names and arguments, arrays of NumPy, executed on the CPU.

With these in place of `midgrain._kernels.cpu`, everything above the kernels can be run on them (`as_backend`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

import cuda_library as cuda
from midgrain import _kernels
from midgrain._kernels import _cpu

Array = np.ndarray[Any, Any]

NOT_FINITE, WEIGHTS_TOO_SMALL, LABEL_OUTSIDE = 1, 2, 4


class BadValues(ValueError):  # noqa: N818
    """A kernel reported something in its status."""

    def __init__(self, status: Array) -> None:
        super().__init__(f"status {status.tolist()}")
        self.status = status


def _check(status: Array) -> None:
    if status.any():
        raise BadValues(status)


def _fresh(n: int) -> Array:
    """A status that a kernel has to overwrite."""
    return np.full(n, -7, np.int32)


def slic(
    features: Array,
    weights: Sequence[float],
    ranges: Sequence[tuple[float, float]] | None,
    n_segments: int,
    max_num_iter: int,
    spacing: Sequence[float],
    min_size: int,
    labels: Array,
    counts: Array,
    num_threads: int,
) -> None:
    items, channels, *dims = features.shape
    status = _fresh(items)
    limits = None if ranges is None else np.array(ranges, np.float32)
    cuda.call(
        "slic",
        features,
        items,
        channels,
        np.array(dims, np.int64),
        np.array(weights, np.float64),
        limits,
        n_segments,
        max_num_iter,
        np.array(spacing, np.float64),
        min_size,
        labels,
        counts,
        status,
    )
    _check(status)


def slic_pictures(
    images: Array | None,
    channels_last: bool,
    scale: Sequence[float],
    offset: Sequence[float],
    gradient: Array | None,
    weights: Sequence[float],
    n_segments: int,
    max_num_iter: int,
    spacing: Sequence[float],
    min_size: int,
    labels: Array,
    counts: Array,
    num_threads: int,
) -> None:
    status = _fresh(len(labels))
    cuda.call(
        "slic_pictures",
        *_colours(images),
        channels_last,
        np.array(scale, np.float32),
        np.array(offset, np.float32),
        gradient,
        len(labels),
        np.array(labels.shape[1:], np.int64),
        np.array(weights, np.float64),
        n_segments,
        max_num_iter,
        np.array(spacing, np.float64),
        min_size,
        labels,
        counts,
        status,
    )
    _check(status)


def _colours(images: Array | None) -> tuple[Array | None, Array | None]:
    """Bytes or floats, the other being None."""
    if images is None:
        return None, None
    return (images, None) if images.dtype == np.uint8 else (None, images)


def rgb_to_lab(rgb: Array, lab: Array, channels_last: bool, num_threads: int) -> None:
    status = _fresh(len(rgb))
    cuda.call("rgb_to_lab", *_colours(rgb), channels_last, len(rgb), lab.shape[2], lab, status)
    _check(status)


def enforce_connectivity(labels: Array, min_size: int, out: Array, counts: Array, num_threads: int) -> None:
    cuda.call("connectivity", labels, len(labels), np.array(labels.shape[1:], np.int64), min_size, out, counts)


# core::Reduce in its order.
REDUCTIONS = ("mean", "sum", "abs-sum", "l2", "var", "std", "max", "min", "median")


def _of(name: str, array: Array) -> str:
    return f"{name}_{'float' if array.dtype == np.float32 else 'double'}"


def _pool_shape(over_pixels: Array, over_regions: Array, labels: Array, channels_last: bool) -> Array:
    if channels_last:
        items, pixels, channels = over_pixels.shape
        regions = over_regions.shape[1]
    else:
        items, channels, pixels = over_pixels.shape
        regions = over_regions.shape[2]
    return np.array([len(labels), items, channels, pixels, regions, channels_last], np.int64)


def pool(values: Array, labels: Array, reduce: str, out: Array, num_threads: int, channels_last: bool = False) -> None:
    status = _fresh(len(labels))
    number = REDUCTIONS.index("abs-sum" if reduce == "l1" else reduce)
    cuda.call(_of("pool", values), values, labels, _pool_shape(values, out, labels, channels_last), number, out, status)
    _check(status)


def paint(scores: Array, labels: Array, out: Array, num_threads: int, channels_last: bool = False) -> None:
    status = _fresh(len(labels))
    cuda.call(_of("paint", scores), scores, labels, _pool_shape(out, scores, labels, channels_last), out, status)
    _check(status)


def _dims(*axes: Sequence[int]) -> Array:
    return np.array(np.concatenate(axes), np.int64)


def extract_patches(
    images: Array,
    cells: Sequence[int],
    grid: Sequence[int],
    size: Sequence[int],
    start: int,
    out: Array,
    num_threads: int,
) -> None:
    numbers = _dims(out.shape[3:], cells, grid, size, [start, out.shape[1]])
    cuda.call(_of("extract", images), images, *images.shape[:2], _dims(images.shape[2:]), numbers, out)


def extract_patches_backward(
    patches: Array,
    cells: Sequence[int],
    grid: Sequence[int],
    size: Sequence[int],
    start: int,
    out: Array,
    num_threads: int,
) -> None:
    numbers = _dims(patches.shape[3:], cells, grid, size, [start, patches.shape[1]])
    cuda.call(_of("extract_backward", patches), patches, *out.shape[:2], _dims(out.shape[2:]), numbers, out)


def aggregate_patches(maps: Array, grid: Sequence[int], out: Array, num_threads: int) -> None:
    cells = _dims(maps.shape[2:])
    cuda.call(_of("aggregate", maps), maps, len(maps), cells, _dims(grid), _dims(out.shape[1:]), out)


FUNCTIONS = (
    *(slic, slic_pictures, rgb_to_lab, enforce_connectivity, pool, paint),
    *(extract_patches, extract_patches_backward, aggregate_patches),
)


@contextlib.contextmanager
def as_backend(seed: int = 0) -> Iterator[None]:
    """Puts these functions in place of the CPU module's for a while; all others stay as they are."""
    before: ModuleType = _kernels.cpu
    mixed = SimpleNamespace(**{name: getattr(_cpu, name) for name in dir(_cpu)})
    for function in FUNCTIONS:
        setattr(mixed, function.__name__, function)
    cuda.reseed(seed)
    _kernels.cpu = mixed
    try:
        yield
    finally:
        _kernels.cpu = before
