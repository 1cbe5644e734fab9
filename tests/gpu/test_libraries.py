"""CuPy's and Numba's arrays: the same kind comes back, on the same device, from the caller's stream."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import midgrain as mg
from gpu_for_tests import bits, channels_first, pictures, slopes

Place = Callable[[np.ndarray], Any]


def operations(place: Place, bring: Callable[[Any], np.ndarray], kind: type) -> list[np.ndarray]:
    """Every operation once on arrays of a library; results must be of its kind."""
    images = pictures(2, 100, 90)
    maps = slopes(images)
    results: list[Any] = []
    lab = mg.ops.rgb_to_lab(place(channels_first(images)))
    labels, counts = mg.ops.slic(lab, [10.0] * 3, 80, ranges=mg.ops.LAB_RANGES)
    results += [lab, labels, counts]
    results += mg.ops.slic_pictures(place(images), 80, gradient=place(maps), channel_axis=-1)
    results += mg.ops.enforce_connectivity(place((maps > 9).astype(np.int32)), 20)
    results += [mg.slic(place(images[0]), 70)]
    scores = mg.pool(place(maps), labels, n=120, spatial_dims=2)
    results += [scores, mg.paint(scores, labels, spatial_dims=2)]
    patches = mg.ops.extract_patches(place(maps[:, None]), 3, 2)
    results += [patches, mg.ops.aggregate_patches(place(np.arange(72.0).reshape(2, 4, 3, 3)), 2, size=(9, 10))]
    for result in results:
        assert isinstance(result, kind), f"expected {kind}, got {type(result)}"
    return [bring(result) for result in results]


@pytest.fixture(scope="module")
def expected() -> list[np.ndarray]:
    return operations(np.asarray, np.asarray, np.ndarray)


def assert_all_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for result, wanted in zip(found, expected, strict=True):
        assert result.dtype == wanted.dtype
        assert np.array_equal(bits(result), bits(wanted))


def test_tensors_and_arrays_agree(device, expected):
    def place(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(array)).to(device)

    assert_all_same(operations(place, lambda tensor: tensor.cpu().numpy(), torch.Tensor), expected)


@contextlib.contextmanager
def imported(name: str) -> Iterator[Any]:
    """The library, or a skip; what it says while it is imported is not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip(name, reason=f"needs {name}")


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
def test_cupy(gpu, expected):
    with imported("cupy") as cupy, cupy.cuda.Device(gpu.index or 0):
        assert_all_same(operations(cupy.asarray, cupy.asnumpy, cupy.ndarray), expected)
        with cupy.cuda.Stream(non_blocking=True):
            assert_all_same(operations(cupy.asarray, cupy.asnumpy, cupy.ndarray), expected)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
def test_numba(gpu, expected):
    with imported("numba.cuda") as cuda:
        if not cuda.is_available():
            pytest.skip("numba.cuda finds no device")
        kind = type(cuda.to_device(np.zeros(1, np.float32)))
        found = operations(lambda array: cuda.to_device(np.ascontiguousarray(array)), lambda a: a.copy_to_host(), kind)
        assert_all_same(found, expected)
        stream = cuda.stream()

        def place(array: np.ndarray) -> Any:
            return cuda.to_device(np.ascontiguousarray(array), stream)

        found = operations(place, lambda a: a.copy_to_host(), kind)
        assert_all_same(found, expected)


@pytest.mark.gpu
def test_kinds_on_a_device_are_not_mixed(gpu):
    labels = np.zeros((4, 5), np.int64)
    with pytest.raises((TypeError, BufferError)):
        mg.pool(torch.zeros(4, 5, device=gpu), labels)
    with pytest.raises((TypeError, BufferError)):
        mg.pool(np.zeros((4, 5), np.float32), torch.zeros(4, 5, dtype=torch.int64, device=gpu))
