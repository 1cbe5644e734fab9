"""The module `_cuda` on arrays that say they are on a device: what it takes, refuses, and hands to the kernels.

Built on the execution on the CPU, where the memory of devices is the host's.
"""

from __future__ import annotations

import numpy as np
import pytest

import cuda_library as cuda
import midgrain as mg
from midgrain import _kernels
from midgrain.errors import CudaError
from producers import on_device

pytestmark = pytest.mark.skipif(cuda.COMPILER is None, reason="needs g++")

SPACING = (1.0, 1.0, 1.0)
DIMS = (2, 12, 13)
N = 20


class Interface:
    """As Numba's device arrays: `__cuda_array_interface__` alone."""

    def __init__(self, array, **changes):
        self.array = array
        pointer = array.ctypes.data
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (pointer, False),
            "strides": None,
            "version": 3,
            **changes,
        }


class Capsule:
    """As torch's and CuPy's arrays: DLPack with a device, and no synchronisation asked for."""

    def __init__(self, array, device=(2, 0), versioned=True):
        self.array, self.device, self.versioned = array, device, versioned

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None, **version):
        if version and not self.versioned:
            raise TypeError("unexpected keyword argument 'max_version'")
        assert stream == -1
        return on_device(self.array.__dlpack__(**version), self.device)


@pytest.fixture(autouse=True)
def devices():
    cuda.set_devices()
    yield
    cuda.set_devices()


@pytest.fixture
def problem():
    """Arguments of `slic` by name, all of them NumPy arrays where they are arrays."""
    features = np.random.default_rng(0).standard_normal((2, 3, *DIMS)).astype(np.float32)
    needed = cuda.module().slic_workspace_bytes(2, 3, DIMS, N, SPACING, 8, False)
    return {
        "features": features,
        "weights": [0.5, 1.0, 2.0],
        "ranges": None,
        "n_segments": N,
        "max_num_iter": 5,
        "spacing": SPACING,
        "min_size": 8,
        "labels": np.full((2, *DIMS), -9, np.int32),
        "counts": np.full(2, -9, np.int32),
        "status": np.full(2, -9, np.int32),
        "workspace": aligned(needed),
        "stream": 77,
    }


def aligned(size):
    memory = np.empty(size + 256, np.uint8)
    start = -memory.ctypes.data % 256
    return memory[start : start + size]


def run(problem, wrap=Interface, **changes):
    arguments = {**problem, **changes}
    cuda.module().slic(*[wrap(value) if isinstance(value, np.ndarray) else value for value in arguments.values()])


@pytest.mark.parametrize("wrap", [Interface, Capsule, lambda array: Capsule(array, versioned=False)])
def test_superpixels(problem, wrap):
    run(problem, wrap)
    labels, counts = mg.ops.slic(
        problem["features"], problem["weights"], N, max_num_iter=5, min_size_factor=8 * N / np.prod(DIMS)
    )
    np.testing.assert_array_equal(problem["labels"], labels)
    np.testing.assert_array_equal(problem["counts"], counts)
    assert problem["status"].tolist() == [0, 0]
    assert cuda.last_launch() == (0, 77, 0)


def test_a_second_device_is_current_during_the_call_only(problem):
    run(problem, lambda array: Capsule(array, (2, 1)))
    assert cuda.last_launch() == (1, 77, 0)
    cuda.set_devices(of_pointers=1)
    run(problem)
    assert cuda.last_launch() == (1, 77, 0)


def test_an_entry_of_the_interface_says_the_device_without_asking_the_driver(problem):
    cuda.set_devices(of_pointers=-1)
    run(problem, lambda array: Interface(array, device=1))
    assert cuda.last_launch() == (1, 77, 0)
    with pytest.raises(BufferError, match=r"^features: its __cuda_array_interface__ is not as the protocol says"):
        run(problem, lambda array: Interface(array, device="one"))


def test_arrays_on_two_devices_are_refused(problem):
    with pytest.raises(BufferError, match=r"^counts: expected an array on CUDA device 0, as features is, got one on"):
        run(problem, counts=Capsule(problem["counts"], (2, 1)))


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (2, "; fewer items at once need less memory"),
        (
            209,
            "; this build of midgrain has no code that the device or its driver can run: move the array to the CPU, ",
        ),
        (
            222,
            "; this build of midgrain has no code that the device or its driver can run: move the array to the CPU, ",
        ),
        (999, "$"),
    ],
)
def test_a_launch_that_fails_says_what_can_be_done(problem, status, advice):
    cuda.set_devices(launches=status)
    with pytest.raises(CudaError, match=f"^starting a kernel: an error made for a test{advice}"):
        run(problem)
    cuda.set_devices()
    run(problem)


