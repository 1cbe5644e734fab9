"""Torch tensors on a CUDA device: the code around the kernels, run on the CPU (`torch_on_cuda`)."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import cuda_library as cuda
import midgrain as mg
from midgrain.ops import device_arrays, torch_cuda
from torch_on_cuda import STREAM, torch_on_cuda

pytestmark = pytest.mark.skipif(cuda.COMPILER is None, reason="needs g++")


@pytest.fixture(autouse=True)
def on_cuda():
    cuda.set_devices()
    with torch_on_cuda():
        yield


def numbers(*shape, dtype=np.float32, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape) * 3
    return values.astype(dtype)


def pictures(*shape, dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).random(shape)
    return (values * 255).astype(dtype) if dtype == np.uint8 else values.astype(dtype)


def labels_of(*shape, n=7, dtype=np.int32):
    return np.random.default_rng(1).integers(0, n, shape).astype(dtype)


def same(results, expected):
    """The operators' tensors, and NumPy's arrays of the CPU."""
    if not isinstance(results, tuple):
        results, expected = (results,), (expected,)
    for result, array in zip(results, expected, strict=True):
        assert isinstance(result, torch.Tensor)
        np.testing.assert_array_equal(result.numpy(), array, strict=True)


RUNS = {
    "slic": lambda a: mg.ops.slic(a(numbers(2, 3, 11, 12)), [0.5, 1, 2], 9),
    "slic, volumes and ranges": lambda a: mg.ops.slic(
        a(numbers(1, 2, 4, 9, 8)), [0.5, 1], 6, ranges=[(-3, 3), (-9, 9)], spacing=(2, 1, 1)
    ),
    "slic, raw, float64": lambda a: mg.ops.slic(
        a(numbers(2, 1, 9, 9, dtype=np.float64)), [0.5], 5, enforce_connectivity=False
    ),
    "slic, integers": lambda a: mg.ops.slic(a(pictures(1, 1, 9, 9)), [9.0], 5),
    "slic, half floats": lambda a: mg.ops.slic(a(numbers(1, 1, 9, 9, dtype=np.float16)), [0.5], 5),
    "slic, strides": lambda a: mg.ops.slic(a(numbers(1, 10, 12, 3).transpose(0, 3, 1, 2)), [0.5, 1, 2], 9),
    "pictures": lambda a: mg.ops.slic_pictures(a(pictures(2, 3, 10, 12)), 8),
    "pictures, both, last": lambda a: mg.ops.slic_pictures(
        a(pictures(2, 10, 12, 3)), 8, gradient=a(numbers(2, 10, 12)), channel_axis=-1
    ),
    "pictures, normalised clips": lambda a: mg.ops.slic_pictures(
        a(numbers(1, 3, 3, 9, 9)), 8, gradient=a(numbers(1, 3, 9, 9)), mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4]
    ),
    "pictures, gradient alone": lambda a: mg.ops.slic_pictures(None, 8, gradient=a(numbers(2, 10, 12))),
    "pictures, float64 gradient": lambda a: mg.ops.slic_pictures(
        None, 8, gradient=a(numbers(2, 10, 12, dtype=np.float64) * 1e-200)
    ),
    "pictures, huge float64 gradient": lambda a: mg.ops.slic_pictures(
        None, 8, gradient=a(numbers(1, 10, 12, dtype=np.float64) * 1e307)
    ),
    "pictures, flat float64 gradient": lambda a: mg.ops.slic_pictures(
        a(pictures(2, 3, 10, 12)), 8, gradient=a(np.zeros((2, 10, 12)))
    ),
    "connectivity": lambda a: mg.ops.enforce_connectivity(a(labels_of(2, 9, 8)), 4),
    "connectivity, int64 volumes": lambda a: mg.ops.enforce_connectivity(a(labels_of(1, 3, 9, 8, dtype=np.int64) - 9)),
    "connectivity, bytes": lambda a: mg.ops.enforce_connectivity(a(labels_of(2, 9, 8, dtype=np.uint8)), 2),
    "lab": lambda a: mg.ops.rgb_to_lab(a(pictures(2, 3, 5, 6))),
    "lab, floats, last": lambda a: mg.ops.rgb_to_lab(a(pictures(2, 5, 6, 3, dtype=np.float32)), channel_axis=-1),
    "pool, one image": lambda a: mg.pool(a(numbers(6, 7)), a(labels_of(6, 7))),
    "pool, batch, n": lambda a: mg.pool(a(numbers(2, 5, 6, 7)), a(labels_of(2, 6, 7, dtype=np.int64)), "std", n=9),
    "pool, channels last": lambda a: mg.pool(a(numbers(2, 6, 7, 5)), a(labels_of(2, 6, 7)), "sum", channel_axis=-1),
    "pool, float64": lambda a: mg.pool(a(numbers(6, 7, dtype=np.float64)), a(labels_of(6, 7)), "median"),
    "pool, integers": lambda a: mg.pool(a(labels_of(6, 7)), a(labels_of(6, 7)), "max"),
    "pool, bools": lambda a: mg.pool(a(labels_of(6, 7) > 3), a(labels_of(6, 7)), "mean"),
    "pool, half floats": lambda a: mg.pool(a(numbers(6, 7, dtype=np.float16)), a(labels_of(6, 7)), "l2"),
    "paint": lambda a: mg.paint(a(numbers(2, 3, 7)), a(labels_of(2, 6, 5))),
    "paint, channels last": lambda a: mg.paint(
        a(numbers(7, 4, dtype=np.float64)), a(labels_of(6, 5, dtype=np.int16)), channel_axis=-1
    ),
    "patches": lambda a: mg.ops.extract_patches(a(numbers(2, 3, 12, 14)), (3, 2), (3, 4), start=2, count=5),
    "patches of clips": lambda a: mg.ops.extract_patches(a(numbers(1, 2, 4, 8, 8, dtype=np.float64)), 2, (2, 2, 3)),
    "patches together": lambda a: mg.ops.aggregate_patches(a(numbers(2, 6, 3, 4)), (2, 3), size=(9, 9)),
    "image": lambda a: mg.slic(a(pictures(12, 13, 3)), 9),
    "image, channels first": lambda a: mg.slic(a(pictures(3, 12, 13)), 9, channel_axis=0, start_label=1),
    "image, floats, gradient": lambda a: mg.slic(
        a(pictures(12, 13, 3, dtype=np.float32)), 9, gradient=a(numbers(12, 13))
    ),
    "image, uint16": lambda a: mg.slic((a(pictures(12, 13, 3).astype(np.uint16) * 200)), 9),
    "image, gradient alone": lambda a: mg.slic(None, 9, gradient=a(numbers(12, 13))),
    "image, grey volume": lambda a: mg.slic(a(numbers(3, 8, 9, dtype=np.float64)), 5, channel_axis=None),
    "image, 5 channels, gradient": lambda a: mg.slic(
        a(numbers(12, 13, 5) * 1e30), 9, compactness=0.1, gradient=a(numbers(12, 13, dtype=np.float64))
    ),
    "image, 2 channels, flat gradient": lambda a: mg.slic(
        a(numbers(12, 13, 2)), 9, compactness=0.1, gradient=a(np.ones((12, 13)))
    ),
    "image, constant": lambda a: mg.slic(a(np.full((9, 9), 7.0)), 4),
    "image, not to Lab": lambda a: mg.slic(a(pictures(12, 13, 3)), 9, convert2lab=False, compactness=0.1),
}


@pytest.mark.parametrize("name", RUNS)
def test_as_on_the_cpu(name):
    before = cuda.launches()
    results = RUNS[name](torch.from_numpy)
    assert cuda.launches() > before
    assert cuda.last_launch() == (0, STREAM, 0)
    same(results, RUNS[name](lambda array: array))


BAD = {
    "NaN in features": (
        lambda: mg.ops.slic(torch.tensor([0.0, torch.nan] * 8).reshape(2, 1, 2, 4), [1.0], 2),
        "features: expected finite float32 values, got NaN or infinity in item 0",
    ),
    "float64 beyond float32": (
        lambda: mg.ops.slic(torch.full((1, 1, 4, 4), 1e300, dtype=torch.float64), [1.0], 2),
        "features: expected finite float32 values, got NaN or infinity in item 0",
    ),
    "weights": (
        lambda: mg.ops.slic(torch.arange(16.0).reshape(1, 1, 4, 4) * 1e9, [1e-3], 2),
        r"weights: a channel's range divided by its weight is above 2\^25 in item 0",
    ),
    "infinity in pictures": (
        lambda: mg.ops.slic_pictures(torch.full((1, 3, 4, 4), torch.inf), 2),
        "images: expected finite float32 values, got NaN or infinity in item 0",
    ),
    "NaN in a wide gradient": (
        lambda: mg.ops.slic_pictures(None, 2, gradient=torch.full((1, 4, 4), torch.nan, dtype=torch.float64)),
        "gradient: expected finite values, got NaN or infinity",
    ),
    "labels beyond int32": (
        lambda: mg.ops.enforce_connectivity(torch.full((1, 4, 4), 2**40)),
        "labels: expected values that fit int32",
    ),
    "NaN in RGB": (
        lambda: mg.ops.rgb_to_lab(torch.full((1, 3, 4, 4), torch.nan)),
        "rgb: expected finite values, got NaN or infinity",
    ),
    "labels outside": (
        lambda: mg.pool(torch.ones(4, 4), torch.full((4, 4), 5), n=5),
        r"labels: expected values in 0 \.\. 4, got others",
    ),
    "labels that int32 would wrap into range": (
        lambda: mg.pool(torch.ones(4, 4), torch.full((4, 4), 2**32 + 1), n=5),
        r"labels: expected values in 0 \.\. 4, got others",
    ),
    "negative labels": (
        lambda: mg.paint(torch.ones(5), torch.full((4, 4), -1)),
        r"labels: expected values in 0 \.\. 4, got others",
    ),
    "infinite values": (
        lambda: mg.pool(torch.full((4, 4), -torch.inf), torch.zeros(4, 4, dtype=torch.int32)),
        "values: expected finite values, got NaN or infinity",
    ),
    "an image of 0 .. 255 as floats": (
        lambda: mg.slic(torch.arange(48.0).reshape(4, 4, 3), 2),
        r"image: expected RGB floats in 0 \.\. 1, got 0 \.\. 47; scale the image",
    ),
    "NaN in an image": (
        lambda: mg.slic(torch.full((4, 4, 3), torch.nan), 2),
        "image: expected finite values, got NaN or infinity",
    ),
    "infinity in channels": (
        lambda: mg.slic(torch.full((4, 4, 2), torch.inf), 2),
        "image: expected finite values, got NaN or infinity",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values(name):
    run, message = BAD[name]
    with pytest.raises(ValueError, match=f"^{message}"):
        run()
    with mg.ops.deferred_checks() as checks:
        run()
    assert len(checks) >= 1
    with pytest.raises(ValueError, match=f"^{message}"):
        checks.raise_if_bad()


def test_deferred_checks_of_good_values_and_of_new_ones():
    values, labels = torch.ones(4, 4), torch.zeros(4, 4, dtype=torch.int32)
    with mg.ops.deferred_checks() as checks:
        mg.pool(values, labels, n=1)
        with mg.ops.deferred_checks() as inner:
            mg.paint(torch.ones(1), labels)
    assert (len(checks), len(inner)) == (1, 1)
    checks.raise_if_bad()
    # As the replay of a graph writes the same flags anew.
    checks._entries[0][0].fill_(4)
    with pytest.raises(ValueError, match=r"^labels: expected values in"):
        checks.raise_if_bad()
    with pytest.raises(ValueError, match=r"^labels: expected values in"):
        mg.paint(torch.ones(1), labels + 1)


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: mg.ops.slic(torch.ones(1, 1, 4, 4) + 1j, [1.0], 2), TypeError, "features: expected real numbers"),
        (lambda: mg.ops.rgb_to_lab(torch.ones(1, 3, 4, 4, dtype=torch.int32)), TypeError, "rgb: expected uint8 or f"),
        (
            lambda: mg.ops.slic_pictures(torch.ones(1, 3, 4, 4, dtype=torch.int64), 2),
            TypeError,
            "images: expected uint8 or floats, got dtype torch.int64",
        ),
        (lambda: mg.pool(torch.ones(4, 4), torch.ones(4, 4), n=3), TypeError, "labels: expected integers, got dtype"),
        (lambda: mg.slic(torch.ones(4, 4, 3, dtype=torch.int32), 2), TypeError, "image: expected RGB as uint8, uint16"),
        (lambda: mg.slic(torch.ones(4, 4) + 1j, 2), TypeError, "image: expected real numbers, got dtype torch.comp"),
        (
            lambda: mg.pool(torch.ones(4, 4), torch.ones(4, 4, dtype=torch.int32, device="meta"), n=3),
            BufferError,
            "labels: expected an array on cpu, as values is, got one on meta",
        ),
        (
            lambda: mg.slic(torch.ones(4, 4), 3, gradient=torch.ones(4, 4, device="meta")),
            BufferError,
            "gradient: expected an array on cpu, as image is, got one on meta",
        ),
        (
            lambda: mg.ops.slic_pictures(torch.ones(1, 3, 4, 4), 3, gradient=torch.ones(1, 4, 4, device="meta")),
            BufferError,
            "gradient: expected an array on cpu, as images is, got one on meta",
        ),
    ],
)
def test_bad_arrays(run, error, message):
    with pytest.raises(error, match=f"^{message}"):
        run()


def test_too_little_memory_says_what_it_was_for(monkeypatch):
    def allocate(count, like):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch_cuda, "_allocate", allocate)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        mg.ops.enforce_connectivity(torch.zeros(2, 8, 8, dtype=torch.int32))
    (note,) = caught.value.__notes__
    assert note.startswith("midgrain: enforce_connectivity needs ")


class FromAnother:
    """An array of another library on a device; `__module__` says which library."""

    def __init__(self, array):
        self.array = array
        self.__cuda_array_interface__ = {"stream": None}


CuPyArray = type("ndarray", (FromAnother,), {"__module__": "cupy"})
NumbaArray = type("DeviceNDArray", (FromAnother,), {"__module__": "numba.cuda.cudadrv.devicearray"})


@pytest.fixture
def libraries(monkeypatch):
    """CuPy and Numba as they would be imported, with arrays in host memory."""
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(from_dlpack=lambda tensor: CuPyArray(tensor.numpy())))
    monkeypatch.setattr(device_arrays, "_as_tensor", lambda array, name: torch.from_numpy(array.array))
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)


@pytest.mark.parametrize("name", RUNS)
def test_arrays_of_other_libraries(name, libraries):
    results, expected = RUNS[name](CuPyArray), RUNS[name](lambda array: array)
    if not isinstance(results, tuple):
        results, expected = (results,), (expected,)
    for result, array in zip(results, expected, strict=True):
        assert type(result) is CuPyArray
        np.testing.assert_array_equal(result.array, array)


def test_named_arguments_of_other_libraries(libraries):
    result = mg.pool(labels=CuPyArray(labels_of(6, 7)), values=CuPyArray(numbers(6, 7)))
    np.testing.assert_array_equal(result.array, mg.pool(numbers(6, 7), labels_of(6, 7)))


@pytest.mark.parametrize("other", [lambda array: array, torch.from_numpy, NumbaArray])
def test_two_libraries_at_once_are_refused(other, libraries):
    with pytest.raises(TypeError, match=r"^values, labels: expected the same kind of array, got ndarray of cupy and "):
        mg.pool(CuPyArray(numbers(6, 7)), other(labels_of(6, 7)))


def test_a_torch_without_cuda(libraries, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(mg.BackendUnavailableError, match=r"^rgb: arrays on a CUDA device are handled by torch, and "):
        mg.ops.rgb_to_lab(CuPyArray(pictures(1, 3, 4, 4)))


def test_what_is_not_shared(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    with pytest.raises(BufferError, match=r"^rgb: the array refused to be shared with torch: "):
        mg.ops.rgb_to_lab(CuPyArray(pictures(1, 3, 4, 4)))
