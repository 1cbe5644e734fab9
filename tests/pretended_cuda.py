"""A CUDA device that is none: tensors in host memory that say they lie on `cuda:0`, and behave so towards Python.

Inside `pretended_cuda()`, `x.cuda()`, `x.to("cuda")` and factories with `device="cuda"` make such tensors. Operators
run on the CPU, but only where torch would run them on a CUDA device: all arguments there (single numbers, indices and
copies as torch allows them), a CUDA kernel for the operator, no generator of the CPU. NumPy cannot look into them.
Copies between the devices and reads that make the host wait are counted.

What it cannot show: whether a CUDA kernel, torch's or midgrain's, computes the right thing; rounding; streams and
races; memory; speed; `torch.autocast("cuda")`, which changes nothing here; several devices; what other processes and
TorchScript's or Inductor's compiled code do.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from midgrain import _kernels
from midgrain.errors import BackendUnavailableError
from pretended_rules import check_kernel, check_same_device, host_waits, is_composite, operator, written
from pretended_state import questions, torch_cuda

__all__ = ["CUDA", "Pretended", "Traffic", "pretended_cuda"]

CUDA = torch.device("cuda:0")
_CPU = torch.device("cpu")
# What torch's C++ takes the tensors for: it has autograd, no memory and no driver.
_SHELL = torch.device("meta")


@dataclass
class Traffic:
    """What went between the host and the device."""

    #: Copies from the CPU to the device.
    to_device: int = 0
    #: Copies back; the host waits for each.
    to_host: int = 0
    #: Other places where the host waits for a value: `item`, `tolist`, `if tensor`, `nonzero`, boolean indices, ...
    reads: int = 0
    #: Calls of midgrain's own operators on the device.
    kernels: int = 0

    @property
    def waits(self) -> int:
        """How often the host waited."""
        return self.to_host + self.reads


class Pretended(Tensor):
    """A tensor that says it is on `cuda:0`."""

    inside: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inside: Tensor) -> Pretended:
        if inside.layout is not torch.strided:
            raise NotImplementedError(f"the pretended device has no {inside.layout} tensors")
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            inside.shape,
            strides=inside.stride(),
            storage_offset=inside.storage_offset(),
            dtype=inside.dtype,
            device=_SHELL,
        )
        self.inside = inside
        return self

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if _device is None:
            raise RuntimeError("a pretended tensor outlived its device")
        return _device.run(func, args, kwargs or {})

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    def get_device(self) -> int:
        return 0

    def data_ptr(self) -> int:
        return self.inside.data_ptr()

    def is_pinned(self, device: Any = None) -> bool:
        return False

    def pin_memory(self, device: Any = None) -> Tensor:
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().resolve_conj().resolve_neg().numpy()
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory "
            "first."
        )

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("the pretended device has no memory that others could look into")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise AttributeError("the pretended device has no memory that others could look into")

    def tolist(self) -> Any:
        _required().traffic.reads += 1
        return self.inside.tolist()

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_index(index), value)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 else repr(self)

    def __repr__(self, **_: Any) -> str:
        return f"{self.inside!r}@cuda:0"

    def __deepcopy__(self, memo: dict[int, Any]) -> Pretended:
        if id(self) not in memo:
            if not self.is_leaf:
                raise RuntimeError("Only Tensors created explicitly by the user support the deepcopy protocol")
            made = _rebuilt(copy.deepcopy(self.inside), self.requires_grad, getattr(self, "_is_param", False))
            made.grad = copy.deepcopy(self.grad, memo)
            memo[id(self)] = made
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuilt, (self.inside, self.requires_grad, getattr(self, "_is_param", False))


def _rebuilt(inside: Tensor, requires_grad: bool, is_parameter: bool) -> Pretended:
    made = Pretended(inside).requires_grad_(requires_grad)
    if is_parameter:
        made._is_param = True
    return made


def _index(index: Any) -> Any:
    """Lists and arrays in an index as tensors on the device; torch's C++ would make them as empty shells."""
    if isinstance(index, tuple):
        return tuple(_index(each) for each in index)
    if isinstance(index, list | range | np.ndarray):
        values = torch.as_tensor(np.asarray(index))
        return (values if values.numel() else values.long()).to(_SHELL)
    return index


def _flat(values: Iterable[Any]) -> list[Any]:
    """Arguments of an operator, lists among them opened."""
    return [leaf for each in values for leaf in (each if isinstance(each, tuple | list) else (each,))]


