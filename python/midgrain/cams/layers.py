"""The layers that class activation maps look at: those the user names, or the last spatial one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from midgrain.driver import Target
from midgrain.network.capture import NoGradientError, Site, capture
from midgrain.network.layout import Reshaped
from midgrain.network.modules import find_module, module_name
from midgrain.network.spatial import Layouts, spatial_sites
from midgrain.network.trace import Trace, tensors_of

__all__ = ["Layer", "Reshape", "last_spatial_site", "named_site"]

#: A module of the network or its dotted name.
Layer: TypeAlias = nn.Module | str
#: From a layer's output to maps [B, K, h, w] or [B, K, t, h, w].
Reshape: TypeAlias = Callable[[Tensor], Tensor]

# How many layers are looked at together for one that the score depends on, after the last one alone did not do.
_AT_ONCE = 24


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
        raise ValueError(
            f"layer: the network has {name}, but does not call it for this input; it may use its parts or its forward "
            "on their own"
        )
    if reshape is not None:
        call = own[-1]
        if True not in call.floating:
            raise ValueError(f"layer: {name} returns no tensor of floating-point numbers")
        return Site(name, module, call.index, call.floating.index(True), Reshaped(reshape, x.ndim - 2))
    layouts = Layouts(x, calls)
    for call in reversed(own):
        for item in range(len(call.shapes)):
            layout = layouts.of(call, item)
            if layout is not None:
                return Site(name, module, call.index, item, layout)
    shapes = " and ".join(str(list(shape)) for shape in own[-1].shapes) or "no tensor"
    raise ValueError(
        f"layer: the output of {name} is not spatial for an input {list(x.shape)}: it returns {shapes} for one sample; "
        "choose a layer before pooling, or pass reshape=, a callable from this output to "
        f"{'[B, K, h, w]' if x.ndim == 4 else '[B, K, t, h, w]'}"
    )


def last_spatial_site(
    model: nn.Module, x: Tensor, calls: Trace, target: Target, wanted: Callable[[Site], bool] = lambda site: True
) -> Site:
    """The last layer whose output is still spatial and that the explained score depends on, position by position.

    Poolings do not count, nor maps of the classes themselves. In a transformer that reads its class token, the patches
    of the last block matter for nothing after its attention, so the layer is the norm before it.

    Args:
        model: an unwrapped network.
        x: its input.
        calls: the trace of the network for inputs of this shape.
        target: what to explain.
        wanted: says of a site whether it may be the one.

    Raises:
        ValueError: no layer is spatial and wanted.
        NoGradientError: the score depends on none of them.
    """
    candidates = [site for site in spatial_sites(x, calls) if wanted(site)]
    if not candidates:
        raise ValueError(
            f"layer: no layer of the network has a spatial output for an input {list(x.shape)}; pass layer= with "
            "reshape=, a callable from its output to maps [B, K, *positions]"
        )
    # Mostly it is among the last ones. Failing that, gradients may be zero because a last linear layer is not trained
    # yet, say: other weights in the place of zeros still tell where the score would come from.
    site, connected = _first_that_matters(model, x, calls.batch, candidates[: 1 + _AT_ONCE], target)
    if site is None:
        with _NoZeroWeights():
            site, connected = _first_that_matters(model, x, calls.batch, candidates, target)
    if not connected:
        raise NoGradientError(
            "layer: the explained score depends on no layer with a spatial output, as far as gradients tell; does the "
            "network detach it, run under no_grad, or return a constant?"
        )
    return candidates[0] if site is None else site


def _first_that_matters(
    model: nn.Module, x: Tensor, batch: int, candidates: Sequence[Site], target: Target
) -> tuple[Site | None, bool]:
    """The first candidate with a gradient that is not zero everywhere, and whether the score depends on any."""
    outputs: Any = None

    def score(given: Any) -> Tensor:
        nonlocal outputs
        outputs = given
        assert callable(target)
        return target(given)

    # A callable may pick a class for each sample; otherwise as many samples as were traced are enough.
    inputs, wanted = (x, score) if callable(target) else (x[:batch], None)
    start, at_once, connected = 0, 1, False
    while start < len(candidates):
        sites = candidates[start : start + at_once]
        start, at_once = start + at_once, _AT_ONCE
        try:
            seen = capture(model, inputs, wanted, sites)
        except NoGradientError:
            continue
        connected = True
        outputs = outputs if callable(target) else seen.result.outputs
        for number, site in enumerate(sites):
            if bool(seen.gradients[number].any()) and not _class_maps(
                seen.activations[number], outputs, wanted is None
            ):
                return site, True
    return None, connected


def _class_maps(activations: Tensor, outputs: Any, logits: bool) -> bool:
    """Are these one map per class, averaged (to logits) or enlarged to the outputs: no features any more?"""
    classes = activations.shape[1]
    for output in tensors_of(outputs):
        if output.ndim == activations.ndim and output.shape[1] == classes:
            return True
        if logits and output.ndim == 2 and output.shape[1] == classes:
            wanted, maps = output.detach().float(), activations.flatten(2)
            tolerance = 1e-3 * float(wanted.abs().max())
            if any(
                torch.allclose(mean, wanted, rtol=1e-2, atol=tolerance)
                for mean in (maps.mean(2), maps.clamp(min=0).mean(2))
            ):
                return True
    return False


class _NoZeroWeights(TorchFunctionMode):
    """While active, in this thread, weights that are all zero are taken for ones that are not."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(isinstance(arg, nn.Parameter) for arg in args):
            args = tuple(self._filled(arg) for arg in args)
        return func(*args, **(kwargs or {}))

    def _filled(self, arg: Any) -> Any:
        if not isinstance(arg, nn.Parameter) or arg.ndim < 2 or not arg.is_floating_point():
            return arg
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            if bool(arg.any()):
                return arg
            numbers = torch.arange(arg.numel(), dtype=torch.float64, device=arg.device)
            fan_in = arg.numel() / arg.shape[0]
            return ((numbers * 12.9898).sin() / fan_in**0.5).reshape(arg.shape).to(arg.dtype)
