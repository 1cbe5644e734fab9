"""The random ranking of superpixels that GWS compares with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from midgrain.driver import Target
from midgrain.explanation import Explanation
from midgrain.randomness import seeded_by_content
from midgrain.regions import GWS

__all__ = ["RandomRegions"]


class RandomRegions:
    """GWS's superpixels with uniform random scores.

    A map of noise would not do: its sum over a superpixel grows with the superpixel.

    Args:
        model: any network.
        seed: of the scores.
        mean: normalisation of x, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.
    """

    def __init__(
        self, model: Any, seed: int = 0, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ):
        self.seed = seed
        self._regions = GWS(model, scorer="sobel", mean=mean, std=std)

    def __call__(self, x: Tensor, target: Target = None) -> Explanation:
        """Explain a batch [B, C, *S]; scores [B, n] are in 0 .. 1, NaN beyond a sample's own superpixels."""
        found = self._regions(x, target)
        assert found.scores is not None
        assert found.segments is not None
        random = torch.stack(
            [
                torch.rand(found.scores.shape[1], generator=seeded_by_content(sample.float().cpu(), self.seed))
                for sample in x.detach()
            ]
        ).to(found.scores.device)
        scores = torch.where(found.scores.isnan(), found.scores, random)
        heatmap = torch.stack([scores[i][found.segments[i].long()] for i in range(len(scores))])
        return replace(found, scores=scores, heatmap=heatmap, method="random-regions")
