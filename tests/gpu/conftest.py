"""The device that every check runs on: "cuda" (marked `gpu`, skipped with the reason where there is none) and "cpu"."""

from __future__ import annotations

import pytest
import torch

from gpu_for_tests import why_no_gpu


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu), "cpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The GPU, or the CPU in its place."""
    if request.param == "cpu":
        return torch.device("cpu")
    reason = why_no_gpu()
    if reason is not None:
        pytest.skip(f"needs a CUDA device: {reason}")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def gpu() -> torch.device:
    """The GPU, for what has no like on the CPU; tests that take it are marked `gpu`."""
    reason = why_no_gpu()
    if reason is not None:
        pytest.skip(f"needs a CUDA device: {reason}")
    return torch.device("cuda", torch.cuda.current_device())
