"""Guided backpropagation without touching the model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode

from midgrain import driver
from midgrain.driver import Target
from midgrain.scorers.base import Score, max_abs_over_channels

__all__ = ["Guided", "GuidedReLUs"]

_aten = torch.ops.aten

_RELU_NODES = ("ReluBackward", "ThresholdBackward", "HardtanhBackward")
# Nodes that run other operators inside: in-place work on views, compiled TorchScript, custom functions of C++.
# Their names come with a namespace, "torch::autograd::CopySlices".
_OPAQUE_NODES = ("CopySlices", "DifferentiableGraphBackward", "CppNode")


class Guided:
    """Guided backpropagation (Springenberg et al. 2015), maximum of |.| over the channels (Thesis 3.3).

    At every ReLU the gradient passes where the forward output and the gradient itself are positive. ReLU6 and
    Hardtanh count as ReLUs. What is changed is this one backward pass, never the model, so nn.ReLU, F.relu,
    in-place and reused ReLUs are all met.
    """

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """One forward and one backward pass.

        Raises:
            ValueError: the gradient met no ReLU (a network of GELU or SiLU, say).
        """
        relus = GuidedReLUs()
        result = driver.input_gradient(model, x, target, relus.guide)
        relus.check_any("scorer 'guided'")
        assert result.gradient is not None
        return Score(max_abs_over_channels(result.gradient), result)


class GuidedReLUs:
    """Guides one backward pass and counts the ReLUs it met."""

    def __init__(self) -> None:
        self.met = 0

    def guide(self, score: Tensor) -> AbstractContextManager[Any]:
        """The context to run the backward pass of `score` in.

        Hooks on the ReLUs' graph nodes cost next to nothing and work on whichever thread runs the backward pass.
        Nodes that hide operators (checkpointing, custom functions) need every operator looked at instead.
        """
        relus = []
        for node in _graph(score):
            name = node.name()
            if _is_opaque(name) or isinstance(node, BackwardCFunction):
                return _GuidedOperators(self)
            if name.startswith(_RELU_NODES):
                relus.append(node)
        return self._guided_nodes(relus)

    def check_any(self, method: str) -> None:
        """Raises ValueError where the backward pass met no ReLU."""
        if self.met == 0:
            raise ValueError(
                f"{method}: the model's gradient passed no ReLU or ReLU6, so guided backpropagation is not defined "
                "for it; use scorer='vanilla' or scorer='input-x-gradient'"
            )

    @contextmanager
    def _guided_nodes(self, relus: list[Any]) -> Iterator[None]:
        handles = [relu.register_hook(self._keep_positive) for relu in relus]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep_positive(self, inner: tuple[Tensor | None, ...], outer: tuple[Tensor | None, ...]) -> None:
        """The positive part of what the ReLU has just passed on: the same as of what came in, which it may share."""
        self.met += 1
        for gradient in inner:
            if gradient is not None:
                gradient.clamp_(min=0)


class _GuidedOperators(TorchDispatchMode):
    """While active, every ReLU's backward operator gets the positive part of its incoming gradient."""

    _BACKWARDS = frozenset({_aten.threshold_backward.default, _aten.hardtanh_backward.default})

    def __init__(self, count: GuidedReLUs) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = count

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self._BACKWARDS:
            self.count.met += 1
            args = (args[0].clamp(min=0), *args[1:])
        return func(*args, **(kwargs or {}))


# Networks have hundreds of nodes of a few kinds.
@functools.cache
def _is_opaque(name: str) -> bool:
    return any(opaque in name for opaque in _OPAQUE_NODES)


def _graph(score: Tensor) -> Iterator[Any]:
    """Every node of the autograd graph behind `score`, once."""
    seen = {score.grad_fn}
    stack = [score.grad_fn]
    while stack:
        node: Any = stack.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                stack.append(following)
