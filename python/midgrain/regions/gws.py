"""Gradient weighted superpixels (GWS), SWAG's forerunner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from midgrain.cams import make_map_scorer
from midgrain.driver import Target
from midgrain.explainer_base import Explainer
from midgrain.explanation import Explanation
from midgrain.regions.superpixels import SuperpixelChoice
from midgrain.regions.swag import SWAG
from midgrain.scorers import Scorer, ScorerFunction

__all__ = ["GWS"]


class GWS(Explainer):
    """Superpixels weighted by the sum of |M| of their pixels, M a map of pixel scores (GWS, BMVC workshop 2019).

    Where SWAG takes the mean of a region of about equal size, GWS takes the sum over regions of any size: quickshift's
    for images, SLIC's for clips. The paper tries nine pixel scores. Guided backpropagation, the default, is the most
    consistent one over its networks; "act-gradcam" and "guided-act-gradcam" are best for its VGG16, "guided-gradcam"
    for its ResNet-50.

    Args:
        model: a network returning logits [B, classes]; anything else needs a callable target.
        superpixels: None, "quickshift" for images and "image" (SLIC) for clips; or see `midgrain.SWAG`.
        scorer: of pixels, see `midgrain.SWAG`.
        n_segments: wanted superpixels of SLIC; quickshift finds their number itself.
        compactness: weight of colour in SLIC's superpixels.
        mean: normalisation of x, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> e = mg.explainer("gws", model, scorer="act-gradcam")(torch.rand(1, 3, 48, 48))
        >>> bool((e.scores >= 0).all())
        True
    """

    name = "gws"

    def __init__(
        self,
        model: Any,
        superpixels: SuperpixelChoice | None = None,
        scorer: str | Scorer | ScorerFunction = "guided",
        n_segments: int | None = None,
        *,
        compactness: float = 20.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__(model, mean=mean, std=std)
        make = partial(
            SWAG,
            model,
            scorer=make_map_scorer(scorer, mean=mean, std=std),
            n_segments=n_segments,
            compactness=compactness,
            reduce="abs-sum",
            mean=mean,
            std=std,
        )
        self._of_images = make("quickshift" if superpixels is None else superpixels)
        self._of_clips = make("image" if superpixels is None else superpixels)

    def _explain(self, x: Tensor, target: Target) -> Explanation:
        swag = self._of_images if x.ndim == 4 else self._of_clips
        return replace(swag._explain(x, target), method=self.name)