def test_arrays_in_host_memory_are_refused(problem):
    with pytest.raises(BufferError, match=r"^labels: expected an array on a CUDA device, got one on DLPack device t"):
        run(problem, labels=Capsule(problem["labels"], (1, 0)))
    with pytest.raises(BufferError, match=r"^features: expected an array on a CUDA device"):
        run(problem, lambda array: array)
    cuda.set_devices(of_pointers=-1)
    with pytest.raises(CudaError, match="lies in memory of the host"):
        run(problem)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"typestr": "<f8"}, TypeError, "features: expected float32, got float64"),
        ({"typestr": ">f4"}, TypeError, "features: expected little-endian numbers, got >f4"),
        ({"typestr": "|b1"}, TypeError, "features: expected float32, got bool"),
        ({"shape": (2, 3, 12, 26)}, ValueError, "features: expected 5 dimensions"),
        ({"strides": (3744, 1248, 4, 48, 1)}, BufferError, "features: expected a C-contiguous array"),
        ({"mask": 3}, TypeError, "features: expected an array without a mask"),
        ({"typestr": 4}, BufferError, "features: its __cuda_array_interface__ is not as the protocol says"),
        ({"data": None}, BufferError, "features: its __cuda_array_interface__ is not as the protocol says"),
        ({"data": (13, False)}, BufferError, "features: the data pointer is not aligned"),
    ],
)
def test_other_arrays_are_refused(problem, changes, error, message):
    with pytest.raises(error, match=f"^{message}"):
        run(problem, features=Interface(problem["features"], **changes))


def test_strides_of_a_contiguous_array_are_read(problem):
    run(problem)
    expected = problem["labels"].copy()
    run(problem, features=Interface(problem["features"], strides=problem["features"].strides))
    np.testing.assert_array_equal(problem["labels"], expected)


def test_what_is_read_only_is_not_written(problem):
    labels = problem["labels"]
    with pytest.raises(BufferError, match=r"^labels: expected a writable array"):
        run(problem, labels=Interface(labels, data=(labels.ctypes.data, True)))
    run(problem, features=Interface(problem["features"], data=(problem["features"].ctypes.data, True)))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"workspace": aligned(100)}, ValueError, r"^workspace: expected \d+ bytes or more, got 100$"),
        ({"workspace": aligned(2**20)[8:]}, BufferError, r"^workspace: expected memory aligned to 256 bytes$"),
        ({"status": np.zeros(3, np.int32)}, ValueError, r"^status: expected shape \[2\], got \[3\]$"),
        ({"labels": np.zeros((2, 2, 12, 12), np.int32)}, ValueError, "^labels: expected shape"),
        ({"weights": [1.0]}, ValueError, "^weights: expected one per channel"),
        ({"n_segments": 0}, ValueError, "^n_segments: expected 1"),
        ({"features": 3}, TypeError, "^features: expected an array that supports DLPack"),
    ],
)
def test_bad_arguments(problem, changes, error, message):
    with pytest.raises(error, match=message):
        run(problem, **changes)


def test_the_workspace_is_as_large_as_it_says():
    module = cuda.module()
    small = module.slic_workspace_bytes(1, 3, DIMS, N, SPACING, 0, True)
    assert module.slic_workspace_bytes(1, 3, DIMS, N, SPACING, 1, True) == small + (
        module.enforce_connectivity_workspace_bytes(1, DIMS)
    )
    assert module.slic_workspace_bytes(8, 3, DIMS, N, SPACING, 0, True) > 7 * (small - 4096)


