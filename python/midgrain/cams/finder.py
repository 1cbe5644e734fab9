"""Finding the layers that an explainer looks at, once for every shape of input."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from midgrain.cams.layers import Layer, Reshape, last_spatial_site, named_site
from midgrain.driver import Target
from midgrain.network.capture import Site
from midgrain.network.trace import Trace, trace

__all__ = ["LayerFinder"]

# Shapes of inputs that the layers are remembered for.
_MOST_FOUND = 32


class LayerFinder:
    """Knows which layers are meant, and remembers where they lie in a network.

    Args:
        layer: None finds the last spatial layer; a module or its dotted name is taken; or several.
        reshape: a callable from the layer's output to maps [B, K, h, w] ([B, K, t, h, w] for clips), where they are
            not recognised: [B, K, *s], [B, *s, K] and tokens [B, N, K] are.
    """

    def __init__(self, layer: Layer | Sequence[Layer] | None = None, reshape: Reshape | None = None):
        if reshape is not None and not callable(reshape):
            raise TypeError(f"reshape: expected a callable, got {type(reshape).__name__}")
        if reshape is not None and layer is None:
            raise ValueError("reshape: it goes with a layer; pass layer= too")
        if layer is None or isinstance(layer, str | nn.Module):
            self.layers: tuple[Layer, ...] | None = None if layer is None else (layer,)
        elif isinstance(layer, Sequence) and all(isinstance(one, str | nn.Module) for one in layer):
            self.layers = tuple(layer)
            if not self.layers:
                raise ValueError("layer: expected at least one layer, got an empty sequence")
        else:
            raise TypeError(f"layer: expected None, a module, its dotted name or several, got {type(layer).__name__}")
        self.reshape = reshape
        self._found: dict[Any, _Found] = {}

    def sites(self, model: nn.Module, x: Tensor, target: Target) -> tuple[Site, ...]:
        """Where the layers' outputs are caught, found at the first input of a shape.

        Raises:
            TypeError, ValueError: see `named_site` and `last_spatial_site`.
        """
        return self._find(model, x, target).sites

    def find_sites(self, model: nn.Module, x: Tensor, calls: Trace, target: Target) -> tuple[Site, ...]:
        """The layers where the user names none."""
        return (last_spatial_site(model, x, calls, target),)

    def named_sites(self, model: nn.Module, x: Tensor, calls: Trace) -> tuple[Site, ...]:
        """The layers that the user names."""
        return tuple(named_site(model, x, calls, layer, self.reshape) for layer in self.layers or ())

    def trace(self, model: nn.Module, x: Tensor, target: Target) -> Trace:
        """The network's calls for inputs of this shape."""
        return self._find(model, x, target).trace

    def _find(self, model: nn.Module, x: Tensor, target: Target) -> _Found:
        key = (tuple(x.shape[1:]), x.dtype, x.device)
        # Classes all depend on the same layer; what a callable picks from the outputs may depend on another.
        picked = target if self.layers is None and callable(target) else None
        found = self._found.get(key)
        if found is None or not found.holds(model, picked):
            calls = _traced(model, x)
            if self.layers is None:
                sites = self.find_sites(model, x, calls, target)
            else:
                sites = self.named_sites(model, x, calls)
            found = _Found(weakref.ref(model), None if picked is None else _weak(picked), sites, calls)
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            self._found[key] = found
        return found


@dataclass(frozen=True)
class _Found:
    """Sites of a network, which they do not keep alive."""

    model: weakref.ref[nn.Module]
    #: The callable that picks the score; None for classes and for layers that the user named.
    target: Callable[[], Any] | None
    sites: tuple[Site, ...]
    trace: Trace

    def holds(self, model: nn.Module, target: Target) -> bool:
        """Is it about this network, as it is now, and this callable?"""
        same = self.target is None if target is None else self.target is not None and self.target() == target
        # Parts of a network may have been exchanged since.
        return same and self.model() is model and all(site.is_in(model) for site in self.sites)


def _traced(model: nn.Module, x: Tensor) -> Trace:
    try:
        return trace(model, x[:1])
    except (RuntimeError, AssertionError):
        if x.shape[0] == 1:
            raise
        return trace(model, x)  # Some networks take one batch size only.


def _weak(target: Any) -> Callable[[], Any]:
    try:
        return weakref.WeakMethod(target) if inspect.ismethod(target) else weakref.ref(target)
    except TypeError:  # Some callables cannot be referred to weakly.
        return lambda: target
