"""DeepMaps: attributions of the hidden activations of all layers, added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from midgrain import driver
from midgrain.cams.base import CAM, LayerMaps
from midgrain.cams.layers import Layer, Reshape, last_spatial_site
from midgrain.driver import Target
from midgrain.maps import min_max, resize_maps
from midgrain.network.capture import Site, capture
from midgrain.network.modules import unwrapped
from midgrain.network.narrows import narrows
from midgrain.network.spatial import Layouts
from midgrain.network.trace import Trace
from midgrain.scorers.base import Score

__all__ = ["DeepMaps"]


class DeepMaps(CAM):
    """sum over layers of psi(sum_k A_k dy_c/dA_k), position by position (DeepMaps 2021, eq. 6 and 8).

    psi takes the magnitude, rescales it to 0 .. 1 and resizes it to the input, bilinear (trilinear for clips).

    The layers, where `layer=None`: outputs with positions of activation functions (ReLU, SiLU, ...), and sums and
    joins of parallel routes, through which alone the score depends on the input. These are every ReLU of VGG's
    convolutions, and the first ReLU and the outputs of all blocks of a ResNet (17 of ResNet-50's); of MobileNets,
    ConvNeXt and transformers the residual sums, of Inception and DenseNet the joins. A network that has none is
    explained at its last spatial layer.

    Details: "layer_sums" float32 [B, L], sum of A dy_c/dA over each layer (eq. 7): all y_c, had the network no biases.

    Args:
        layer: None finds them; a module, its dotted name, or several.
        reshape: see `CAM`.

    Raises:
        TypeError, ValueError: an argument of the wrong kind; see `CAM`.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, stride=2),
        ...                             torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> mg.scorer("deepmaps").layer_names(model, torch.rand(1, 3, 16, 16))
        ('1', '3')
        >>> mg.explainer("deepmaps", model)(torch.rand(2, 3, 16, 16)).details["layer_sums"].shape
        torch.Size([2, 2])
    """

    at_layer = False

    def __init__(self, layer: Layer | Sequence[Layer] | None = None, reshape: Reshape | None = None):
        super().__init__(layer, reshape)

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """One forward pass, and a backward pass as far as the first layer.

        Raises:
            ValueError: the score depends on no layer.
        """
        made = self.layer_maps(model, x, target)
        total = torch.stack([resize_maps(min_max(maps.abs()), x.shape[2:]) for maps in made.maps]).sum(0)
        sums = torch.stack([maps.flatten(1).sum(1) for maps in made.maps], 1)
        cam = made.maps[0].abs() if len(made.maps) == 1 else None
        return Score(total, made.result, cam, {"layer_sums": sums})

    def layer_maps(self, model: Any, x: Tensor, target: Target) -> LayerMaps:
        """Per layer the attributions sum_k A_k dy_c/dA_k with their signs, float32 [B, *m]."""
        network = unwrapped(model)
        seen = capture(network, x, target, self.sites(network, x, target))
        maps = tuple((a * g).sum(1) for a, g in zip(seen.activations, seen.gradients, strict=True))
        return LayerMaps(maps, seen.result)

    def layer_names(self, model: Any, x: Tensor, target: Target = None) -> tuple[str, ...]:
        """The dotted names of the layers that inputs like x are explained at, in the order of "layer_sums".

        Args:
            model: the network.
            x: floats [B, C, *S].
            target: what to explain.
        """
        x = driver.check_input(x)
        with driver.preserved(model, x):
            return tuple(site.name for site in self.sites(unwrapped(model), x, target))

    def find_sites(self, model: nn.Module, x: Tensor, calls: Trace, target: Target) -> tuple[Site, ...]:
        """Narrow places with positions, first to last."""
        inputs, wanted = (x, target) if callable(target) else (x[: calls.batch], None)
        own = calls.calls[-1]
        layouts = Layouts(x, calls)
        by_call = {(call.reference(), call.index): call for call in calls.calls if call is not own}
        sites = []
        for narrow in narrows(model, inputs, wanted):
            call = by_call.get((narrow.module, narrow.call))
            if call is None or not (narrow.activation or narrow.merge):
                continue
            layout = layouts.of(call, narrow.item)
            if layout is not None:
                sites.append(Site(call.name, narrow.module, narrow.call, narrow.item, layout))
        return tuple(sites) or (last_spatial_site(model, x, calls, target),)
