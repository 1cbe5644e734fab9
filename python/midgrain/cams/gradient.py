"""Class activation maps from a layer's activations and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from midgrain.cams.base import FormulaCAM
from midgrain.cams.layers import Layer, Reshape
from midgrain.ops.checks import check_bool

__all__ = ["ActGradCAM", "GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "XGradCAM"]


class _WeightedCAM(FormulaCAM):
    """ReLU(sum_k a_k A_k), with weights a_k of the channels from the gradients g_k = dy_c / dA_k.

    Args:
        layer: see `CAM`.
        reshape: see `CAM`.
        temporal: of clips, "clip" weighs a channel once, over all its positions; "frame" in every step of the map on
            its own.
        relu: False keeps the signs of the map.
    """

    def __init__(
        self,
        layer: Layer | Sequence[Layer] | None = None,
        reshape: Reshape | None = None,
        temporal: Literal["clip", "frame"] = "clip",
        relu: bool = True,
    ):
        super().__init__(layer, reshape)
        if temporal not in ("clip", "frame"):
            raise ValueError(f"temporal: expected 'clip' or 'frame', got {temporal!r}")
        self.temporal = temporal
        self.relu = check_bool(relu, "relu")

    def formula(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Float32 [B, K, *m] twice -> [B, *m]."""
        axes = (-2, -1) if activations.ndim == 4 or self.temporal == "frame" else (-3, -2, -1)
        weights = self.weights(activations, gradients, axes)
        maps = self.combined(weights, activations)
        return maps.clamp(min=0) if self.relu else maps

    def weights(self, activations: Tensor, gradients: Tensor, axes: tuple[int, ...]) -> Tensor:
        """The weights a_k over the positions `axes`, which are kept with one element."""
        raise NotImplementedError


class GradCAM(_WeightedCAM):
    """a_k = mean(g_k) (Selvaraju et al. 2017)."""

    def weights(self, activations: Tensor, gradients: Tensor, axes: tuple[int, ...]) -> Tensor:
        """The mean gradient."""
        return gradients.mean(axes, keepdim=True)


class GradCAMPlusPlus(_WeightedCAM):
    """a_k = sum w_ij ReLU(g_ij), w_ij = g_ij^2 / (2 g_ij^2 + sum(A_k) g_ij^3) (Chattopadhyay et al. 2018)."""

    def weights(self, activations: Tensor, gradients: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Divided by g_ij^2 first, so that small gradients do not vanish; 0 where the denominator is 0."""
        denominator = 2.0 + activations.sum(axes, keepdim=True) * gradients
        shares = (1.0 / denominator).where((denominator != 0) & (gradients != 0), 0.0)
        return (shares * gradients.clamp(min=0)).sum(axes, keepdim=True)


class XGradCAM(_WeightedCAM):
    """a_k = sum (A_ij / sum(A_k)) g_ij (Fu et al. 2020); 0 where the sum is 0."""

    def weights(self, activations: Tensor, gradients: Tensor, axes: tuple[int, ...]) -> Tensor:
        """The gradient averaged with the activations as weights."""
        total = activations.sum(axes, keepdim=True)
        mean = (activations * gradients).sum(axes, keepdim=True) / total.where(total != 0, 1.0)
        return mean.where(total != 0, 0.0)


class ActGradCAM(_WeightedCAM):
    """a_k = mean(A_k g_k), signs kept (GWS: Act-Grad-CAM; Thesis 6.2: Grad-AMap-CAM)."""

    def weights(self, activations: Tensor, gradients: Tensor, axes: tuple[int, ...]) -> Tensor:
        """The mean of activation times gradient."""
        return (activations * gradients).mean(axes, keepdim=True)


class LayerCAM(_WeightedCAM):
    """ReLU(sum_k ReLU(g_k) A_k), position by position (Jiang et al. 2021): for early layers too."""

    def weights(self, activations: Tensor, gradients: Tensor, axes: tuple[int, ...]) -> Tensor:
        """The positive gradients themselves."""
        return gradients.clamp(min=0)


class HiResCAM(_WeightedCAM):
    """ReLU(sum_k g_k A_k), position by position (Draelos and Carin 2020)."""

    def weights(self, activations: Tensor, gradients: Tensor, axes: tuple[int, ...]) -> Tensor:
        """The gradients themselves."""
        return gradients
