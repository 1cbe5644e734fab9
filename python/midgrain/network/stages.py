"""The convolutional blocks of a network: where its maps become smaller, and the last layer before each such step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from midgrain.driver import Target
from midgrain.network.capture import Site
from midgrain.network.layout import ChannelsLast, Layout, Tokens
from midgrain.network.narrows import narrows
from midgrain.network.spatial import Layouts, is_pooling, spatial_sites
from midgrain.network.trace import Call, Trace

__all__ = ["stage_sites"]


def stage_sites(model: nn.Module, x: Tensor, calls: Trace, last: Site, target: Target) -> tuple[Site, ...]:
    """The last layer of each convolutional block, shallow to deep (Sattarzadeh et al. 2021, "block-wise").

    A block ends where the maps are down-sampled, by pooling or by a layer with strides. Its last layer is the last one
    before that through which everything goes that the score depends on: not inside of a branch, nor inside of a
    bottleneck that itself has the strides. Poolings do not count. Call it inside `driver.preserved`.

    Args:
        model: an unwrapped network.
        x: its input.
        calls: the trace of the network for inputs of this shape.
        last: the layer that ends the last block, see `midgrain.cams.layers.last_spatial_site`.
        target: what to explain.

    Raises:
        ValueError: a transformer, whose tokens are not maps.
    """
    if isinstance(last.layout, Tokens):
        raise ValueError(
            f"layer: the network ends in tokens ({last.name}), not in convolutional blocks; name its layers "
            "(layer=[...]), or use 'rise', 'scorecam' or 'gradcam', which need no blocks"
        )
    found = [last]
    place = _Places(x, calls)
    # A callable may pick a class for each sample; otherwise as many samples as were traced are enough.
    inputs, wanted = (x, target) if callable(target) else (x[: calls.batch], None)
    narrow = {(each.module, each.call, each.item) for each in narrows(model, inputs, wanted)}
    cuts = [
        site
        for site in spatial_sites(x, calls, outputs=True)  # Networks may return feature maps beside their scores.
        if not isinstance(site.layout, Tokens)
        and place.call(site).end >= place.first_weights
        and place.maker(site) in narrow
    ]
    size = place.size(last)
    for site in cuts:
        if place.call(site).end >= place.call(found[-1]).end:
            continue
        if _reduced(size, place.size(site)):  # A decoder makes maps larger again; what it began with is no block's end.
            size = place.size(site)
        if not _reduced(place.size(site), size):
            continue
        # Of a layer of several convolutions with strides, what comes before it.
        around = place.layer_with_strides(site, size)
        if around is not None:
            earlier = [
                other
                for other in cuts
                if place.call(other).end < around.begin and not _reduced(place.size(other), place.size(site))
            ]
            site = earlier[0] if earlier else site
        found.append(site)
        size = place.size(site)
    return tuple(reversed(found))


def _reduced(size: Sequence[int], later: Sequence[int]) -> bool:
    """Is a later map down-sampled? Convolutions without padding only lose some cells."""
    return any(2 * b <= a + 1 < 2 * a for a, b in zip(size, later, strict=True))


class _Places:
    """Calls of a network and the sizes of the maps that they returned."""

    def __init__(self, x: Tensor, calls: Trace):
        self.calls = calls
        self._layouts = Layouts(x, calls)
        weighted = (call.end for call in calls.calls if next(call.module.parameters(recurse=False), None) is not None)
        #: When the first module with weights had returned: what is before is no feature (padding, say).
        self.first_weights = min(weighted, default=0)

    def call(self, site: Site) -> Call:
        """The call that returned it."""
        return self.calls.of(site.module)[site.call]

    def maker(self, site: Site) -> tuple[nn.Module, int, int]:
        """The first module that returned the tensor, at which of its calls and as which of its tensors."""
        call, item = self.call(site).makers[site.item]
        return call.module, call.index, item

    def size(self, site: Site) -> tuple[int, ...]:
        """Cells along each axis."""
        return _cells(self.call(site).shapes[site.item], site.layout)

    def layer_with_strides(self, site: Site, later: Sequence[int]) -> Call | None:
        """The outermost layer around a site that takes its resolution to the next and does this by a convolution.

        Containers are no layers, nor are parts of the network that do more than this one step.
        """
        inner = self.call(site)
        size = self.size(site)
        found = None
        for around in inner.ancestors:
            if type(around.module).forward is nn.Sequential.forward:
                continue
            inside = [call for call in self.calls.calls if around.begin < call.begin and call.end < around.end]
            sizes = [(call, each) for call in inside for each in self._maps(call)]
            beyond = any(_reduced(each, size) or _reduced(later, each) for _, each in sizes)
            if beyond or not any(_reduced(size, each) for each in self._maps(around)):
                continue
            smaller = [call for call, each in sizes if call.begin > inner.end and _reduced(size, each)]
            if smaller and _has_weights(smaller[0].module):
                found = around
        return found

    def _maps(self, call: Call) -> Iterator[tuple[int, ...]]:
        """Sizes of the maps that a call returned."""
        for item, shape in enumerate(call.shapes):
            layout = self._layouts.of(call, item)
            if layout is not None and not isinstance(layout, Tokens):
                yield _cells(shape, layout)


def _cells(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    return shape[1:-1] if isinstance(layout, ChannelsLast) else shape[2:]


def _has_weights(module: nn.Module) -> bool:
    return not is_pooling(module) and next(module.parameters(), None) is not None