def test_every_other_operation():
    """As the CPU's, through the module."""
    module, rng, stream = cuda.module(), np.random.default_rng(0), 5
    status = np.full(2, -9, np.int32)
    images = rng.integers(0, 256, (2, 3, 1, 9, 14)).astype(np.uint8)
    slope = rng.standard_normal((2, 1, 9, 14)).astype(np.float32)
    labels, counts = np.empty((2, 1, 9, 14), np.int32), np.empty(2, np.int32)
    workspace = aligned(module.slic_pictures_workspace_bytes(2, (1, 9, 14), True, True, 10, SPACING, 6))
    wrapped = [Capsule(array) for array in (labels, counts, status, workspace)]
    module.slic_pictures(
        *(Capsule(images), False, (1, 1, 1), (0, 0, 0), Capsule(slope), (10.0, 9.0), 10, 10, SPACING, 6),
        *(*wrapped, stream),
    )
    expected, expected_counts = mg.ops.slic_pictures(images[:, :, 0], 10, gradient=slope[:, 0], min_size_factor=0.4)
    np.testing.assert_array_equal(labels[:, 0], expected)
    np.testing.assert_array_equal(counts, expected_counts)

    lab = np.empty((2, 3, 126), np.float32)
    workspace = aligned(module.rgb_to_lab_workspace_bytes())
    pixels = images.reshape(2, 3, 126)
    module.rgb_to_lab(Interface(pixels), Interface(lab), False, Interface(status), Interface(workspace), stream)
    np.testing.assert_array_equal(lab.reshape(2, 3, 9, 14), mg.ops.rgb_to_lab(images[:, :, 0]))

    out = np.empty_like(labels)
    workspace = aligned(module.enforce_connectivity_workspace_bytes(2, (1, 9, 14)))
    arrays = [Interface(array) for array in (out, counts, workspace)]
    module.enforce_connectivity(Interface(labels), 20, *arrays, stream)
    np.testing.assert_array_equal(out[:, 0], mg.ops.enforce_connectivity(labels[:, 0], 20)[0])

    for dtype in (np.float32, np.float64):
        values, flat = rng.standard_normal((2, 5, 126)).astype(dtype), labels.reshape(2, 126)
        for reduce in mg.ops.REDUCTIONS:
            pooled = np.empty((2, 5, 12), dtype)
            workspace = aligned(module.pool_workspace_bytes(2, 2, 5, 126, 12, reduce))
            arrays = [Interface(array) for array in (status, workspace)]
            module.pool(Interface(values), Interface(flat), reduce, Interface(pooled), False, *arrays, stream)
            wanted = mg.pool(values[:, :, None], flat[:, None], reduce, n=12, spatial_dims=2)
            np.testing.assert_array_equal(pooled, wanted, err_msg=reduce)
        painted = np.empty_like(values)
        scores = rng.standard_normal((2, 5, 12)).astype(dtype)
        arrays = [Interface(array) for array in (scores, flat, painted)]
        module.paint(*arrays, False, Interface(status), stream)
        np.testing.assert_array_equal(painted[:, :, None], mg.paint(scores, flat[:, None]))
        assert status.tolist() == [0, 0]

        pictures, cells, grid = rng.standard_normal((1, 2, 1, 6, 8)).astype(dtype), (1, 2, 3), (1, 3, 2)
        size = (1, *mg.ops.patches.enlarged_size((6, 8), cells[1:], grid[1:]))
        patches = np.empty((1, 6, 2, 1, 6, 8), dtype)
        module.extract_patches(Interface(pictures), cells, grid, size, 0, Interface(patches), stream)
        wanted = mg.ops.extract_patches(pictures[:, :, 0], cells[1:], grid[1:])
        np.testing.assert_array_equal(patches[:, :, :, 0], wanted)
        back = np.empty_like(pictures)
        needed = module.extract_patches_backward_workspace_bytes(1, 2, (1, 6, 8), (1, 6, 8), cells, grid)
        workspace = Interface(aligned(needed))
        module.extract_patches_backward(Interface(patches), cells, grid, size, 0, Interface(back), workspace, stream)
        arguments = ((6, 8), cells[1:], grid[1:], size[1:], 0, 1)
        wanted = mg.ops.patches.extract_patches_backward_numpy(patches[:, :, :, 0], *arguments)
        np.testing.assert_array_equal(back[:, :, 0], wanted)
        maps, whole = rng.standard_normal((1, 6, *cells)).astype(dtype), np.empty((1, 1, 5, 9), dtype)
        module.aggregate_patches(Interface(maps), grid, Interface(whole), stream)
        wanted = mg.ops.aggregate_patches(maps[:, :, 0], grid[1:], size=(5, 9))
        np.testing.assert_array_equal(whole[:, 0], wanted)


def test_values_that_no_kernel_can_take_are_in_the_status(problem):
    module = cuda.module()
    problem["features"][1, 0, 0, 0, 0] = np.nan
    run(problem)
    assert problem["status"].tolist() == [0, module.NOT_FINITE]
    run(problem, weights=[1e-20, 1.0, 1.0], features=np.nan_to_num(problem["features"]))
    assert problem["status"].tolist() == [module.WEIGHTS_TOO_SMALL] * 2
    assert module.LABEL_OUTSIDE not in (0, module.NOT_FINITE, module.WEIGHTS_TOO_SMALL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"driver": 0}, "no NVIDIA driver is installed"),
        (
            {"driver": 12020, "status": 35},
            "the NVIDIA driver is too old: it is made for CUDA 12.2, and this build for ",
        ),
        ({"status": 100}, "there is no CUDA device"),
        ({"count": 0}, "there is no CUDA device"),
        ({"status": 999}, "CUDA cannot be used: an error made for a test"),
        ({"major": 6}, "no CUDA device has the compute capability 7.5 or more"),
    ],
)
def test_why_no_kernel_can_run(changes, message):
    cuda.set_devices(**changes)
    assert cuda.module().problem().startswith(message)


def test_a_device_that_can_be_used():
    module = cuda.module()
    assert module.problem() is None
    assert module.devices() == [("made for a test", 9, 0)] * 2
    assert (module.driver_version(), module.runtime_version()) == (13000, 13000)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (None, "this build of midgrain has no CUDA kernels (nvcc was not found when it was built)"),
        ({"driver": 0}, "no NVIDIA driver is installed"),
        ({}, None),
    ],
)
def test_build_info(changes, reason, monkeypatch):
    monkeypatch.setattr(_kernels, "_load_cuda", lambda: None if changes is None else cuda.module())
    monkeypatch.setattr(_kernels, "_cuda_problem", _kernels._cuda_problem.__wrapped__)
    cuda.set_devices(**(changes or {}))
    info = mg.build_info()["cuda"]
    assert info["built"] == (changes is not None)
    assert info["usable"] == (reason is None)
    assert info["reason"] == reason
    assert ("devices" in info) == (changes is not None)
    if reason is None:
        return
    with pytest.raises(mg.BackendUnavailableError, match="the array is on a CUDA device, but "):
        mg.ops.slic(Interface(np.zeros((1, 1, 4, 4), np.float32)), [1.0], 2)
