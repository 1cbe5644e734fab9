"""Running a network from a layer on, without what comes before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from midgrain.network.capture import Site
from midgrain.network.trace import Call, Trace, hooked, replaced, tensors_of

__all__ = ["CannotResume", "Resume"]

#: What modules returned, per module and call.
_Kept: TypeAlias = dict[nn.Module, dict[int, Any]]

# How far an output may be from the recorded one, relative to the largest: batches of other sizes round differently.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}


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
        skipped, self._made = _renumbered(trace, cut)
        self._call = skipped[site.module][site.call]
        kept: _Kept = {module: {} for module in skipped}
        counts: dict[nn.Module, int] = {}

        def keep(module: nn.Module, output: Any) -> None:
            index = counts.get(module, 0)
            counts[module] = index + 1
            if index in skipped[module]:
                # Copies: in-place operations that follow change what was returned.
                kept[module][skipped[module][index]] = pytree.tree_map_only(Tensor, torch.clone, output)

        with torch.no_grad(), hooked(skipped, after=keep):
            outputs = model(x.detach().clone())
        if any(set(kept[module]) != set(calls.values()) for module, calls in skipped.items()):
            raise CannotResume("the network does not always make the same calls")
        #: What the layer returned for the recorded input, [1, ...].
        self.recorded = tensors_of(kept[site.module][self._call])[site.item]
        if poison:
            kept = _each_tensor(kept, _poisoned)
        self._kept = kept
        self._check(outputs)

    def __call__(self, values: Tensor) -> Any:
        """The network's outputs with the layer's output set to `values`.

        Args:
            values: of the layer's shape, [n, ...] for n samples.
        """
        if not self._copies:
            try:
                return self._run(values, copies=False)
            except RuntimeError:
                # In-place operations outside of modules need tensors that own their memory. Whether it was that shows
                # in the second attempt.
                outputs = self._run(values, copies=True)
                self._copies = True
                return outputs
        return self._run(values, copies=True)

    def seen_from_here(self, site: Site) -> Site:
        """Another site of the network, as `capture` meets it in a run from this layer on.

        Raises:
            CannotResume: it lies before the layer.
        """
        number = self._made.get((site.module, site.call))
        if number is None:
            raise CannotResume(f"{site.name} lies before {self.site.name}")
        return Site(site.name, site.module, number, site.item, site.layout)

    def _run(self, values: Tensor, copies: bool) -> Any:
        reached: list[nn.Module] = []

        def batch(kept: Tensor) -> Tensor:
            n = values.shape[0]
            if kept.ndim and kept.shape[0] == 1 and n > 1:
                kept = kept.expand(n, *kept.shape[1:])
                return kept.clone() if copies else kept
            return kept.clone()

        with ExitStack() as stack:
            # Transformer blocks have a fast way around their own layers, which they leave to networks without hooks.
            stack.enter_context(hooked([self.site.module], before=reached.append))
            for module, kept in self._kept.items():
                stack.enter_context(_answering(module, self._answers(module, kept, values, batch)))
            outputs = self.model(batch(self._x))
        if not reached:
            raise CannotResume("it does not run the layer")
        return outputs

    def _answers(
        self, module: nn.Module, outputs: dict[int, Any], values: Tensor, batch: Callable[[Tensor], Tensor]
    ) -> Callable[..., Any]:
        calls = 0

        def answer(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls - 1 not in outputs:
                return forward(*args, **kwargs)
            output = pytree.tree_map_only(Tensor, batch, outputs[calls - 1])
            if module is self.site.module and calls - 1 == self._call:
                # A copy, so that in-place operations that follow leave the caller's alone.
                return replaced(output, self.site.item, values.clone())
            return output

        return answer

    def _check(self, expected: Any) -> None:
        """Two samples from the recorded activations must give the recorded outputs twice."""
        shared = [self._x, *tensors_of(list(self._kept.values()))]
        versions = [tensor._version for tensor in shared]
        unwritten = self._x.clone(), _each_tensor(self._kept, torch.clone)
        values = self.recorded.expand(2, *self.recorded.shape[1:])
        try:
            with torch.no_grad():
                actual = self(values)
                if [tensor._version for tensor in shared] != versions:
                    # Not all operations that write into shared memory are refused by torch.
                    self._x, self._kept = unwritten
                    self._copies = True
                    actual = self(values)
        except Exception as error:
            raise CannotResume(str(error)) from error
        pairs = list(zip(tensors_of(actual), tensors_of(expected), strict=False))
        if not pairs:
            raise CannotResume("it returns no tensor")
        precision = _coarsest([*shared, *tensors_of(expected)])
        for got, wanted in pairs:
            if not wanted.is_floating_point():
                continue
            limit = _TOLERANCE[precision] * float(wanted.abs().max()) if wanted.numel() else 0.0
            if got.shape[1:] != wanted.shape[1:] or not bool(((got - wanted).abs() <= limit).all()):
                raise CannotResume("its outputs depend on more than this layer")


def _renumbered(trace: Trace, cut: Call) -> tuple[dict[nn.Module, dict[int, int]], dict[tuple[nn.Module, int], int]]:
    """Which calls are answered and which are made, and which calls of their modules they are then.

    Answered are `cut` and the outermost calls that returned before it was made; calls inside of those do not happen.

    Returns:
        answered: per module, the number of a call in the trace -> in a run from `cut` on.
        made: likewise, (module, number) -> number.
    """
    around = set(cut.ancestors)
    skipped = {
        call
        for call in trace.calls
        if call is cut or (call.end < cut.begin and (call.parent is None or call.parent in around))
    }
    answered: dict[nn.Module, dict[int, int]] = {}
    made: dict[tuple[nn.Module, int], int] = {}
    counts: dict[nn.Module, int] = {}
    for call in sorted(trace.calls, key=lambda call: call.begin):
        if skipped.isdisjoint(call.ancestors):
            number = counts.get(call.module, 0)
            counts[call.module] = number + 1
            if call in skipped:
                answered.setdefault(call.module, {})[call.index] = number
            else:
                made[call.module, call.index] = number
    return answered, made


def _coarsest(tensors: Sequence[Tensor]) -> torch.dtype:
    """The least precise of their floating-point types."""
    met = {tensor.dtype for tensor in tensors}
    return next(
        (dtype for dtype in (torch.bfloat16, torch.float16, torch.float32) if dtype in met),
        torch.float64,
    )


def _each_tensor(kept: _Kept, change: Callable[[Tensor], Tensor]) -> _Kept:
    return {
        module: {index: pytree.tree_map_only(Tensor, change, output) for index, output in by_call.items()}
        for module, by_call in kept.items()
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
