"""Guided backpropagation without touching the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from midgrain import driver
from midgrain.driver import Target
from midgrain.scorers.base import Score, max_abs_over_channels

__all__ = ["Guided", "GuidedBackward"]

_aten = torch.ops.aten


class GuidedBackward(TorchDispatchMode):
    """While active, every ReLU's backward lets only positive gradients through.

    It acts on the backward operators themselves, so nn.ReLU, F.relu, in-place and reused ReLUs and ReLU6 are all
    met, and there is nothing to put back in the model. `count` says how many ReLUs were met.
    """

    _BACKWARDS = frozenset({_aten.threshold_backward.default, _aten.hardtanh_backward.default})

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Clamps the incoming gradient of ReLU backwards."""
        if func in self._BACKWARDS:
            self.count += 1
            args = (args[0].clamp(min=0), *args[1:])
        return func(*args, **(kwargs or {}))


class Guided:
    """Guided backpropagation (Springenberg et al. 2015), maximum of |.| over the channels (Thesis 3.3).

    At every ReLU the gradient passes where the forward output and the gradient itself are positive.
    """

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """One forward and one backward pass.

        Raises:
            ValueError: the gradient met no ReLU (a network of GELU or SiLU, say).
        """
        guided = GuidedBackward()
        result = driver.input_gradient(model, x, target, guided)
        if guided.count == 0:
            raise ValueError(
                "scorer 'guided': the model's gradient passed no ReLU or ReLU6, so guided backpropagation is not "
                "defined for it; use scorer='vanilla' or scorer='input-x-gradient'"
            )
        assert result.gradient is not None
        return Score(max_abs_over_channels(result.gradient), result)
