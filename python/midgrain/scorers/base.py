"""What a pixel scorer is, and how a user's own callable becomes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from midgrain import driver
from midgrain.driver import Pass, Target

__all__ = [
    "CHANNELS",
    "CallableScorer",
    "Score",
    "Scorer",
    "ScorerFunction",
    "check_channels",
    "max_abs_over_channels",
    "over_channels",
]

#: `(model, x, target) -> [B, *S]`, target being int64 [B] or the user's callable.
ScorerFunction: TypeAlias = Callable[[Any, Tensor, Any], Tensor]


@dataclass(frozen=True)
class Score:
    """A map per sample and the pass that made it."""

    #: float32 [B, H, W] or [B, T, H, W].
    map: Tensor
    result: Pass
    #: Of a class activation map, the map at its layer's size [B, *m].
    cam: Tensor | None = None
    #: What else the method found out, see `Explanation.details`.
    details: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Scorer(Protocol):
    """Scores pixels. Called inside `driver.preserved`, with a checked input."""

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """One map [B, *S] for x [B, C, *S]."""
        ...


class CallableScorer:
    """A user's `(model, x, target) -> [B, *S]`; the target is resolved first, by a forward pass."""

    def __init__(self, function: ScorerFunction):
        self.function = function

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """Calls the function with the resolved classes and checks what comes back."""
        result = driver.forward(model, x, target)
        # A copy: what the function does to its input is not done to the caller's.
        values = self.function(model, x.detach().clone(), target if result.target is None else result.target)
        if not isinstance(values, Tensor):
            raise TypeError(f"scorer: expected it to return a tensor, got {type(values).__name__}")
        expected = [x.shape[0], *x.shape[2:]]
        if list(values.shape) != expected:
            raise ValueError(f"scorer: expected it to return shape {expected}, got {list(values.shape)}")
        return Score(values.detach().to(device=x.device, dtype=torch.float32), result)


def max_abs_over_channels(values: Tensor) -> Tensor:
    """[B, C, *S] -> [B, *S], the largest magnitude over the channels (Thesis 3.3)."""
    return values.detach().abs().amax(1).float()


#: How the values of a pixel's channels become its score.
CHANNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "max-abs": lambda values: values.abs().amax(1),
    "max": lambda values: values.amax(1),
    "sum": lambda values: values.sum(1),
}


def over_channels(values: Tensor, channels: str) -> Tensor:
    """[B, C, *S] -> float32 [B, *S], by one of `CHANNELS`."""
    return CHANNELS[channels](values.detach()).float()


def check_channels(channels: str) -> str:
    """Raises ValueError unless it is one of `CHANNELS`."""
    if not isinstance(channels, str) or channels not in CHANNELS:
        raise ValueError(f"channels: expected one of {', '.join(CHANNELS)}, got {channels!r}")
    return channels
