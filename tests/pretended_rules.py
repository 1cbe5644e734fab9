"""What torch refuses on a CUDA device and what it lets pass, for the pretended device of pretended_cuda.py.

Sources: torch's TensorIterator (compute_types), TensorAdvancedIndexing (make_info, index_put_, masked_fill_), the code
of `where` and `fill_`, and the check that torch puts before every other CUDA kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

#: Copies between devices, and questions about tensors that look at no value.
_ANY_DEVICES = frozenset(
    {"copy_", "copy", "_to_copy", "is_same_size", "is_set_to", "_has_compatible_shallow_copy_type", "result_type"}
)
# Of what torch tags as pointwise or not, the operators that do as the others do.
_POINTWISE_TOO = frozenset({"floor_divide", "rsub", "mse_loss", "smooth_l1_loss", "huber_loss", "dist"})
_NOT_POINTWISE = frozenset({"equal", "gcd", "igamma", "igammac", "lcm", "logaddexp", "logaddexp2", "nextafter"})
_INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"})
#: A value that may be a single number on the CPU, as the last argument.
_FILLING = frozenset({"fill", "fill_", "masked_fill", "masked_fill_", "index_fill", "index_fill_"})
#: The host waits for what these find out.
_READS = frozenset(
    {
        *(
            "_local_scalar_dense",
            "equal",
            "is_nonzero",
            "nonzero",
            "masked_select",
            "unique_dim",
            "_unique",
            "_unique2",
        ),
        *("unique_consecutive", "unique_dim_consecutive", "bincount", "_linalg_check_errors"),
    }
)
_MATRIX_PRODUCTS = frozenset(
    {"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot", "vdot", "addbmm", "_addmm_activation"}
)


@functools.cache
def operator(func: Any) -> str:
    """An operator's name without namespace and overload."""
    return str(func.overloadpacket.__name__)


@functools.cache
def is_composite(func: Any) -> bool:
    """Does it consist of other operators?"""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


@functools.cache
def written(func: Any) -> tuple[tuple[int, str, bool], ...]:
    """The arguments that an operator writes to: (place, name, by keyword only)."""
    return tuple(
        (place, argument.name, argument.kwarg_only)
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def check_same_device(
    func: Any, args: Sequence[Any], tensors: Sequence[tuple[Tensor, bool]], outputs: list[Any]
) -> None:
    """Raises RuntimeError where an operator on a CUDA device may not be given tensors of the CPU.

    Args:
        func: the operator.
        args: its positional arguments.
        tensors: all tensors among its arguments, each with: is it on the CUDA device?
        outputs: those that it writes to.
    """
    on_cpu = [tensor for tensor, there in tensors if not there]
    if not on_cpu or len(on_cpu) == len(tensors) or (name := operator(func)) in _ANY_DEVICES:
        return
    there = {id(tensor) for tensor, is_there in tensors if is_there}
    if name in _INDEXING:
        if id(args[0]) not in there:
            if name.startswith("index_put") and not any(id(each) in there for each in args[1] if each is not None):
                raise _mixed(func)
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        if len(args) > 2 and id(args[2]) not in there and args[2].ndim:
            raise _mixed(func)
    elif name in _FILLING:
        if any(tensor is not args[-1] or tensor.ndim for tensor in on_cpu) and name not in ("fill", "fill_"):
            raise _mixed(func)
    elif name == "where":
        if any(tensor.ndim or any(tensor is each for each in outputs) for tensor in on_cpu):
            raise _mixed(func)
    elif name in _POINTWISE_TOO or (torch.Tag.pointwise in func.tags and name not in _NOT_POINTWISE):
        if any(tensor.ndim or any(tensor is each for each in outputs) for tensor in on_cpu):
            raise _mixed(func)
        if len(on_cpu) > 1:
            raise RuntimeError("Trying to pass too many CPU scalars to CUDA kernel!")
    else:
        raise _mixed(func)


def _mixed(func: Any) -> RuntimeError:
    return RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({func})"
    )


def check_kernel(func: Any, tensors: Sequence[tuple[Tensor, bool]]) -> None:
    """Raises where torch has no CUDA kernel for an operator, or none for integers.

    A torch without CUDA does not know which there are; then the first half passes.
    """
    if not _has_cuda_kernel(func):
        raise NotImplementedError(f"Could not run '{func.name()}' with arguments from the 'CUDA' backend.")
    if operator(func) in _MATRIX_PRODUCTS and not any(
        tensor.is_floating_point() or tensor.is_complex() for tensor, _ in tensors
    ):
        raise NotImplementedError(f'"{operator(func)}_cuda" not implemented for {tensors[0][0].dtype}')


@functools.cache
def _has_cuda_kernel(func: Any) -> bool:
    if torch.version.cuda is None or func.namespace != "aten":
        return True
    return bool(torch._C._dispatch_has_computed_kernel_for_dispatch_key(func.name(), "CUDA"))


def host_waits(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Must the host wait for the device before this operator can go on, copies between devices aside?"""
    name = operator(func)
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    if name in _INDEXING:
        return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1])
    if name in _FILLING:  # A value on the device is read, a mask is not.
        return name.startswith("index_fill") and isinstance(args[-1], Tensor)
    return name in _READS
