"""Class activation maps that need no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from midgrain.cams.base import CAM, FormulaCAM, LayerMaps
from midgrain.cams.layers import Layer, Reshape
from midgrain.driver import Target
from midgrain.network.capture import capture
from midgrain.network.modules import unwrapped

__all__ = ["EigenCAM", "ReluActivation", "SaliencyTubes", "principal_component"]


class ReluActivation(FormulaCAM):
    """sum_k ReLU(A_k): how active the layer is, whatever the class (Thesis 3.7)."""

    backward = False

    def formula(self, activations: Tensor, gradients: Any) -> Tensor:
        """Float32 [B, K, *m] -> [B, *m]."""
        return activations.clamp(min=0).sum(1)


class EigenCAM(FormulaCAM):
    """The activations' first principal component, whatever the class (Muhammad and Yeasin 2020).

    Positions are the observations, centred per channel. A principal component has no sign of its own: this one goes
    with the activations' sum.
    """

    backward = False

    def formula(self, activations: Tensor, gradients: Any) -> Tensor:
        """Float32 [B, K, *m] -> [B, *m]."""
        return principal_component(activations)


def principal_component(values: Tensor) -> Tensor:
    """The first principal component of [B, K, *m], float32 [B, *m]; see `EigenCAM`."""
    positions = values.flatten(2).transpose(1, 2).double()  # [B, P, K]
    centred = positions - positions.mean(1, keepdim=True)
    with torch.autocast(values.device.type, enabled=False):
        # Eigenvectors of the products of positions or of channels, whichever are fewer.
        if positions.shape[1] <= positions.shape[2]:
            spectrum, vectors = torch.linalg.eigh(centred @ centred.transpose(1, 2))
            projection = vectors[..., -1] * spectrum[..., -1:].clamp(min=0).sqrt()  # [B, P]
        else:
            vectors = torch.linalg.eigh(centred.transpose(1, 2) @ centred).eigenvectors
            projection = (centred @ vectors[..., -1:])[..., 0]
    agreement = (projection * centred.sum(2)).sum(1, keepdim=True)
    projection = torch.where(agreement >= 0, projection, -projection)
    return projection.reshape(values.shape[0], *values.shape[2:]).float()


class SaliencyTubes(CAM):
    """sum_k w_ck A_k, w the weights of the network's only linear layer; signs kept (Stergiou et al. 2019).

    Made for video networks that average their last maps and end in one linear layer; images do as well.

    Args:
        layer: see `CAM`.
        reshape: see `CAM`.
    """

    def __init__(self, layer: Layer | Sequence[Layer] | None = None, reshape: Reshape | None = None):
        super().__init__(layer, reshape)
        if self.layers is not None and len(self.layers) > 1:
            raise ValueError("layer: expected one layer for 'saliency-tubes', whose weights are those of its channels")

    def layer_maps(self, model: Any, x: Tensor, target: Target) -> LayerMaps:
        """One forward pass.

        Raises:
            ValueError: no or several linear layers, or not one weight per channel of the layer and class; a callable
                target, which names no class.
        """
        network = unwrapped(model)
        linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
        if len(linear) != 1:
            raise ValueError(
                f"model: 'saliency-tubes' is defined for networks with one linear layer, this one has {len(linear)}; "
                "use 'gradcam'"
            )
        seen = capture(network, x, target, self.sites(network, x, target), backward=False)
        classes, outputs = seen.result.target, seen.result.outputs
        if classes is None:
            raise ValueError("target: 'saliency-tubes' needs classes, got a callable")
        (activations,) = seen.activations
        weights = linear[0].weight.detach().float()
        if outputs is None or list(weights.shape) != [outputs.shape[1], activations.shape[1]]:
            raise ValueError(
                f"model: 'saliency-tubes' needs a linear layer from the {activations.shape[1]} channels of the layer "
                f"to the classes, got {linear[0].in_features} inputs and {linear[0].out_features} outputs"
            )
        per_sample = weights[classes].reshape(*activations.shape[:2], *[1] * (activations.ndim - 2))
        return LayerMaps(((per_sample * activations).sum(1),), seen.result)