def _is_here(tensor: Tensor) -> bool:
    """Is it on the device? Forward-mode derivatives come with shells that are known to hold zeros."""
    return isinstance(tensor, Pretended) or (tensor.is_meta and tensor._is_zerotensor())


def _inside(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_inside(each) for each in value]
    if isinstance(value, Pretended):
        return value.inside
    if isinstance(value, Tensor) and _is_here(value):
        return torch.zeros(value.shape, dtype=value.dtype)
    return value


class _Device:
    """Runs operators on what is inside of the tensors."""

    def __init__(self, kernels: bool, code: ModuleType | None):
        self.kernels, self.code = kernels, code
        self.traffic = Traffic()
        self.random = torch.Generator().manual_seed(67280421310721)
        self._lock = threading.Lock()

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """One operator, below autograd."""
        leaves = _flat(args) + _flat(kwargs.values())
        tensors = [(leaf, _is_here(leaf)) for leaf in leaves if isinstance(leaf, Tensor)]
        where = kwargs.get("device")
        is_here = any(there for _, there in tensors)
        made_here = is_here if where is None else where.type in ("cuda", "meta")
        if (not made_here and not is_here) or func is torch.ops.aten._efficientzerotensor.default:
            return func(*args, **kwargs)
        if any(not there and tensor.is_meta for tensor, there in tensors):
            raise NotImplementedError(f"a shell without values; torch's C++ made it from Python's numbers: {func}")
        if is_composite(func):
            with _Operators(self):  # In inference mode they come whole.
                return func.decompose(*args, **kwargs)
        outputs = [
            kwargs.get(name) if by_name or place >= len(args) else args[place] for place, name, by_name in written(func)
        ]
        check_same_device(func, args, tensors, outputs)
        check_kernel(func, tensors)
        if any(isinstance(leaf, torch.Generator) for leaf in leaves):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if func.namespace == "midgrain":
            if not self.kernels:
                raise BackendUnavailableError("the array is on a CUDA device, but its kernels are not usable")
            self.traffic.kernels += 1
            if self.code is not None:
                with _modes(self), torch.no_grad():
                    return getattr(self.code, operator(func))(*args, **kwargs)
        self._count(func, args, kwargs, tensors, made_here)
        inner_args = [_inside(each) for each in args]
        inner_kwargs = {key: _inside(each) for key, each in kwargs.items()}
        if where is not None:
            inner_kwargs["device"] = _CPU
        if inner_kwargs.get("pin_memory"):
            inner_kwargs["pin_memory"] = False
        if torch.Tag.nondeterministic_seeded in func.tags:
            with self._randomness():
                result = func(*inner_args, **inner_kwargs)
        else:
            result = func(*inner_args, **inner_kwargs)
        if torch.Tag.inplace_view in func.tags:
            with no_dispatch():  # The shell's own shape.
                func(*args, **kwargs)
        for each in outputs:
            if isinstance(each, Pretended) and (
                each.shape != each.inside.shape or each.stride() != each.inside.stride()
            ):
                raise NotImplementedError(f"the pretended device cannot change a tensor's shape in place: {func}")
        return self._wrapped(func, outputs, result, made_here)

    def _wrapped(self, func: Any, outputs: list[Any], result: Any, made_here: bool) -> Any:
        own = {id(each.inside if isinstance(each, Pretended) else each): each for each in outputs if each is not None}

        def wrap(tensor: Tensor) -> Tensor:
            if id(tensor) in own:
                return own[id(tensor)]
            return Pretended(tensor) if made_here else tensor

        if isinstance(result, tuple | list):
            return type(result)(wrap(each) if isinstance(each, Tensor) else each for each in result)
        return wrap(result) if isinstance(result, Tensor) else result

    def _count(self, func: Any, args: Any, kwargs: dict[str, Any], tensors: Any, made_here: bool) -> None:
        traffic, name = self.traffic, operator(func)
        if name == "_to_copy":
            traffic.to_device += made_here and not tensors[0][1]
            traffic.to_host += tensors[0][1] and not made_here
        elif name in ("copy_", "copy"):
            traffic.to_device += tensors[0][1] and not tensors[1][1]
            traffic.to_host += tensors[1][1] and not tensors[0][1]
        else:
            traffic.to_device += sum(not there and bool(tensor.ndim) for tensor, there in tensors)  # Indices.
            traffic.reads += host_waits(func, args, kwargs)

    @contextmanager
    def _randomness(self) -> Iterator[None]:
        """Random numbers come from the device's generator, not from the CPU's."""
        with self._lock:
            before = torch.get_rng_state()
            torch.set_rng_state(self.random.get_state())
            try:
                yield
            finally:
                self.random.set_state(torch.get_rng_state())
                torch.set_rng_state(before)


