"""XRAI: regions of several segmentations, ranked by the attribution that they hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midgrain.cams import make_map_scorer
from midgrain.driver import Target
from midgrain.explainer_base import Explainer, check_scores, to_uint8
from midgrain.explanation import Explanation
from midgrain.ops.checks import check_bool, check_int, check_positive
from midgrain.regions.base import RegionExplainer, painted
from midgrain.regions.overlapping import Regions, overlapping_regions
from midgrain.regions.region_growing import MODES, Ranking, rank_regions
from midgrain.regions.segmentations import FELZENSZWALB_SCALES, felzenszwalb_scales
from midgrain.regions.superpixels import Segmentation, SlicOptions, SuperpixelChoice
from midgrain.scorers import Scorer, ScorerFunction

__all__ = ["XRAI"]

# Of the finest of a clip's segmentations, by default; the others have fewer in the ratio of Felzenszwalb's scales.
_FINEST_OF_CLIPS = 240
# So many pixels at least for each of them.
_MIN_PIXELS = 16
_RADIUS = 5
_INTEGRATED = {"baseline": "black+white", "n_steps": 100, "channels": "max"}


class XRAI(Explainer):
    """Regions ranked by their attribution, for images and clips (Kapishnikov et al. 2019).

    Pixels are scored, by default by integrated gradients from a black and a white picture with their signs. The
    picture is segmented several times, from fine to coarse, and each segment grown by a few pixels, so that edges lie
    inside. Then regions are added one by one, always the one whose new pixels have the highest mean score. The heat
    map has this mean at the pixels that a region added; `segments` numbers them from the most important (0) on, and
    `scores` [B, n] holds the means. What no region added is the last segment.

    Defaults, order and values are those of the `saliency` package 0.2.1. That knows images only: of clips, the
    segmentations are SLIC volumes, 240 and fewer in the ratio of Felzenszwalb's scales, and grow by a ball.

    Details: "candidates" int64 [B], the regions to choose from; and those of the scorer.

    Args:
        model: a network returning logits [B, classes]; anything else needs a callable target.
        superpixels: None segments images by Felzenszwalb's method at scales 50, 100, 150, 250, 500 and 1200 (sigma .8,
            at least 150 pixels, of the picture resized to 224 x 224), and clips by SLIC. Otherwise one segmentation,
            see `midgrain.SWAG`, or a list of them, whose regions are all ranked together: your own labels [*S] or
            [B, *S], say.
        scorer: name of a pixel scorer or class activation map, one with options (`midgrain.scorer`), or a callable
            `(model, x, target) -> [B, *S]`. "integrated-gradients" by its name is XRAI's: from black and from white,
            100 steps each, the largest value of the channels with its sign.
        n_segments: superpixels of SLIC; of a clip's several segmentations, those of the finest.
        mode: "full" ranks regions by what they would still add, "fast" once and for all by the region as a whole.
        min_pixel_diff: a region that would add fewer pixels is dropped.
        area_threshold: "full" ends once more than this share of the pixels is covered, 0 .. 1.
        dilation: pixels by which each region is grown; None: 5, and 0 for labels that you give.
        compactness: weight of colour in SLIC (w_c); smaller follows colour more.
        gradient_compactness: weight of the pixel scores in SLIC where `superpixels` says so (w_g).
        spacing: pixel size along each spatial axis for SLIC, e.g. (2, 1, 1) for shorter superpixels in time.
        batch_size: of a scorer given by its name that runs the network often.
        progress: likewise, show a bar.
        mean: normalisation of x, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> e = mg.explainer("xrai", model, scorer="input-x-gradient", superpixels="slic-i", n_segments=20)(
        ...     torch.rand(2, 3, 64, 64))
        >>> e.heatmap.shape, bool((e.scores.diff()[:, :2] <= 0).all())
        (torch.Size([2, 64, 64]), True)
    """

    name = "xrai"

    def __init__(
        self,
        model: Any,
        superpixels: SuperpixelChoice | Sequence[SuperpixelChoice] | None = None,
        scorer: str | Scorer | ScorerFunction = "integrated-gradients",
        n_segments: int | None = None,
        *,
        mode: str = "full",
        min_pixel_diff: int = 50,
        area_threshold: float = 1.0,
        dilation: int | None = None,
        compactness: float = 20.0,
        gradient_compactness: float = 9.0,
        spacing: Sequence[float] | None = None,
        batch_size: int | None = None,
        progress: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__(model, mean=mean, std=std)
        self.options = SlicOptions(n_segments, compactness, gradient_compactness, spacing=spacing)
        choices: Sequence[Any] = superpixels if isinstance(superpixels, list | tuple) else [superpixels]
        if not choices:
            raise ValueError("superpixels: expected at least one segmentation, got none")
        self.segmenters = [self._segmenter(choice, self.options) for choice in choices if superpixels is not None]
        if not isinstance(mode, str) or mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
        self.mode = mode
        self.min_pixel_diff = check_int(min_pixel_diff, "min_pixel_diff", 1)
        self.area_threshold = check_positive(area_threshold, "area_threshold", zero=True)
        if self.area_threshold > 1.0:
            raise ValueError(f"area_threshold: expected 0 .. 1, got {area_threshold}")
        self.dilation = None if dilation is None else check_int(dilation, "dilation", 0)
        options: dict[str, Any] = {}
        if isinstance(scorer, str) and scorer == "integrated-gradients":
            options |= _INTEGRATED
        if batch_size is not None:
            options["batch_size"] = batch_size
        if check_bool(progress, "progress"):
            options["progress"] = True
        self.scorer = make_map_scorer(scorer, mean=mean, std=std, **options)

    def _segmenter(self, choice: SuperpixelChoice, options: SlicOptions) -> RegionExplainer:
        mean, std = self._normalisation.mean, self._normalisation.std
        return RegionExplainer(self.model, choice, options, mean=mean, std=std)

    def _explain(self, x: Tensor, target: Target) -> Explanation:
        rgb = self.rgb(x)
        segmenters = self.segmenters or self._of_clips(x)
        for segmenter in segmenters or [self._segmenter("image", self.options)]:
            segmenter.check_picture(x, rgb)
        score = self.scorer.score(self.model, x, target)
        check_scores(score.map)
        rankings, candidates = [], []
        attributions = score.map.cpu().numpy()
        for attribution, regions in zip(attributions, self._regions(x, rgb, score.map, segmenters), strict=True):
            candidates.append(regions.count)
            rankings.append(
                rank_regions(
                    attribution,
                    regions,
                    mode=self.mode,
                    min_pixel_diff=self.min_pixel_diff,
                    area_threshold=self.area_threshold,
                )
            )
        scores, segments = _batch(rankings)
        scores = scores.to(x.device)
        return Explanation(
            heatmap=painted(scores, segments),
            method=self.name,
            segments=segments.labels.to(x.device),
            scores=scores,
            counts=segments.counts.to(x.device),
            target=score.result.target,
            outputs=score.result.outputs,
            details={**score.details, "candidates": torch.tensor(candidates, device=x.device)},
            image=to_uint8(rgb),
        )

    def _regions(
        self, x: Tensor, rgb: Tensor | None, maps: Tensor, segmenters: Sequence[RegionExplainer]
    ) -> Iterator[Regions]:
        """The regions of one sample after the other."""
        made = [segmenter.segment(x, rgb, maps).labels.cpu().numpy() for segmenter in segmenters]
        if made:
            radii = [self._radius(segmenter) for segmenter in segmenters]
            for sample in range(len(x)):
                yield overlapping_regions([labels[sample] for labels in made], radii)
            return
        assert rgb is not None
        for picture in rgb:
            found = felzenszwalb_scales(picture.movedim(0, -1).cpu().numpy().astype(np.float64))
            yield overlapping_regions(found, [self._radius(None)] * len(found))

    def _of_clips(self, x: Tensor) -> list[RegionExplainer]:
        """The segmentations of a clip by default; of an image none."""
        if x.ndim == 4:
            return []
        finest = self.options.n_segments or min(_FINEST_OF_CLIPS, math.prod(x.shape[2:]) // _MIN_PIXELS)
        counts = [round(finest * FELZENSZWALB_SCALES[0] / scale) for scale in FELZENSZWALB_SCALES]
        return [self._segmenter("image", replace(self.options, n_segments=max(1, count))) for count in counts]

    def _radius(self, segmenter: RegionExplainer | None) -> int:
        given = segmenter is not None and isinstance(segmenter.superpixels.choice, Tensor | np.ndarray)
        return self.dilation if self.dilation is not None else 0 if given else _RADIUS


def _batch(rankings: Sequence[Ranking]) -> tuple[Tensor, Segmentation]:
    """Scores float32 [B, n_max], NaN beyond a sample's count, and labels."""
    counts = [len(ranking.gains) for ranking in rankings]
    scores = np.full((len(rankings), max(counts)), np.nan, dtype=np.float32)
    for row, ranking in zip(scores, rankings, strict=True):
        row[: len(ranking.gains)] = ranking.gains
    labels = torch.from_numpy(np.stack([ranking.labels for ranking in rankings]).astype(np.int32))
    return torch.from_numpy(scores), Segmentation(labels, torch.tensor(counts, dtype=torch.int32))
