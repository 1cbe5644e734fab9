"""LIME: a linear model of what the network says with superpixels on and off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midgrain.baseline import Baseline
from midgrain.ops.checks import check_positive
from midgrain.regions.ridge import weighted_ridge
from midgrain.regions.superpixels import SlicOptions, SuperpixelChoice, Superpixels
from midgrain.regions.switched import Bools, Floats, RegionFit, SwitchedRegions
from midgrain.scorers import Scorer, ScorerFunction

__all__ = ["LIME", "cosine_weights"]

_NAMES = {"image": "lime-i", "gradient": "lime-g", "image+gradient": "lime-ig"}
_DEFAULT_COUNT = 50


class LIME(SwitchedRegions):
    """Local interpretable model-agnostic explanations (Ribeiro et al. 2016), for images and clips.

    Copies of the input have each superpixel on or off with probability 1/2; the first is the input itself. A ridge
    regression of the class's probability on the superpixels, each copy weighted by exp(-d^2 / (2 w^2)) with d the
    cosine distance of its on/off vector from all on (1 where all is off), gives every superpixel its coefficient.
    With SLIC superpixels from the picture, the gradient or both it is LIME-I, LIME-G or LIME-I+G (Thesis 3.7).

    Details of an explanation: "passes", int64 [B], copies that the network saw (without what the scorer of
    gradient superpixels needs); "r2", float32 [B], the weighted share of the probability's variance that the linear
    model explains; "intercept", float32 [B].

    Args:
        model: a network returning logits [B, classes]; anything else needs a callable target.
        superpixels: see `midgrain.SWAG`; None is quickshift with the `lime` package's parameters for images, and
            "image" for clips.
        scorer: makes the map that superpixels from the gradient follow: a name, or see `midgrain.SWAG`.
        n_segments: wanted superpixels of SLIC; by default 50, fewer for tiny inputs.
        n_samples: copies that the network sees, 2 or more, the input itself among them.
        baseline: what stands where a superpixel is off: 0 (Thesis), "segment-mean" (each superpixel's own mean
            colour, the `lime` package), "median" (of the picture, GWS), or see `midgrain.measures.deletion`.
        kernel_width: w above.
        alpha: of the ridge regression; 0 is least squares.
        output: "probability" p, "logit" or "log-odds" (log(p / (1 - p))) of the class; a callable target's scores are
            taken as they are.
        batch_size: copies at once; None chooses by the input's size.
        seed: of the copies.
        progress: show a bar.
        stop_at: stop a sample once the rank correlation of its scores with those of 50 copies before reaches this
            twice in a row; None never stops.
        compactness: see `midgrain.SWAG`.
        gradient_compactness: see `midgrain.SWAG`.
        mean: normalisation of x, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> e = mg.explainer("lime-i", model, n_samples=100)(torch.rand(2, 3, 32, 32))
        >>> e.heatmap.shape, e.details["passes"]
        (torch.Size([2, 32, 32]), tensor([100, 100]))
    """

    def __init__(
        self,
        model: Any,
        superpixels: SuperpixelChoice | None = None,
        scorer: str | Scorer | ScorerFunction = "guided",
        n_segments: int | None = None,
        n_samples: int = 1000,
        *,
        baseline: Baseline = 0.0,
        kernel_width: float = 0.25,
        alpha: float = 1.0,
        output: str = "probability",
        batch_size: int | None = None,
        seed: int = 0,
        progress: bool = False,
        stop_at: float | None = None,
        compactness: float = 20.0,
        gradient_compactness: float = 9.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        options = SlicOptions(n_segments, compactness, gradient_compactness, default_count=_DEFAULT_COUNT)
        super().__init__(
            model,
            "quickshift" if superpixels is None else superpixels,
            options,
            scorer=scorer,
            n_samples=n_samples,
            baseline=baseline,
            output=output,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
            stop_at=stop_at,
            mean=mean,
            std=std,
        )
        self.kernel_width = check_positive(kernel_width, "kernel_width")
        self.alpha = check_positive(alpha, "alpha", zero=True)
        self._of_clips = Superpixels("image", options) if superpixels is None else self.superpixels
        self.name = _NAMES.get(superpixels, "lime") if isinstance(superpixels, str) else "lime"

    def superpixels_for(self, x: Tensor) -> Superpixels:
        """Quickshift is of images."""
        return self._of_clips if x.ndim == 5 else self.superpixels

    def design(self, count: int, generator: torch.Generator) -> _Coins:
        """Each superpixel on or off with probability 1/2."""
        drawn = torch.randint(0, 2, (self.n_samples - 1, count), generator=generator, dtype=torch.uint8)
        return _Coins(drawn.numpy().astype(np.bool_), self.kernel_width, self.alpha)


@dataclass(frozen=True)
class _Coins:
    """Copies whose superpixels are on or off by chance."""

    table: Bools
    kernel_width: float
    alpha: float

    def fit(self, scores: Floats, unaltered: float, place: int) -> RegionFit:
        """The ridge regression, with the input itself as its first sample."""
        everything = np.ones((1, self.table.shape[1]), dtype=np.bool_)
        rows = np.concatenate([everything, self.table[: len(scores)]])
        values = np.concatenate([[unaltered], scores])
        made = weighted_ridge(rows, values, cosine_weights(rows, self.kernel_width), self.alpha)
        return RegionFit(made.coefficients, {"r2": made.r2, "intercept": made.intercept})


def cosine_weights(rows: Bools, kernel_width: float) -> Floats:
    """Nearness of on/off vectors [n, K] to all on: sqrt(exp(-d^2 / w^2)), d their cosine distance; of all off d = 1.

    Example:
        >>> import numpy as np
        >>> from midgrain.regions.lime import cosine_weights
        >>> cosine_weights(np.array([[True, True], [False, False]]), kernel_width=1.0).round(4)
        array([1.    , 0.6065])
    """
    distances = 1.0 - np.sqrt(rows.mean(1))
    weights: Floats = np.exp(-(distances**2) / (2.0 * kernel_width**2))
    return weights
