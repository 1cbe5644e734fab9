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
from midgrain.ops.checks import check_real_dtype

__all__ = [
    "as_dense",
    "as_float32",
    "as_floats",
    "as_int32",
    "as_numpy",
    "as_pair",
    "contiguous",
    "is_integral",
    "is_torch",
    "kernel_device",
    "plain",
    "require_dense",
    "require_real",
    "require_same_device",
    "require_same_kind",
    "wrap_like",
]

Array = npt.NDArray[Any]

# DLPack device types whose memory the host can read: CPU, pinned and managed CUDA memory.
_HOST_DEVICES = (1, 3, 13)
_CUDA_DEVICE = 2
# Of torch tensors that operators are registered for; on "meta" tensors have no values, only shapes.
_TORCH_DEVICES = ("cpu", "cuda", "meta")
# NumPy before 2.1 does not hand read-only arrays (a Pillow picture, a memory map) to DLPack.
_SHARES_READ_ONLY = np.lib.NumpyVersion(np.__version__) >= "2.1.0"


def is_torch(array: object) -> bool:
    """Is it a torch tensor? Does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def kernel_device(tensor: Any) -> Any:
    """A torch tensor's own device where its kernels are usable, else the CPU."""
    usable = tensor.is_cuda and _kernels.is_usable("cuda")
    return tensor.device if usable else sys.modules["torch"].device("cpu")


def plain(tensor: Any) -> Any:
    """A torch tensor outside autograd whose memory holds its values: no pending conjugation or negation."""
    return tensor.detach().resolve_conj().resolve_neg()


def is_integral(tensor: Any) -> bool:
    """Has a torch tensor a dtype of integers? Bools are none."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == sys.modules["torch"].bool)


def require_real(array: Any, name: str) -> None:
    """Refuses what is not real numbers, in NumPy arrays and torch tensors.

    Raises:
        TypeError: the dtype is complex, or of text or objects.
    """
    if not is_torch(array):
        check_real_dtype(array, name)
    elif array.is_complex():
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")


def require_dense(tensor: Any, name: str) -> None:
    """Refuses sparse torch tensors.

    Raises:
        TypeError: the tensor's layout is not strided.
    """
    if tensor.layout is not sys.modules["torch"].strided:
        raise TypeError(f"{name}: expected a dense tensor, got layout {tensor.layout}")


def as_numpy(array: Any, name: str) -> Array:
    """A NumPy view of an array in host memory.

    Raises:
        TypeError: it is no array (lists included), or its dtype is unknown to NumPy.
        BackendUnavailableError: it lies on a device without kernels.
        BufferError: its library does not share it.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without a mask, got {type(array).__name__}")
    if isinstance(array, np.ndarray):
        return np.asarray(array)
    if is_torch(array):
        if array.device.type != "cpu":
            _kernels.for_device(array.device.type)
        require_dense(array, name)
        detached = plain(array)
        if str(detached.dtype) in ("torch.bfloat16", "torch.float8_e4m3fn", "torch.float8_e5m2"):
            detached = detached.float()
        try:
            view: Array = detached.numpy()
        except TypeError as error:
            raise TypeError(f"{name}: expected a dtype that NumPy knows, got {array.dtype}") from error
        return view
    if hasattr(array, "__cuda_array_interface__"):
        _kernels.for_device("cuda")
    if hasattr(array, "__dlpack__"):
        return _from_dlpack(array, name)
    if hasattr(array, "__array_interface__"):
        try:
            described = np.asarray(array)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: its __array_interface__ cannot be read ({error})") from error
        # Objects are addresses, and following those that somebody merely claims ends the process.
        if described.dtype.hasobject:
            raise TypeError(f"{name}: expected real numbers, got dtype {described.dtype}")
        return described
    raise TypeError(f"{name}: expected an array (numpy, torch, ...), got {type(array).__name__}")


def _from_dlpack(array: Any, name: str) -> Array:
    try:
        device = int(array.__dlpack_device__()[0])
    except Exception as error:
        raise BufferError(f"{name}: __dlpack_device__ did not return two integers") from error
    if device not in _HOST_DEVICES:
        _kernels.for_device("cuda" if device == _CUDA_DEVICE else f"DLPack device type {device}")
    try:
        view: Array = np.from_dlpack(array)
    except Exception as error:  # Whatever the other library raises.
        raise BufferError(f"{name}: the array refused to be shared through DLPack: {error}") from error
    return view


def as_dense(array: Any, name: str) -> Any:
    """A dense torch tensor as it is, anything else as a NumPy view.

    Raises:
        TypeError: it is no array, or a sparse tensor.
        BackendUnavailableError: it lies on a device without kernels.
    """
    if is_torch(array):
        require_dense(array, name)
        if array.device.type not in _TORCH_DEVICES:
            _kernels.for_device(array.device.type)
        return array
    return as_numpy(array, name)


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


def require_same_kind(first: Any, second: Any, names: tuple[str, str]) -> None:
    """Refuses a torch tensor beside another kind of array.

    Raises:
        TypeError: one is a torch tensor and the other is not.
    """
    if is_torch(first) != is_torch(second):
        raise TypeError(
            f"{names[0]}, {names[1]}: expected the same kind of array, got {type(first).__name__} and "
            f"{type(second).__name__}"
        )


def require_same_device(**arrays: Any) -> None:
    """Refuses torch tensors on different devices.

    Args:
        arrays: by the names that messages have; None is left out.

    Raises:
        BufferError: they are on different devices.
    """
    tensors = [(name, array) for name, array in arrays.items() if is_torch(array)]
    for name, tensor in tensors[1:]:
        if tensor.device != tensors[0][1].device:
            raise BufferError(
                f"{name}: expected an array on {tensors[0][1].device}, as {tensors[0][0]} is, got one on "
                f"{tensor.device}"
            )


def as_pair(first: Any, second: Any, names: tuple[str, str]) -> tuple[Any, Any]:
    """Both as dense torch tensors, or both as NumPy views; refuses a mixture, which hides mistakes about devices.

    Raises:
        TypeError: one of them is no array, or one is a torch tensor and the other is not.
    """
    views = as_dense(first, names[0]), as_dense(second, names[1])
    require_same_kind(first, second, names)
    return views


def contiguous(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The array as the kernels take it: C-contiguous, of this dtype, copied only where needed."""
    result = np.ascontiguousarray(array, dtype)
    if not result.flags.writeable and not _SHARES_READ_ONLY:
        return result.copy()
    return result


def as_float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Contiguous float32. Values beyond float32 become infinite, which the kernels refuse."""
    with np.errstate(over="ignore"):
        return contiguous(array, np.float32)


def as_floats(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Contiguous float32 for floats of up to 32 bits, else float64; complex, text and objects are refused."""
    check_real_dtype(array, name)
    is_single = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    return contiguous(array, np.float32 if is_single else np.float64)


def as_int32(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.int32]:
    """Contiguous int32 of any integer array; a value that does not fit is refused, never wrapped around."""
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got dtype {array.dtype}")
    if not np.can_cast(array.dtype, np.int32) and array.size:
        low, high = int(array.min()), int(array.max())
        if low < -(2**31) or high >= 2**31:
            raise ValueError(f"{name}: expected values that fit int32, got {low} .. {high}")
    return contiguous(array, np.int32)
