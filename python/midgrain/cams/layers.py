"""The layers that class activation maps look at: those the user names, or the last spatial one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from midgrain.driver import Target
from midgrain.network.capture import Capture, Site, capture
from midgrain.network.layout import ChannelsFirst, Layout, Reshaped, Tokens, layout_of
from midgrain.network.modules import find_module, module_name
from midgrain.network.trace import Call, Trace

__all__ = ["Layer", "Reshape", "last_spatial_site", "named_site"]

#: A module of the network or its dotted name.
Layer: TypeAlias = nn.Module | str
#: From a layer's output to maps [B, K, h, w] or [B, K, t, h, w].
Reshape: TypeAlias = Callable[[Tensor], Tensor]

# How many layers are looked at together for one that the score depends on.
_AT_ONCE = 16


def named_site(model: nn.Module, x: Tensor, calls: Trace, layer: Layer, reshape: Reshape | None) -> Site:
    """The last spatial output of a layer that the user named.

    Args:
        model: an unwrapped network.
        x: its input.
        calls: the trace of the network for inputs of this shape.
        layer: a module or its dotted name.
        reshape: makes maps of the layer's output.

    Raises:
        TypeError: `layer` is neither.
        ValueError: no such layer; it is never run; its output is not spatial.
    """
    module = find_module(model, layer)
    name = layer if isinstance(layer, str) else module_name(model, module)
    own = calls.of(module)
    if not own:
        raise ValueError(f"layer: the network has {name}, but does not run it for this input")
    if reshape is not None:
        call = own[-1]
        if not call.shapes:
            raise ValueError(f"layer: {name} returns no tensor")
        return Site(name, module, call.index, 0, Reshaped(reshape, x.ndim - 2))
    for call in reversed(own):
        for item in range(len(call.shapes)):
            layout = _layout(call, item, x, calls)
            if layout is not None:
                return Site(name, module, call.index, item, layout)
    shapes = " and ".join(str(list(shape)) for shape in own[-1].shapes) or "no tensor"
    raise ValueError(
        f"layer: the output of {name} is not spatial for an input {list(x.shape)}: it returns {shapes} for one sample; "
        "choose a layer before pooling, or pass reshape=, a callable from this output to "
        f"{'[B, K, h, w]' if x.ndim == 4 else '[B, K, t, h, w]'}"
    )


def last_spatial_site(model: nn.Module, x: Tensor, calls: Trace, target: Target) -> Site:
    """The last layer whose output is still spatial and that the explained score depends on, position by position.

    Poolings do not count, nor maps of the classes themselves, whose mean is the output. In a transformer that reads
    its class token, the patches of the last block matter for nothing after its attention, so the layer is the norm
    before it.

    Args:
        model: an unwrapped network.
        x: its input.
        calls: the trace of the network for inputs of this shape.
        target: what to explain.

    Raises:
        ValueError: no layer is spatial.
    """
    candidates = list(_candidates(x, calls))
    if not candidates:
        raise ValueError(
            f"layer: no layer of the network has a spatial output for an input {list(x.shape)}; pass layer= with "
            "reshape=, a callable from its output to maps [B, K, *positions]"
        )
    # A callable may pick a class for each sample; otherwise one sample is enough.
    inputs, wanted = (x, target) if callable(target) else (x[:1], None)
    start, at_once = 0, 1
    while start < len(candidates):
        sites = candidates[start : start + at_once]
        try:
            seen = capture(model, inputs, wanted, sites)
        except ValueError:
            if start + at_once >= len(candidates):
                raise
            seen = None
        if seen is not None:
            for number, site in enumerate(sites):
                if bool(seen.gradients[number].any()) and not _class_maps(seen, number):
                    return site
        start, at_once = start + at_once, _AT_ONCE
    return candidates[0]  # All gradients are zero: a dead network, whose maps will be blank whatever the layer.


def _candidates(x: Tensor, calls: Trace) -> Iterator[Site]:
    """Spatial outputs, last first; of several modules that hand on the same tensor, the outermost."""
    met: set[tuple[int, int]] = set()
    own = calls.calls[-1]  # The network's own output is what is explained.
    width = None
    for call in reversed(calls.calls[:-1]):
        for item, maker in enumerate(call.makers):
            # One call's first tensor and another's second may be the same.
            tensor = (id(maker), call.shapes[item].__hash__())
            if tensor in met or any(maker is other for other in own.makers):
                continue
            met.add(tensor)
            layout = _layout(call, item, x, calls)
            if layout is None or _is_pooling(maker.module):
                continue
            if isinstance(layout, Tokens):
                # Queries, keys and values side by side and hidden layers are wider than the tokens themselves.
                width = width or call.shapes[item][-1]
                if call.shapes[item][-1] != width:
                    continue
            yield Site(call.name, call.module, call.index, item, layout)


def _layout(call: Call, item: int, x: Tensor, calls: Trace) -> Layout | None:
    size, shape = x.shape[2:], call.shapes[item]
    grids: list[tuple[int, ...]] = []
    tokens = set()
    for other in calls.calls:
        if other is call:
            break
        for theirs in other.shapes:
            # Attention may fold its heads into the batch; the positions are told all the same.
            if len(theirs) == x.ndim and theirs[0] and isinstance(layout_of(theirs, size, theirs[0]), ChannelsFirst):
                grids.append(theirs[2:])
            elif len(theirs) == 3:
                tokens.add(theirs[1])
    if len(shape) == x.ndim and shape[-1] == shape[-2] and shape[-1] in tokens:
        return None  # Attention from every token to every token.
    return layout_of(shape, size, 1, grids, last=_normalises_last_axis(call.module, shape))


def _normalises_last_axis(module: nn.Module, shape: Sequence[int]) -> bool:
    return list(getattr(module, "normalized_shape", ())) == [shape[-1]] and len(shape) > 3


def _is_pooling(module: nn.Module) -> bool:
    return "Pool" in type(module).__name__ and next(module.parameters(), None) is None


def _class_maps(seen: Capture, number: int) -> bool:
    """Are these one map per class, averaged to the outputs: no features any more?"""
    outputs, maps = seen.result.outputs, seen.activations[number].flatten(2)
    if outputs is None or outputs.shape[1] != maps.shape[1] or math.prod(maps.shape[2:]) == 1:
        return False
    outputs = outputs.float()
    means = (maps.mean(2), maps.clamp(min=0).mean(2))
    return any(torch.allclose(mean, outputs, rtol=1e-2, atol=1e-3 * float(outputs.abs().max())) for mean in means)
