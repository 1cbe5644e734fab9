"""Guided Grad-CAM: where a class activation map and guided backpropagation agree."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from midgrain import driver
from midgrain.cams.base import CAM, FormulaCAM, LayerMaps, merged
from midgrain.cams.gradient import ActGradCAM, GradCAM
from midgrain.cams.layers import Layer, Reshape
from midgrain.driver import Target
from midgrain.network.capture import HALF_SCALE, Capture, Site
from midgrain.network.modules import unwrapped
from midgrain.network.trace import hooked, replaced, tensors_of
from midgrain.scorers.base import Score, max_abs_over_channels
from midgrain.scorers.guided import GuidedReLUs

__all__ = ["GuidedActGradCAM", "GuidedGradCAM"]


class _GuidedCAM(CAM):
    """Guided backpropagation (see `midgrain.scorers.guided`) times a class activation map resized to the input.

    Args:
        layer: see `CAM`.
        reshape: see `CAM`.
        temporal: see the class activation map.
        relu: see the class activation map.
    """

    at_layer = False
    name = ""
    inner: type[GradCAM] | type[ActGradCAM]

    def __init__(
        self,
        layer: Layer | Sequence[Layer] | None = None,
        reshape: Reshape | None = None,
        temporal: Literal["clip", "frame"] = "clip",
        relu: bool = True,
    ):
        super().__init__(layer, reshape)
        self.cam: FormulaCAM = self.inner(layer, reshape, temporal, relu)

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """One forward pass and two backward passes: a plain one as far as the layers, a guided one to the input.

        Raises:
            ValueError: the gradient met no ReLU (a network of GELU or SiLU, say); the score does not depend on a
                layer.
        """
        network = unwrapped(model)
        sites = self.sites(network, x, target)
        relus, watched = GuidedReLUs(), _Watched(sites)

        def plain_then_guided(total: Tensor) -> AbstractContextManager[Any]:
            watched.differentiate(total)
            return relus.guide(total)

        with hooked({site.module for site in sites}, after=watched.keep):
            result = driver.input_gradient(network, x, target, plain_then_guided)
        if relus.met == 0:
            raise ValueError(
                f"{self.name!r}: the model's gradient passed no ReLU or ReLU6, so guided backpropagation is not "
                "defined for it; use 'gradcam'"
            )
        assert result.gradient is not None
        maps = self.cam.formulas(watched.capture(result))
        guided = max_abs_over_channels(result.gradient)
        return Score(guided * merged(maps, x.shape[2:]), result, maps[0] if len(maps) == 1 else None)

    def layer_maps(self, model: Any, x: Tensor, target: Target) -> LayerMaps:
        """There are none: the product has the input's size.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{self.name!r} is a product at the input's size and has no maps of a layer's; use 'gradcam'")


class GuidedGradCAM(_GuidedCAM):
    """Guided backpropagation times Grad-CAM (Selvaraju et al. 2017)."""

    name = "guided-gradcam"
    inner = GradCAM


class GuidedActGradCAM(_GuidedCAM):
    """Guided backpropagation times Act-Grad-CAM (GWS)."""

    name = "guided-act-gradcam"
    inner = ActGradCAM


class _Watched:
    """Layers' outputs inside the graph of one forward pass, and the score's gradients there."""

    def __init__(self, sites: Sequence[Site]):
        self.sites = sites
        self._calls: dict[nn.Module, int] = {}
        self._seen: dict[int, Tensor] = {}
        self._gradients: dict[int, Tensor] = {}

    def keep(self, module: nn.Module, output: Any) -> Any:
        """A hook: what goes on is a copy, so that in-place operations that follow leave what is kept alone."""
        call = self._calls.get(module, 0)
        self._calls[module] = call + 1
        for number, site in enumerate(self.sites):
            if site.module is module and site.call == call:
                tensor = tensors_of(output)[site.item]
                self._seen[number] = tensor
                output = replaced(output, site.item, tensor.clone())
        return output

    def differentiate(self, total: Tensor) -> None:
        """The gradients of a score at the layers; the graph stays.

        Raises:
            ValueError: the score depends on none of them.
        """
        scale = HALF_SCALE if any(tensor.dtype == torch.float16 for tensor in self._seen.values()) else 1.0
        known = {number: tensor for number, tensor in self._seen.items() if tensor.requires_grad}
        gradients: Sequence[Tensor | None] = ()
        if known:
            gradients = torch.autograd.grad(total * scale, [*known.values()], retain_graph=True, allow_unused=True)
        self._gradients = {
            number: gradient.float() / scale
            for number, gradient in zip(known, gradients, strict=True)
            if gradient is not None
        }
        if not self._gradients:
            names = ", ".join(site.name for site in self.sites)
            raise ValueError(f"layer: the explained score does not depend on {names}")

    def capture(self, result: driver.Pass) -> Capture:
        """What was seen, as `midgrain.network.capture.capture` gives it."""
        activations, gradients = [], []
        for number, site in enumerate(self.sites):
            maps = site.layout.maps(self._seen[number].detach()).float()
            gradient = self._gradients.get(number)
            activations.append(maps)
            gradients.append(torch.zeros_like(maps) if gradient is None else site.layout.maps(gradient))
        return Capture(tuple(activations), tuple(gradients), False, result, torch.empty(0))
