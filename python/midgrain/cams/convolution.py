"""The last convolution of a network, whose filters are measured, or the norm that follows it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from midgrain.cams.finder import LayerFinder
from midgrain.cams.layers import Layer, last_spatial_site
from midgrain.driver import Target
from midgrain.network.capture import Site, run_until
from midgrain.network.layout import ChannelsFirst
from midgrain.network.spatial import is_convolution, is_norm, spatial_sites
from midgrain.network.trace import Call, Trace, tensors_of
from midgrain.ops.checks import check_bool

__all__ = ["FilterLayer"]

# What a norm makes of the convolution's output alone and in the network, relative to the largest value.
_TOLERANCE = 1e-2


class FilterLayer(LayerFinder):
    """The layer whose channels are a network's filters: its last convolution, in the order of the calls.

    Only convolutions count whose output is a map of the whole input on which the score depends, and no map of the
    classes themselves. Where the last block has branches it is the last of these alone; name a layer then (`layer=`)
    that all of them go through.

    Args:
        layer: None finds the last convolution; a module of the network or its dotted name is taken, whatever it is
            (a ReLU, say, or a block).
        after_norm: take what the batch norm (or another norm) that follows the layer makes of its output.

    Raises:
        TypeError: arguments of other kinds.
    """

    def __init__(self, layer: Layer | None = None, after_norm: bool = False):
        if layer is not None and not isinstance(layer, str | nn.Module):
            raise TypeError(f"layer: expected None, a module or its dotted name, got {type(layer).__name__}")
        super().__init__(layer)
        self.after_norm = check_bool(after_norm, "after_norm")

    def site(self, model: nn.Module, x: Tensor, target: Target) -> Site:
        """Where the layer's output is caught, found at the first input of a shape; call it in `driver.preserved`.

        Raises:
            ValueError: no such layer; none that is a convolution of the kind above; no norm right after it.
        """
        return self.sites(model, x, target)[0]

    def find_sites(self, model: nn.Module, x: Tensor, calls: Trace, target: Target) -> tuple[Site, ...]:
        """The last convolution."""
        last = next(spatial_sites(x, calls), None)
        if last is not None and not isinstance(last.layout, ChannelsFirst):
            raise ValueError(
                f"layer: the network ends in tokens ({last.name}), not in a convolution; name the layer whose channels "
                "are to be measured"
            )

        def convolves(site: Site) -> bool:
            return is_convolution(_maker(calls, site).module)

        if not any(convolves(site) for site in spatial_sites(x, calls)):
            raise ValueError(
                f"layer: no convolution of the network gives a map of an input {list(x.shape)}; name the layer whose "
                "channels are to be measured"
            )
        found = last_spatial_site(model, x, calls, target, convolves)
        call, item = calls.of(found.module)[found.call].makers[found.item]
        # Blocks may hand on what a convolution inside of them returned.
        return (self._placed(model, x, calls, Site(call.name, call.module, call.index, item, found.layout)),)

    def named_sites(self, model: nn.Module, x: Tensor, calls: Trace) -> tuple[Site, ...]:
        """The layer that the user names."""
        return tuple(self._placed(model, x, calls, site) for site in super().named_sites(model, x, calls))

    def _placed(self, model: nn.Module, x: Tensor, calls: Trace, site: Site) -> Site:
        return _following_norm(model, x, calls, site) if self.after_norm else site


def _maker(calls: Trace, site: Site) -> Call:
    return calls.of(site.module)[site.call].makers[site.item][0]


def _following_norm(model: nn.Module, x: Tensor, calls: Trace, site: Site) -> Site:
    maker = _maker(calls, site)
    shape = calls.of(site.module)[site.call].shapes[site.item]
    later = sorted((call for call in calls.calls if call.begin > maker.end), key=lambda call: call.begin)
    inside = (call for call in later if is_norm(call.module) or not any(True for _ in call.module.children()))
    norm = next(inside, None)
    if norm is not None and is_norm(norm.module) and norm.shapes == (shape,):
        after = Site(norm.name, norm.module, norm.index, 0, site.layout)
        # Something else may stand between them, an addition say, which is no module.
        before, normed = (run_until(model, x[: calls.batch], each) for each in (site, after))
        with torch.no_grad():
            alone = tensors_of(norm.module(before.clone()))[0]
        if bool(((alone - normed).abs() <= _TOLERANCE * normed.abs().max()).all()):
            return after
    raise ValueError(
        f"after_norm: no norm follows {site.name} directly, so there is nothing to take after it; use after_norm=False"
    )
