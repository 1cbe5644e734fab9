"""SWAG and SWAG-V: superpixels weighted by average gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from midgrain import ops
from midgrain.cams import make_map_scorer
from midgrain.driver import Target
from midgrain.explainer_base import check_scores, to_uint8
from midgrain.explanation import Explanation
from midgrain.regions.base import RegionExplainer, painted, pooled
from midgrain.regions.superpixels import SlicOptions, SuperpixelChoice
from midgrain.scorers import Scorer, ScorerFunction

__all__ = ["SWAG"]

_NAMES = {"image": "swag-i", "gradient": "swag-g", "image+gradient": "swag-ig"}


class SWAG(RegionExplainer):
    """Superpixels weighted by average gradients, for images and clips (Thesis chapters 3 and 4).

    One forward and one backward pass score the pixels; superpixels are made from the picture, the pixel scores or
    both; each pixel of the heat map gets its superpixel's mean score.

    Args:
        model: a network returning logits [B, classes]; anything else needs a callable target.
        superpixels: "image" (SWAG-I), "gradient" (SWAG-G), "image+gradient" (SWAG-I+G), or "slic-i", "slic-g",
            "slic-ig" for the same; "quickshift" or "felzenszwalb" of images; integer labels [*S] or [B, *S], or a
            callable from one picture (uint8 RGB [H, W, 3] or [T, H, W, 3]) to labels.
        scorer: name of a pixel scorer (`midgrain.methods()`), one with options (`midgrain.scorer`), or a callable
            `(model, x, target) -> [B, *S]`.
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
        options = SlicOptions(n_segments, compactness, gradient_compactness, max_num_iter, spacing, min_size_factor)
        super().__init__(model, superpixels, options, mean=mean, std=std)
        self.scorer = make_map_scorer(scorer, mean=mean, std=std)
        if reduce not in ops.REDUCTIONS:
            raise ValueError(f"reduce: expected one of {', '.join(ops.REDUCTIONS)}, got {reduce!r}")
        self.reduce = reduce
        choice = self.superpixels.choice
        self.name = _NAMES.get(choice, "swag") if isinstance(choice, str) else "swag"

    def _explain(self, x: Tensor, target: Target) -> Explanation:
        rgb = self.rgb(x)
        self.check_picture(x, rgb)
        score = self.scorer.score(self.model, x, target)
        check_scores(score.map)
        segments = self.segment(x, rgb, score.map)
        scores = pooled(score.map, segments, self.reduce)
        return Explanation(
            heatmap=painted(scores, segments),
            method=self.name,
            segments=segments.labels.to(x.device),
            scores=scores,
            counts=segments.counts.to(x.device),
            target=score.result.target,
            outputs=score.result.outputs,
            details=score.details,
            image=to_uint8(rgb, overwrite=True),
        )
