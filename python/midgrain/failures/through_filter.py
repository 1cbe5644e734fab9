"""Pixel scores with a gradient that flows back through one filter only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from midgrain import driver
from midgrain.cams.convolution import FilterLayer
from midgrain.cams.layers import Layer
from midgrain.driver import Pass, Target, resolve_target
from midgrain.network.capture import Site
from midgrain.network.modules import unwrapped
from midgrain.network.trace import hooked, replaced, tensors_of
from midgrain.scorers.base import Score, max_abs_over_channels
from midgrain.scorers.guided import GuidedReLUs

__all__ = ["ThroughFilter"]


class ThroughFilter:
    """The gradient of a class's score that comes back through one filter of a layer, its maximum over the channels.

    At the layer the gradient of all other filters is set to 0; ways around the layer, shortcuts say, count for nothing.
    So it is the gradient of sum(A g), A the filter's activations and g the score's gradient there, held fixed: of the
    filter's Grad-AMap score times its positions. A scorer of `midgrain.SWAG`.

    Args:
        filters: one for each sample of the batches that will come, int64 [B], or one for all.
        layer: whose filters, see `midgrain.failures.filter_scores`.
        guided: guided backpropagation from the layer down, instead of the plain gradient.

    Raises:
        TypeError, ValueError: filters of other kinds; a layer of another kind.

    Source: T. Hartley's PhD thesis, 6.3.2; plain gradients repaired more failures than guided ones there (6.4.1).

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(8, 4))
        >>> scorer = mg.failures.ThroughFilter(5)
        >>> mg.SWAG(model, "image", scorer, n_segments=10)(torch.rand(2, 3, 16, 16), [0, 1]).heatmap.shape
        torch.Size([2, 16, 16])
    """

    def __init__(self, filters: Tensor | int, layer: Layer | None = None, guided: bool = False):
        chosen = torch.as_tensor(filters)
        if chosen.dtype not in (torch.int64, torch.int32) or chosen.ndim > 1:
            raise TypeError(f"filters: expected an integer or integers [B], got {chosen.dtype} {list(chosen.shape)}")
        self.filters = chosen.long()
        self.layer = FilterLayer(layer)
        self.guided = guided

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """One forward pass, a backward pass to the layer and one from there to the input.

        Raises:
            ValueError: as many filters as samples were not given; a filter that the layer does not have; a network
                without ReLUs where guided backpropagation is wanted.
        """
        network = unwrapped(model)
        site = self.layer.site(network, x, target)
        filters = self.filters.to(x.device)
        if filters.ndim and len(filters) != len(x):
            raise ValueError(f"filters: expected one for each of {len(x)} samples, got {len(filters)}")
        share, relus = _Share(site, filters.expand(len(x)), target), GuidedReLUs()
        with hooked([site.module], after=share.keep):
            found = driver.input_gradient(network, x, share, relus.guide if self.guided else None)
        if self.guided:
            relus.check_any("guided")
        assert found.gradient is not None
        assert share.result is not None
        result = Pass(share.result.target, share.result.outputs, found.gradient)
        return Score(max_abs_over_channels(found.gradient), result)


class _Share:
    """Reads from a pass what one filter of each sample adds to its score, to first order."""

    def __init__(self, site: Site, filters: Tensor, target: Target):
        self.site, self.filters, self.target = site, filters, target
        #: Of the pass, without gradients.
        self.result: Pass | None = None
        self._calls = 0
        self._seen: Tensor | None = None

    def keep(self, _: nn.Module, output: Any) -> Any:
        """A hook: what goes on is a copy, so that in-place operations that follow leave what is kept alone."""
        self._calls += 1
        if self._calls != self.site.call + 1:
            return None
        self._seen = tensors_of(output)[self.site.item]
        return replaced(output, self.site.item, self._seen.clone())

    def __call__(self, outputs: Any) -> Tensor:
        """Scores [B] of the outputs, part of the graph."""
        batch = len(self.filters)
        self.result = driver.read_outputs(outputs, self.target, batch)
        scores = resolve_target(outputs, self.target, batch)[1]
        seen = self._seen
        if seen is None or not seen.requires_grad:
            raise ValueError(f"layer: {self.site.name} was not run, or cannot be differentiated")
        (gradient,) = torch.autograd.grad(scores.sum(), seen, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise ValueError(f"layer: the explained score does not depend on {self.site.name}")
        maps, slopes = self.site.layout.maps(seen), self.site.layout.maps(gradient.detach())
        if not 0 <= int(self.filters.min()) <= int(self.filters.max()) < maps.shape[1]:
            raise ValueError(
                f"filters: expected 0 .. {maps.shape[1] - 1} of layer {self.site.name}, got {self.filters.tolist()}"
            )
        # Copies: autograd refuses to save what was made under inference_mode.
        rows, filters = torch.arange(batch, device=maps.device), self.filters.clone()
        return (maps[rows, filters] * slopes[rows, filters]).flatten(1).sum(1)