_device: _Device | None = None


def _required() -> _Device:
    assert _device is not None
    return _device


class _Operators(TorchDispatchMode):
    """Sees factories too, which have no pretended argument."""

    def __init__(self, device: _Device):
        super().__init__()
        self.device = device

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # Nothing is compiled, and the guard against it takes as long as all the rest.

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.device.run(func, args, kwargs or {})


def _shell(where: Any, *, names: bool = False) -> Any:
    """What C++ gets instead of a CUDA device: it would start the driver."""
    if isinstance(where, str) and names and where.startswith("cuda"):
        where = torch.device(where)
    if isinstance(where, torch.device) and where.type == "cuda":
        if where.index not in (None, 0):
            raise RuntimeError("CUDA error: invalid device ordinal")
        return _SHELL
    return where


class _Calls(TorchFunctionMode):
    """Rewrites the devices that torch's functions are called with."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func is Tensor.cuda:
            number = args[1] if len(args) > 1 else kwargs.get("device")
            where = torch.device("cuda", number) if isinstance(number, int) else torch.device(number or CUDA)
            return args[0].to(_shell(where))
        if "device" in kwargs:
            kwargs["device"] = _shell(kwargs["device"], names=True)
        if func is Tensor.to or any(isinstance(each, torch.device) for each in args):
            args = tuple(_shell(each, names=func is Tensor.to) for each in args)
        if name in ("tensor", "new_tensor", "as_tensor", "asarray"):
            return _from_values(func, args, kwargs)
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        return func(*args, **kwargs)


def _from_values(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """Tensors made from Python's numbers or another library's arrays: made on the CPU, then copied."""
    values = args[1] if func is Tensor.new_tensor else args[0] if args else kwargs.get("data", kwargs.get("obj"))
    where = kwargs.pop("device", None)
    if isinstance(values, Pretended):
        wanted = {key: kwargs[key] for key in ("dtype",) if kwargs.get(key) is not None}
        made = values.detach() if func in (torch.as_tensor, torch.asarray) else values.detach().clone()
        return made.to(**({"device": where} if where is not None else {}), **wanted)
    if func is Tensor.new_tensor:
        if where is None and isinstance(args[0], Pretended):
            where = _SHELL
        kwargs.setdefault("dtype", args[0].dtype)
        func, args = torch.tensor, args[1:]
    wants_gradient = kwargs.pop("requires_grad", False)
    args = pytree.tree_map_only(Pretended, lambda each: each.item(), args)  # As torch does, one by one.
    made = func(*args, **kwargs)
    made = made if where is None else made.to(where)
    return made.requires_grad_() if wants_gradient else made


@contextmanager
def _modes(device: _Device) -> Iterator[None]:
    with _Calls(), _Operators(device):
        yield


@contextmanager
def pretended_cuda(*, kernels: bool = True, code: ModuleType | None = None) -> Iterator[Traffic]:
    """Pretend that there is a CUDA device; threads started inside know it too.

    Args:
        kernels: are midgrain's own kernels usable there? Its operators then run as the CPU's on what is inside;
            otherwise they refuse such tensors, and the code around them must know.
        code: has a function for each of midgrain's operators, which is then called instead of the CPU's, with tensors
            on the device.

    Yields:
        what went between the host and the device so far.
    """
    global _device
    if _device is not None:
        raise RuntimeError("there is a pretended device already")
    device = _Device(kernels, code)
    bootstrap = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    @functools.wraps(bootstrap)
    def started(thread: threading.Thread) -> None:
        with _modes(device):
            bootstrap(thread)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(threading.Thread, "_bootstrap_inner", started))
        for name, stand_in in torch_cuda(device.random).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, stand_in))
        for (module, name), answer in questions(_Calls).items():
            stack.enter_context(mock.patch.object(module, name, answer))
        usable = functools.partial(_usable, kernels)
        stack.enter_context(mock.patch.object(_kernels, "is_usable", usable))
        _device = device
        try:
            with _modes(device):
                yield device.traffic
        finally:
            _device = None


def _usable(kernels: bool, device: str) -> bool:
    return device == "cpu" or (device == "cuda" and kernels)
