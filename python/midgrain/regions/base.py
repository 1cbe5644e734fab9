"""What explainers whose units are superpixels share: making them, pooling maps over them, painting scores back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from midgrain import ops
from midgrain.explainer_base import Explainer
from midgrain.ops.deferred import is_captured
from midgrain.regions.superpixels import (
    Pictures,
    Segmentation,
    SlicOptions,
    SuperpixelChoice,
    Superpixels,
    threads_after_network,
)

__all__ = ["RegionExplainer", "painted", "pooled"]


class RegionExplainer(Explainer):
    """Base of the explainers whose units are superpixels.

    Args:
        model: see `Explainer`.
        superpixels: how they are made, see `midgrain.SWAG`.
        options: of gradient-augmented SLIC.
        mean: see `Explainer`.
        std: see `Explainer`.
    """

    def __init__(
        self,
        model: Any,
        superpixels: SuperpixelChoice,
        options: SlicOptions,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__(model, mean=mean, std=std)
        self.superpixels = Superpixels(superpixels, options)

    def check_picture(self, x: Tensor, rgb: Tensor | None) -> None:
        """Raises ValueError where superpixels are made from a picture and the input is none."""
        if rgb is None and self.superpixels.uses_image:
            raise ValueError(
                f"x: expected 1 or 3 channels for superpixels made from the picture, got {x.shape[1]}; use "
                "superpixels='gradient' or your own labels"
            )

    def segment(self, x: Tensor, rgb: Tensor | None, gradient: Tensor | None) -> Segmentation:
        """Superpixels of a batch.

        Args:
            x: [B, C, *S].
            rgb: `self.rgb(x)`.
            gradient: float32 [B, *S]; needed where `self.superpixels.uses_gradient`.
        """
        normalisation = self.normalisation(x)
        pictures = None if rgb is None or normalisation is None else Pictures(x.detach(), *normalisation, rgb)
        return self.superpixels_for(x).make(x, pictures, gradient)

    def superpixels_for(self, x: Tensor) -> Superpixels:
        """How the superpixels of an input are made: `self.superpixels`, where a method has no others for clips."""
        return self.superpixels


def pooled(maps: Tensor, segments: Segmentation, reduce: str) -> Tensor:
    """Region scores [B, n_max] of maps [B, *S], on the maps' device; NaN beyond each sample's count (Thesis eq. 3.1).

    Args:
        maps: float32 [B, *S].
        segments: of the same shape.
        reduce: see `midgrain.pool`.
    """
    n_max = _region_count(segments)
    labels = segments.labels
    threads = threads_after_network(labels.numel())
    values = maps.to(labels.device)
    scores: Tensor = ops.pool(values, labels, reduce, n=n_max, spatial_dims=maps.ndim - 1, num_threads=threads)
    return scores.masked_fill(_beyond_counts(segments, n_max), torch.nan).to(maps.device)


def painted(scores: Tensor, segments: Segmentation) -> Tensor:
    """Region scores [B, n_max] back to pixels: [B, *S] on the scores' device."""
    labels = segments.labels
    values = scores.to(labels.device).masked_fill(_beyond_counts(segments, scores.shape[1]), 0.0)
    threads = threads_after_network(labels.numel())
    heatmap: Tensor = ops.paint(values, labels, spatial_dims=labels.ndim - 1, num_threads=threads)
    return heatmap.to(scores.device)


def _region_count(segments: Segmentation) -> int:
    """The largest count of a batch; where no value can be read, what is known of it beforehand."""
    if segments.limit is not None and is_captured(segments.counts):
        return segments.limit
    return int(segments.counts.max())


def _beyond_counts(segments: Segmentation, n_max: int) -> Tensor:
    """Bool [B, n_max]: which region numbers a sample does not have."""
    counts = segments.counts
    return torch.arange(n_max, device=counts.device) >= counts[:, None]
