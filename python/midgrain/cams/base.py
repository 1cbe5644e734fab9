"""What all class activation maps share: finding their layers, running the network, resizing their maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from midgrain.cams.finder import LayerFinder
from midgrain.driver import Pass, Target
from midgrain.maps import min_max, resize_maps
from midgrain.network.capture import Capture, capture
from midgrain.network.modules import unwrapped
from midgrain.scorers.base import Score

__all__ = ["CAM", "FormulaCAM", "LayerMaps", "merged", "resize_maps"]


@dataclass(frozen=True)
class LayerMaps:
    """Class activation maps as the layers have them, and the pass that made them."""

    #: Per layer float32 [B, *m].
    maps: tuple[Tensor, ...]
    result: Pass


class CAM(LayerFinder):
    """A class activation map: a scorer of pixels that looks at a layer.

    Args:
        layer: None finds the last spatial layer; a module or its dotted name is taken; of several, the maps are
            resized, each rescaled to 0 .. 1, and averaged.
        reshape: a callable from the layer's output to maps [B, K, h, w] ([B, K, t, h, w] for clips), where they are
            not recognised: [B, K, *s], [B, *s, K] and tokens [B, N, K] are.
    """

    #: Is `layer_maps` what is explained, so that finer maps of the same kind can be made from patches?
    at_layer = True

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """The maps resized to the input, [B, *S]."""
        made = self.layer_maps(model, x, target)
        cam = made.maps[0] if len(made.maps) == 1 else None
        return Score(merged(made.maps, x.shape[2:]), made.result, cam)

    def layer_maps(self, model: Any, x: Tensor, target: Target) -> LayerMaps:
        """The maps of each layer at its own size."""
        raise NotImplementedError

    def combined(self, weights: Tensor, activations: Tensor) -> Tensor:
        """sum_k a_k A_k.

        Args:
            weights: float32 [B, K, *m], or with one element along any axis of m.
            activations: float32 [B, K, *m].

        Returns:
            [B, *m].
        """
        if math.prod(weights.shape[2:]) != 1:
            return (weights * activations).sum(1)
        # One weight per channel: no product as large as the activations.
        with torch.autocast(activations.device.type, enabled=False):
            maps = torch.bmm(weights.flatten(2).transpose(1, 2), activations.flatten(2))
        return maps.reshape(activations.shape[0], *activations.shape[2:])


class FormulaCAM(CAM):
    """A map that is a formula of a layer's activations and gradients."""

    #: Does the formula use gradients?
    backward = True

    def layer_maps(self, model: Any, x: Tensor, target: Target) -> LayerMaps:
        """One forward pass, and a backward pass only as far as the layers."""
        network = unwrapped(model)
        seen = capture(network, x, target, self.sites(network, x, target), backward=self.backward)
        return LayerMaps(self.formulas(seen), seen.result)

    def formulas(self, seen: Capture) -> tuple[Tensor, ...]:
        """The formula for every layer of a capture."""
        gradients = seen.gradients or [None] * len(seen.activations)
        return tuple(
            self.formula(activations, gradient)
            for activations, gradient in zip(seen.activations, gradients, strict=True)
        )

    def formula(self, activations: Tensor, gradients: Any) -> Tensor:
        """Float32 [B, K, *m] twice (gradients None where `backward` is False) -> [B, *m]."""
        raise NotImplementedError


def merged(maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """One map resized, or the mean of several resized and rescaled to 0 .. 1."""
    resized = [resize_maps(each, size) for each in maps]
    return resized[0] if len(resized) == 1 else torch.stack([min_max(each) for each in resized]).mean(0)
