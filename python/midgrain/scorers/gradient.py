"""Vanilla gradient and input x gradient."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from midgrain import driver
from midgrain.driver import Target
from midgrain.scorers.base import Score, max_abs_over_channels

__all__ = ["InputXGradient", "Vanilla"]


class Vanilla:
    """|dy_c / dx|, its maximum over the channels (Simonyan et al. 2014; Thesis 3.3)."""

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """One forward and one backward pass."""
        result = driver.input_gradient(model, x, target)
        assert result.gradient is not None
        return Score(max_abs_over_channels(result.gradient), result)


class InputXGradient:
    """|x * dy_c / dx|, its maximum over the channels (Shrikumar et al. 2017)."""

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """One forward and one backward pass."""
        result = driver.input_gradient(model, x, target)
        assert result.gradient is not None
        return Score(max_abs_over_channels(x.detach() * result.gradient), result)
