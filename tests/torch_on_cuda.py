"""The operators' code for CUDA tensors, run on CPU tensors with the kernels of the execution on the CPU."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from unittest import mock

import torch

import cuda_library as cuda
from midgrain import _kernels
from midgrain.ops import torch_cuda, torch_library
from midgrain.ops.arrays import is_torch

#: What the operators take for torch's current stream.
STREAM = 33


def _allocate(count: int, like: torch.Tensor) -> torch.Tensor:
    """Aligned as torch's memory on a device is."""
    memory = torch.empty(count + 256, dtype=torch.uint8)
    return memory[-memory.data_ptr() % 256 :][:count]


@contextlib.contextmanager
def torch_on_cuda() -> Iterator[None]:
    """Inside, `mg.ops` and `mg.slic` treat torch tensors on the CPU as if they lay on a CUDA device."""
    with contextlib.ExitStack() as stack:
        for target, name, value in [
            (_kernels, "_load_cuda", cuda.module),
            (_kernels, "_cuda_problem", lambda: None),
            (torch_cuda, "_stream", lambda like: STREAM),
            (torch_cuda, "_allocate", _allocate),
            (sys.modules["midgrain.ops.slic_image"], "_is_on_cuda", is_torch),
            *((torch_library, name, getattr(torch_cuda, name)) for name in torch_library.__all__),
        ]:
            stack.enter_context(mock.patch.object(target, name, value))
        yield
