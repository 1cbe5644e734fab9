"""The device that every check runs on: "cuda" (marked `gpu`, skipped with the reason where there is none) and "cpu"."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from gpu_for_tests import why_no_gpu

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
# cuBLAS gives the same bits on every stream only with workspaces of its own; it reads this once.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    """Convolutions and products are the same on every run, and of whole floats: what is compared is not theirs."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.deterministic, convolutions.allow_tf32, products.allow_tf32
    convolutions.deterministic, convolutions.allow_tf32, products.allow_tf32 = True, False, False
    yield
    convolutions.deterministic, convolutions.allow_tf32, products.allow_tf32 = before


def find_gpu() -> torch.device:
    """The current CUDA device, or a skip that says why there is none."""
    reason = why_no_gpu()
    if reason is not None:
        pytest.skip(f"needs a CUDA device: {reason}")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(params=[CUDA, "cpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The GPU, or the CPU in its place."""
    return find_gpu() if request.param == "cuda" else torch.device("cpu")


@pytest.fixture(params=[CUDA, "cpu", pytest.param("executed on the CPU", marks=pytest.mark.slow)])
def any_device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """As `device`; slow tests also take the CUDA kernels as they are executed on the CPU, for small arrays."""
    if request.param != "executed on the CPU":
        yield find_gpu() if request.param == "cuda" else torch.device("cpu")
        return
    import cuda_library

    if cuda_library.COMPILER is None:
        pytest.skip("needs g++")
    from torch_on_cuda import torch_on_cuda

    cuda_library.set_devices()
    with torch_on_cuda():
        yield torch.device("cpu")


@pytest.fixture
def gpu() -> torch.device:
    """The GPU, for what has no like on the CPU; tests that take it are marked `gpu`."""
    return find_gpu()
