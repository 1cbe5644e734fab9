"""Arrays that CuPy, Numba, JAX and others hold on a CUDA device: in as torch tensors of the same memory, and back.

torch's allocator and streams serve them, so that the kernels are called in one way only.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from midgrain import _kernels
from midgrain.errors import BackendUnavailableError
from midgrain.ops.arrays import is_torch

__all__ = ["takes_device_arrays"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_CUDA_DEVICE = 2


def takes_device_arrays(*names: str) -> Callable[[_Function], _Function]:
    """Decorates an operation: these arguments may be other libraries' arrays on a CUDA device, and results are too.

    Args:
        names: of the arguments that are arrays.
    """

    def decorate(function: _Function) -> _Function:
        parameters = inspect.signature(function).parameters
        # Of a keyword-only argument, a place that no positional one can have.
        places = {
            name: i if parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD else sys.maxsize
            for i, name in enumerate(parameters)
            if name in names
        }

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = {name: args[i] if i < len(args) else kwargs.get(name) for name, i in places.items()}
            if not any(_is_foreign(array) for array in given.values()):
                return function(*args, **kwargs)
            arrays = {name: array for name, array in given.items() if array is not None}
            tensors = _as_tensors(arrays)
            at = {places[name]: tensor for name, tensor in tensors.items()}
            result = function(
                *(at.get(i, argument) for i, argument in enumerate(args)),
                **{name: tensors.get(name, value) for name, value in kwargs.items()},
            )
            like = next(iter(arrays.values()))
            if isinstance(result, tuple):
                return tuple(_like(part, like) for part in result)
            return _like(result, like)

        return cast(_Function, call)

    return decorate


def _is_foreign(array: object) -> bool:
    """Does it lie on a CUDA device, and is no torch tensor?"""
    if array is None or isinstance(array, np.ndarray) or is_torch(array):
        return False
    if hasattr(array, "__cuda_array_interface__"):
        return True
    device = getattr(array, "__dlpack_device__", None)
    if not callable(device):
        return False
    try:
        return int(device()[0]) == _CUDA_DEVICE
    except Exception:  # Whatever the other library raises; who reads the array says so.
        return False


def _as_tensors(arrays: dict[str, Any]) -> dict[str, Any]:
    """The same memory as torch tensors, ready on torch's current stream.

    Raises:
        TypeError: they are of different libraries.
        BackendUnavailableError: there are no CUDA kernels here, or torch is without CUDA.
        BufferError: an array is not shared.
    """
    _kernels.for_device("cuda")
    first_name, first = next(iter(arrays.items()))
    for name, array in arrays.items():
        if _library(array) != _library(first):
            raise TypeError(
                f"{first_name}, {name}: expected the same kind of array, got {type(first).__name__} of "
                f"{_library(first)} and {type(array).__name__} of {_library(array)}"
            )
    import torch

    if not torch.backends.cuda.is_built():
        raise BackendUnavailableError(
            f"{first_name}: arrays on a CUDA device are handled by torch, and this torch is built without CUDA"
        )
    return {name: _as_tensor(array, name) for name, array in arrays.items()}


def _library(array: object) -> str:
    return type(array).__module__.partition(".")[0]


def _as_tensor(array: Any, name: str) -> Any:
    torch = sys.modules["torch"]
    try:
        if hasattr(array, "__dlpack__"):
            # The other library makes torch's current stream wait for its own.
            return torch.from_dlpack(array)
        tensor = torch.as_tensor(array, device="cuda")
    except Exception as error:  # Whatever the other library raises.
        raise BufferError(f"{name}: the array refused to be shared with torch: {error}") from error
    # The protocol leaves the waiting to whoever takes the array; without a stream, the work is on the default one.
    stream = array.__cuda_array_interface__.get("stream")
    made_on = (
        torch.cuda.default_stream(tensor.device)
        if stream is None
        else torch.cuda.ExternalStream(stream, device=tensor.device)
    )
    torch.cuda.current_stream(tensor.device).wait_stream(made_on)
    return tensor


def _like(result: Any, like: Any) -> Any:
    """A result as the library of `like` has it, the same memory."""
    library = _library(like)
    if library == "numba":
        torch = sys.modules["torch"]
        stream = torch.cuda.default_stream(result.device)
        stream.wait_stream(torch.cuda.current_stream(result.device))
        result.record_stream(stream)
        return sys.modules["numba"].cuda.as_cuda_array(result)
    namespace = sys.modules[library] if library == "cupy" else None
    if namespace is None and hasattr(like, "__array_namespace__"):
        namespace = like.__array_namespace__()
    return result if namespace is None else namespace.from_dlpack(result)
