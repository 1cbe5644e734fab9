"""What a network's layers gave for an input, and how the explained score depends on it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from midgrain.driver import Pass, Target, resolve_target
from midgrain.network.affine import is_affine
from midgrain.network.layout import Layout
from midgrain.network.trace import hooked, replaced, tensors_of
from midgrain.stopwatch import network_pass

__all__ = ["HALF_SCALE", "Capture", "NoGradientError", "Site", "capture", "run_from", "run_until", "told_clearly"]

#: Gradients of half precision at a layer are near the smallest number that it has; a power of two changes no digit.
HALF_SCALE = 1024.0


class NoGradientError(ValueError):
    """The explained score does not depend on the layers, as far as autograd can tell."""


class Site:
    """One tensor that a network computes: of which module, at which of its calls, and how to read it.

    It does not keep the module alive.

    Args:
        name: of the module.
        module: a module of the network.
        call: which call of the module, from 0 on.
        item: which of the tensors that it returns.
        layout: of this tensor.
    """

    def __init__(self, name: str, module: nn.Module, call: int, item: int, layout: Layout):
        self.name = name
        self.call = call
        self.item = item
        self.layout = layout
        self._module = weakref.ref(module)

    def __repr__(self) -> str:
        return f"Site({self.name!r}, call={self.call}, item={self.item}, layout={self.layout})"

    @property
    def module(self) -> nn.Module:
        """The module.

        Raises:
            ReferenceError: the network is gone.
        """
        module = self._module()
        if module is None:
            raise ReferenceError(f"the network of {self.name} is no more")
        return module

    def is_in(self, model: nn.Module) -> bool:
        """Is the module part of this network?"""
        module = self._module()
        return any(module is other for other in model.modules())


@dataclass(frozen=True, eq=False)
class Capture:
    """One pass through a network, seen from some of its layers.

    Attributes:
        activations: per site its output as float maps [B, K, *s].
        gradients: per site d score / d output, of the same shape; empty without a backward pass.
        affine: is the score an affine function of the first site's output, by the operations in between? Then its
            gradient is the same whatever the layer gives.
        result: classes and outputs of the pass.
        scores: the explained scores [B].
    """

    activations: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    affine: bool
    result: Pass
    scores: Tensor


@network_pass
def capture(
    run: Callable[[Tensor], Any], x: Tensor, target: Target, sites: Sequence[Site], *, backward: bool = True
) -> Capture:
    """One forward pass, and a backward pass only as far as the sites; call it inside `driver.preserved`.

    What lies before the first site runs without gradients. The sites' outputs are those that the modules returned,
    whatever in-place operations follow.

    Args:
        run: the network, or something that calls parts of it.
        x: its input.
        target: what to explain.
        sites: in any order.
        backward: also compute gradients.

    Raises:
        TypeError, ValueError: see `driver.resolve_target`; a site that the pass did not reach; a network that torch
            cannot differentiate.
        NoGradientError: the score depends on none of the sites.
    """
    if not backward:
        seen, outputs = _forward(run, x, sites, None)
        classes, scores = resolve_target(outputs, target, x.shape[0])
        return Capture(_maps(sites, seen), (), False, _result(classes, outputs), scores.detach())
    # Gradients are switched on by the first site; code that switches them off again on its way out of a block
    # (`with torch.no_grad(): ...` around a frozen trunk) needs them on from the beginning.
    for from_start in (False, True):
        with told_clearly():
            seen, outputs = _forward(run, x, sites, from_start)
        with torch.enable_grad():
            classes, scores = resolve_target(outputs, target, x.shape[0])
        if scores.requires_grad:
            break
    else:
        raise NoGradientError(
            f"model: its output cannot be differentiated with respect to layer {_names(sites)}; does it detach it, run "
            "under no_grad, or return a constant?"
        )
    half = any(tensor.dtype == torch.float16 for tensor in seen)
    scale = HALF_SCALE if half else 1.0
    affine = is_affine(scores, seen[0])
    with told_clearly(), torch.enable_grad():
        gradients = torch.autograd.grad((scores * scale).sum(), seen, allow_unused=True)
    if all(gradient is None for gradient in gradients):
        raise NoGradientError(
            f"layer: the explained score does not depend on {_names(sites)}, as far as gradients tell; gradient "
            "checkpointing with use_reentrant=True hides them, too"
        )
    activations = _maps(sites, seen)
    return Capture(
        activations,
        tuple(
            torch.zeros_like(maps) if gradient is None else site.layout.maps(gradient).float() / scale
            for site, maps, gradient in zip(sites, activations, gradients, strict=True)
        ),
        affine,
        _result(classes, outputs),
        scores.detach(),
    )


def run_until(run: Callable[[Tensor], Any], x: Tensor, site: Site) -> Tensor:
    """The site's output as its module returned it, without running what comes after; no gradients.

    Raises:
        ValueError: the pass did not reach the site.
    """

    def stop(tensor: Tensor) -> Tensor:
        raise _Reached(tensor)

    try:
        with torch.no_grad(), _tapped(site, stop):
            run(x.detach().clone())
    except _Reached as reached:
        return reached.tensor
    raise ValueError(f"layer: the network did not run {site.name}")


def run_from(run: Callable[[Tensor], Any], x: Tensor, site: Site, values: Tensor) -> Any:
    """The network's outputs with the site's output exchanged for `values`; no gradients.

    Everything before the site runs too; `midgrain.network.resume` spares that where it can.
    """
    exchanged = False

    def exchange(tensor: Tensor) -> Tensor:
        nonlocal exchanged
        exchanged = True
        return values.to(tensor.dtype, copy=True)  # In-place operations that follow leave the caller's alone.

    with torch.no_grad(), _tapped(site, exchange):
        outputs = run(x.detach().clone())
    if not exchanged:
        raise ValueError(f"layer: the network did not run {site.name}")
    return outputs


class _Reached(BaseException):
    """Ends a pass at a site; no Exception, so that no network swallows it."""

    def __init__(self, tensor: Tensor):
        super().__init__()
        self.tensor = tensor


@contextmanager
def _tapped(site: Site, tap: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Passes the site's output through `tap`."""
    calls = 0

    def after(_: nn.Module, output: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != site.call + 1:
            return None
        return replaced(output, site.item, tap(tensors_of(output)[site.item]))

    with hooked([site.module], after=after):
        yield


def _forward(
    run: Callable[[Tensor], Any], x: Tensor, sites: Sequence[Site], from_start: bool | None
) -> tuple[list[Tensor], Any]:
    """What the sites gave and the outputs; `from_start`: gradients from the beginning, from the first site, never."""
    seen: dict[int, Tensor] = {}

    def keep(number: int, tensor: Tensor) -> Tensor:
        if from_start is None:
            seen[number] = tensor.detach().clone()
            return tensor
        if not seen:
            torch.set_grad_enabled(True)
        with torch.inference_mode(False):  # The network may be inside a block that it runs under inference_mode.
            if not seen or not tensor.requires_grad:  # Nothing before the first site needs a graph.
                tensor = (tensor.clone() if tensor.is_inference() else tensor.detach()).requires_grad_(True)
            seen[number] = tensor
            return tensor.clone()  # In-place operations that follow do not reach what is kept.

    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(bool(from_start)))
        for number, site in enumerate(sites):
            stack.enter_context(_tapped(site, partial(keep, number)))
        outputs = run(x.detach().clone())
    missing = [site for number, site in enumerate(sites) if number not in seen]
    if missing:
        raise ValueError(f"layer: the network did not run {_names(missing)}")
    return [seen[number] for number in range(len(sites))], outputs


@contextmanager
def told_clearly() -> Iterator[None]:
    """What torch says about networks that it cannot differentiate, as an error that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if "Inference tensors cannot be saved" in str(error):
            raise ValueError(
                "model: its weights were created, or some of its layers run, under torch.inference_mode(), which "
                "rules gradients out; use torch.no_grad() instead"
            ) from error
        if "use_reentrant=True" in str(error):
            raise ValueError(
                "model: gradient checkpointing with use_reentrant=True rules out gradients of single layers; switch "
                "it off, or use use_reentrant=False"
            ) from error
        raise


def _maps(sites: Sequence[Site], seen: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(site.layout.maps(tensor.detach()).float() for site, tensor in zip(sites, seen, strict=True))


def _names(sites: Sequence[Site]) -> str:
    return ", ".join(site.name for site in sites)


def _result(classes: Tensor | None, outputs: Any) -> Pass:
    logits = outputs.detach() if isinstance(outputs, Tensor) and outputs.ndim == 2 else None
    return Pass(classes, logits)
