"""grad-cam's classes for formulas of activations and gradients that midgrain has no name for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from midgrain.cams import CAM
from midgrain.cams.activation import principal_component
from midgrain.cams.base import FormulaCAM
from midgrain.compat.gradcam.base_cam import BaseCAM

__all__ = ["EigenGradCAM", "GradCAMElementWise", "RandomCAM"]


class _Formula(BaseCAM):
    """A formula of activations and gradients that midgrain has no name for."""

    formula: type[FormulaCAM]

    def make(self, options: dict[str, Any]) -> CAM:
        """The formula's class activation map."""
        return self.formula(**options)


class _ElementWise(FormulaCAM):
    def formula(self, activations: Tensor, gradients: Tensor) -> Tensor:
        products = (activations * gradients).clamp(min=0)
        return self.combined(torch.ones_like(products), products)


class _Random(FormulaCAM):
    backward = False

    def formula(self, activations: Tensor, gradients: Any) -> Tensor:
        # NumPy's global state, as in grad-cam, so that its users' `np.random.seed` is heard.
        drawn = np.random.uniform(-1, 1, size=tuple(activations.shape[:2]))  # noqa: NPY002
        weights = torch.from_numpy(drawn).to(activations)
        return self.combined(weights.reshape(*weights.shape, *[1] * (activations.ndim - 2)), activations)


class _PrincipalProduct(FormulaCAM):
    def formula(self, activations: Tensor, gradients: Tensor) -> Tensor:
        return principal_component(activations * gradients)


class GradCAMElementWise(_Formula):
    """Positive products of activations and gradients, added up."""

    formula = _ElementWise


class EigenGradCAM(_Formula):
    """The first principal component of activations times gradients."""

    formula = _PrincipalProduct


class RandomCAM(_Formula):
    """Channels weighted by chance (NumPy's global random state): a baseline."""

    formula = _Random
