"""Arrays of any library in, the same library out.

On the CPU every array is looked at as a NumPy view of the same memory, and results are handed back as the caller's
kind without a copy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain import _kernels

__all__ = ["as_numpy", "as_numpy_pair", "is_torch", "wrap_like"]

Array = npt.NDArray[Any]


def is_torch(array: object) -> bool:
    """Is it a torch tensor? Does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def as_numpy(array: Any, name: str) -> Array:
    """A NumPy view of an array in host memory.

    Raises:
        TypeError: it is no array (lists included), or its dtype is unknown to NumPy.
        BufferError: it lies on another device.
        BackendUnavailableError: it lies on a CUDA device.
    """
    if isinstance(array, np.ndarray):
        return array
    if is_torch(array):
        if array.device.type != "cpu":
            _kernels.for_device(array.device.type)
        if array.layout is not sys.modules["torch"].strided:
            raise TypeError(f"{name}: expected a dense tensor, got layout {array.layout}")
        detached = array.detach().resolve_conj().resolve_neg()
        if str(detached.dtype) in ("torch.bfloat16", "torch.float8_e4m3fn", "torch.float8_e5m2"):
            detached = detached.float()
        view: Array = detached.numpy()
        return view
    if hasattr(array, "__cuda_array_interface__"):
        _kernels.for_device("cuda")
    if hasattr(array, "__dlpack__"):
        return np.from_dlpack(array)
    if hasattr(array, "__array_interface__"):
        return np.asarray(array)
    raise TypeError(f"{name}: expected an array (numpy, torch, ...), got {type(array).__name__}")


def wrap_like(result: Array, like: Any) -> Any:
    """Hands a fresh NumPy result back as the same kind of array as `like`."""
    if isinstance(like, np.ndarray):
        return result
    if is_torch(like):
        return sys.modules["torch"].from_numpy(result)
    namespace: Callable[[], Any] | None = getattr(like, "__array_namespace__", None)
    if namespace is not None and hasattr(namespace(), "from_dlpack"):
        return namespace().from_dlpack(result)
    return result


def as_numpy_pair(first: Any, second: Any, names: tuple[str, str]) -> tuple[Array, Array]:
    """Both arrays as NumPy views; refuses a mixture of libraries, which hides mistakes about devices.

    Raises:
        TypeError: one is a torch tensor and the other is not.
    """
    if is_torch(first) != is_torch(second):
        raise TypeError(
            f"{names[0]}, {names[1]}: expected the same kind of array, got {type(first).__name__} and "
            f"{type(second).__name__}"
        )
    return as_numpy(first, names[0]), as_numpy(second, names[1])
