"""Running a network from a layer on, without what comes before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from midgrain.network.capture import Site
from midgrain.network.trace import Call, Trace, hooked, replaced, tensors_of

__all__ = ["CannotResume", "Resume"]

# How far an output may be from the recorded one, relative to the largest: batches of other sizes round differently.
_TOLERANCE = 1e-3


class CannotResume(Exception):  # noqa: N818 - no error for the user: callers go another way
    """The network cannot be run from this layer on."""


class Resume:
    """From a layer's output to the network's, any number of samples at once, differentiable.

    Modules that returned before the layer was called are not run again: for the time of a call, in the calling
    thread alone, they answer with what they returned for the recorded input. What the network does outside of
    modules runs as always.

    Args:
        model: an unwrapped network.
        trace: its calls for inputs of this shape.
        site: the layer.
        x: the input to record, one sample [1, C, *S].
        poison: answer with NaN instead of what was returned. The outputs then depend on the layer's output alone, or
            the network is refused.

    Raises:
        CannotResume: the outputs for the recorded activations are not the recorded ones, or something before the
            layer is used after it although poisoned, or the network does not allow it.
    """

    def __init__(self, model: nn.Module, trace: Trace, site: Site, x: Tensor, *, poison: bool = False):
        self.model = model
        self.site = site
        self._x = torch.full_like(x, torch.nan) if poison else x.detach()
        self._copies = False
        cut = trace.of(site.module)[site.call]
        skipped = _skipped(trace, cut)
        kept: dict[nn.Module, dict[int, Any]] = {}
        counts: dict[nn.Module, int] = {}

        def keep(module: nn.Module, output: Any) -> None:
            index = counts.get(module, 0)
            counts[module] = index + 1
            if (module, index) in skipped:
                # Copies: in-place operations that follow change what was returned.
                kept.setdefault(module, {})[index] = pytree.tree_map_only(Tensor, torch.clone, output)

        with torch.no_grad(), hooked({module for module, _ in skipped}, after=keep):
            outputs = model(x.detach().clone())
        if any(index not in kept.get(module, {}) for module, index in skipped):
            raise CannotResume("the network does not always make the same calls")
        self._recorded = tensors_of(kept[site.module][site.call])[site.item]
        if poison:
            kept = {
                module: {index: pytree.tree_map_only(Tensor, _poisoned, output) for index, output in by_call.items()}
                for module, by_call in kept.items()
            }
        self._kept = kept
        self._check(outputs)

    def __call__(self, values: Tensor) -> Any:
        """The network's outputs with the layer's output set to `values`.

        Args:
            values: of the layer's shape, [n, ...] for n samples.
        """
        if not self._copies:
            try:
                return self._run(values)
            except RuntimeError:
                # In-place operations outside of modules need tensors that own their memory. Whether it was that shows
                # in the second attempt.
                self._copies = True
        return self._run(values)

    def _run(self, values: Tensor) -> Any:
        reached: list[nn.Module] = []
        with ExitStack() as stack:
            # Transformer blocks have a fast way around their own layers, which they leave to networks without hooks.
            stack.enter_context(hooked([self.site.module], before=reached.append))
            for module, kept in self._kept.items():
                stack.enter_context(_answering(module, self._answers(module, kept, values)))
            outputs = self.model(self._batch(self._x, values.shape[0]))
        if not reached:
            raise CannotResume("it does not run the layer")
        return outputs

    def _answers(self, module: nn.Module, outputs: dict[int, Any], values: Tensor) -> Callable[..., Any]:
        calls = 0

        def answer(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls - 1 not in outputs:
                return forward(*args, **kwargs)
            batch = values.shape[0]
            output = pytree.tree_map_only(Tensor, lambda kept: self._batch(kept, batch), outputs[calls - 1])
            if module is self.site.module and calls - 1 == self.site.call:
                # A copy, so that in-place operations that follow leave the caller's alone.
                return replaced(output, self.site.item, values.clone())
            return output

        return answer

    def _batch(self, kept: Tensor, batch: int) -> Tensor:
        if kept.ndim and kept.shape[0] == 1 and batch > 1:
            kept = kept.expand(batch, *kept.shape[1:])
        return kept.clone() if self._copies or batch == 1 else kept

    def _check(self, expected: Any) -> None:
        """Two samples from the recorded activations must give the recorded outputs twice."""
        try:
            with torch.no_grad():
                actual = self(self._recorded.expand(2, *self._recorded.shape[1:]))
        except Exception as error:
            raise CannotResume(str(error)) from error
        pairs = list(zip(tensors_of(actual), tensors_of(expected), strict=False))
        if not pairs:
            raise CannotResume("it returns no tensor")
        for got, wanted in pairs:
            if not wanted.is_floating_point():
                continue
            scale = float(wanted.abs().max())
            if got.shape[1:] != wanted.shape[1:] or not bool(((got - wanted).abs() <= _TOLERANCE * scale).all()):
                raise CannotResume("its outputs depend on more than this layer")


def _skipped(trace: Trace, cut: Call) -> set[tuple[nn.Module, int]]:
    """The outermost calls that returned before `cut` was made, and `cut`."""
    around = {id(call) for call in cut.ancestors}
    return {
        (call.module, call.index)
        for call in trace.calls
        if call is cut or (call.end < cut.begin and (call.parent is None or id(call.parent) in around))
    }


def _poisoned(kept: Tensor) -> Tensor:
    if not kept.is_floating_point():
        return kept
    return torch.full([1] * kept.ndim, torch.nan, dtype=kept.dtype, device=kept.device).expand(kept.shape)


class _Switchboard:
    """A module's `forward` while some threads want their own answers from it; the last one puts it back."""

    lock = threading.Lock()
    boards: dict[nn.Module, _Switchboard] = {}  # noqa: RUF012

    def __init__(self, module: nn.Module):
        self.own = module.__dict__.get("forward")
        self.forward = module.forward
        self.answers: dict[int, Callable[..., Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        answer = self.answers.get(threading.get_ident())
        return self.forward(*args, **kwargs) if answer is None else answer(self.forward, *args, **kwargs)


@contextmanager
def _answering(module: nn.Module, answer: Callable[..., Any]) -> Iterator[None]:
    """In this thread, calls of the module go to `answer(forward, ...)`."""
    thread = threading.get_ident()
    with _Switchboard.lock:
        board = _Switchboard.boards.get(module)
        if board is None:
            board = _Switchboard.boards[module] = _Switchboard(module)
            module.__dict__["forward"] = board
        board.answers[thread] = answer
    try:
        yield
    finally:
        with _Switchboard.lock:
            del board.answers[thread]
            if not board.answers:
                del _Switchboard.boards[module]
                if board.own is None:
                    del module.__dict__["forward"]
                else:
                    module.__dict__["forward"] = board.own
