"""Which modules a network calls, in what order, and what shapes they return."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Call", "Trace", "hooked", "replaced", "tensors_of", "trace"]


# torch numbers hooks without a lock, and modules may be watched by several threads at once.
_registering = threading.Lock()


@dataclass(eq=False)
class Call:
    """One call of one module, which it does not keep alive."""

    name: str
    reference: weakref.ref[nn.Module] = field(repr=False)
    #: Which call of this module it is, from 0 on.
    index: int
    #: The call that it was made in; None for the network's own.
    parent: Call | None = field(repr=False)
    #: Ticks of the trace's clock, which goes on by one whenever a module is called or returns.
    begin: int
    end: int = 0
    #: Shapes of the tensors returned, in the order of `tensors_of`.
    shapes: tuple[tuple[int, ...], ...] = ()
    #: Whether they are floating-point numbers.
    floating: tuple[bool, ...] = field(default=(), repr=False)
    #: For each of them the call that returned it first, and as which of its tensors: another call where a module hands
    #: on what it got. A tensor changed in place counts as a new one.
    makers: tuple[tuple[Call, int], ...] = field(default=(), repr=False)

    @property
    def module(self) -> nn.Module:
        """The module.

        Raises:
            ReferenceError: the network is gone.
        """
        module = self.reference()
        if module is None:
            raise ReferenceError(f"the network of {self.name} is no more")
        return module

    @property
    def ancestors(self) -> Iterator[Call]:
        """The calls that it was made in, innermost first."""
        call = self.parent
        while call is not None:
            yield call
            call = call.parent


@dataclass(frozen=True)
class Trace:
    """A forward pass: its calls in the order in which they returned (the network itself last).

    It holds shapes, no tensors, and keeps no module alive.
    """

    calls: tuple[Call, ...]
    #: Samples in its input.
    batch: int = 1

    def of(self, module: nn.Module) -> list[Call]:
        """The calls of one module."""
        return [call for call in self.calls if call.reference() is module]


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors in what a module returned: a tensor, or tuples, lists and dictionaries of them."""
    if isinstance(output, Tensor):
        return [output]
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


@contextmanager
def hooked(
    modules: Iterable[nn.Module],
    *,
    before: Callable[[nn.Module], None] | None = None,
    after: Callable[[nn.Module, Any], Any] | None = None,
) -> Iterator[None]:
    """Call `before(module)` and `after(module, output)` around every call of these modules by this thread.

    What `after` returns, unless None, goes on instead of the output. Other threads that run the same network are
    left alone. The hooks are gone afterwards, also after an exception.
    """
    thread = threading.get_ident()

    def enter(module: nn.Module, _: Any) -> None:
        if before is not None and threading.get_ident() == thread:
            before(module)

    def leave(module: nn.Module, _: Any, output: Any) -> Any:
        return after(module, output) if after is not None and threading.get_ident() == thread else None

    handles = []
    try:
        with _registering:
            for module in modules:
                if before is not None:
                    handles.append(module.register_forward_pre_hook(enter))
                if after is not None:
                    handles.append(module.register_forward_hook(leave))
        yield
    finally:
        with _registering:
            for handle in handles:
                handle.remove()


def trace(model: nn.Module, x: Tensor) -> Trace:
    """Run the network once without gradients and note its calls; call it inside `driver.preserved`.

    Args:
        model: an unwrapped network.
        x: its input; one sample is enough.
    """
    names = {module: name for name, module in model.named_modules()}
    numbers: dict[nn.Module, int] = {}
    running: list[Call] = []
    calls: list[Call] = []
    makers: Any = WeakTensorKeyDictionary()  # Tensor -> (version, maker)
    clock = 0

    def enter(module: nn.Module) -> None:
        nonlocal clock
        clock += 1
        index = numbers.get(module, 0)
        numbers[module] = index + 1
        running.append(Call(names[module], weakref.ref(module), index, running[-1] if running else None, clock))

    def leave(module: nn.Module, output: Any) -> None:
        nonlocal clock
        clock += 1
        call = running.pop()
        while call.reference() is not module:  # It raised, and its caller went on.
            call = running.pop()
        tensors = tensors_of(output)
        call.end = clock
        call.shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        call.floating = tuple(tensor.is_floating_point() for tensor in tensors)
        call.makers = tuple(made(call, item, tensor) for item, tensor in enumerate(tensors))
        calls.append(call)

    def made(call: Call, item: int, tensor: Tensor) -> tuple[Call, int]:
        version = None if tensor.is_inference() else tensor._version
        known: tuple[Any, tuple[Call, int]] | None = makers.get(tensor)
        if known is None or known[0] != version:
            known = makers[tensor] = (version, (call, item))
        return known[1]

    with torch.no_grad(), hooked(names, before=enter, after=leave):
        model(x.detach().clone())
    return Trace(tuple(calls), x.shape[0])


def replaced(output: Any, item: int, tensor: Tensor) -> Any:
    """What a module returned, with the tensor at place `item` of `tensors_of` exchanged."""
    if isinstance(output, Tensor):
        return tensor
    leaves, structure = pytree.tree_flatten(output)
    places: Sequence[int] = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    leaves[places[item]] = tensor
    return pytree.tree_unflatten(leaves, structure)
