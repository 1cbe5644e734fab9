"""SWAG and SWAG-V: superpixels weighted by average gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from midgrain import ops
from midgrain.cams import make_map_scorer
from midgrain.driver import Target
from midgrain.explainer_base import Explainer, check_scores, to_uint8
from midgrain.explanation import Explanation
from midgrain.regions.superpixels import Pictures, Segmentation, SlicOptions, SuperpixelChoice, Superpixels
from midgrain.scorers import Scorer, ScorerFunction

__all__ = ["SWAG"]

_NAMES = {"image": "swag-i", "gradient": "swag-g", "image+gradient": "swag-ig"}


class SWAG(Explainer):
    """Superpixels weighted by average gradients, for images and clips (Thesis chapters 3 and 4).

    One forward and one backward pass score the pixels; superpixels are made from the picture, the pixel scores or
    both; each pixel of the heat map gets its superpixel's mean score.

    Args:
        model: a network returning logits [B, classes]; anything else needs a callable target.
        superpixels: "image" (SWAG-I), "gradient" (SWAG-G), "image+gradient" (SWAG-I+G), integer labels [*S] or
            [B, *S], or a callable from one picture (uint8 RGB [H, W, 3] or [T, H, W, 3]) to labels, such as
            scikit-image's segmentations.
        scorer: name of a pixel scorer (`midgrain.methods()`), or a callable `(model, x, target) -> [B, *S]`.
        n_segments: wanted superpixels; by default 300 for images and 120 for clips, fewer for tiny inputs.
        compactness: weight of colour in the superpixels (w_c); smaller follows colour more.
        gradient_compactness: weight of the pixel scores in the superpixels (w_g).
        reduce: how a region's pixels become its score, see `midgrain.pool`.
        max_num_iter: iterations of SLIC.
        spacing: pixel size along each spatial axis, e.g. (2, 1, 1) to make a clip's superpixels shorter in time.
        min_size_factor: smallest superpixel, relative to the expected size.
        mean: normalisation of x, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> e = mg.SWAG(model, n_segments=50)(torch.rand(2, 3, 64, 64))
        >>> e.heatmap.shape, e.segments.dtype
        (torch.Size([2, 64, 64]), torch.int32)
    """

    def __init__(
        self,
        model: Any,
        superpixels: SuperpixelChoice = "image+gradient",
        scorer: str | Scorer | ScorerFunction = "guided",
        n_segments: int | None = None,
        *,
        compactness: float = 20.0,
        gradient_compactness: float = 9.0,
        reduce: str = "mean",
        max_num_iter: int = 10,
        spacing: Sequence[float] | None = None,
        min_size_factor: float = 0.5,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__(model, mean=mean, std=std)
        options = SlicOptions(n_segments, compactness, gradient_compactness, max_num_iter, spacing, min_size_factor)
        self.superpixels = Superpixels(superpixels, options)
        self.scorer = make_map_scorer(scorer)
        if reduce not in ops.REDUCTIONS:
            raise ValueError(f"reduce: expected one of {', '.join(ops.REDUCTIONS)}, got {reduce!r}")
        self.reduce = reduce
        self.name = _NAMES.get(superpixels, "swag") if isinstance(superpixels, str) else "swag"

    def _explain(self, x: Tensor, target: Target) -> Explanation:
        rgb = self.rgb(x)
        if rgb is None and self.superpixels.uses_image:
            raise ValueError(
                f"x: expected 1 or 3 channels for superpixels made from the picture, got {x.shape[1]}; use "
                "superpixels='gradient'"
            )
        score = self.scorer.score(self.model, x, target)
        check_scores(score.map)
        normalisation = self.normalisation(x)
        pictures = None if rgb is None or normalisation is None else Pictures(x.detach(), *normalisation, rgb)
        segments = self.superpixels.make(pictures, score.map)
        scores, heatmap = self._pool(score.map, segments)
        return Explanation(
            heatmap=heatmap,
            method=self.name,
            segments=segments.labels.to(x.device),
            scores=scores,
            counts=segments.counts.to(x.device),
            target=score.result.target,
            outputs=score.result.outputs,
            image=to_uint8(rgb),
        )

    def _pool(self, maps: Tensor, segments: Segmentation) -> tuple[Tensor, Tensor]:
        """Region scores [B, n_max], NaN beyond each sample's count, and the heat map [B, *S] (Thesis eq. 3.1)."""
        device = segments.labels.device
        spatial_dims = maps.ndim - 1
        n_max = int(segments.counts.max())
        scores = ops.pool(maps.to(device), segments.labels, self.reduce, n=n_max, spatial_dims=spatial_dims)
        heatmap = ops.paint(scores, segments.labels, spatial_dims=spatial_dims)
        beyond = torch.arange(n_max, device=device) >= segments.counts[:, None]
        return scores.masked_fill(beyond, torch.nan).to(maps.device), heatmap.to(maps.device)
