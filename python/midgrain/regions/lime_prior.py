"""LIME with prior knowledge, for few passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midgrain.baseline import Baseline
from midgrain.cams import CAM, make_map_scorer
from midgrain.cams.base import resize_maps
from midgrain.cams.layers import Layer, Reshape
from midgrain.driver import Target
from midgrain.explainer_base import check_scores
from midgrain.explanation import Explanation
from midgrain.ops.checks import check_positive
from midgrain.regions.base import painted, pooled
from midgrain.regions.cell_regression import cell_coefficients, nearness
from midgrain.regions.cell_scores import CellProbe
from midgrain.regions.ridge import weighted_ridge
from midgrain.regions.superpixels import Segmentation, SlicOptions, SuperpixelChoice
from midgrain.regions.switched import Asker, Bools, Design, Floats, RegionFit, SwitchedRegions
from midgrain.scorers import Scorer, ScorerFunction

__all__ = ["LIMEPrior"]

_DEFAULT_COUNT = 50
#: The prior that looks at every copy's class activation map.
CELLS = "cells"
_ALPHA_OF_CELLS, _ALPHA_OF_MAPS = 1.0, 10.0
# Standard deviation of how far a cell sees, in cells.
_REACH = 0.65


class LIMEPrior(SwitchedRegions):
    """LIME for few passes, from what is known before: where the network sees what.

    LIME learns one number from each copy. With prior "cells" (the default) a copy tells as many as the network's last
    spatial layer has cells: the score's gradient times the activations there, summed over the channels (HiResCAM with
    its signs), are the cells' shares of the score. Each cell's share is regressed on the superpixels near it alone,
    sum_r B_ur z_r with the ridge penalty alpha B_ur^2 / v_ur, v_ur falling with the distance from the cell as a
    Gaussian. A superpixel's coefficient is its sum over the cells, plus a ridge regression of what the shares leave
    over of the score.

    With a class activation map or a pixel scorer as prior, each copy tells its score alone, as in LIME, but the
    coefficients are expected near s mu_r instead of 0, mu_r being the map's sum over superpixel r: s >= 0 is the
    one-dimensional least-squares fit of the scores, and beta = s mu + ridge(what it leaves over).

    Copies come in pairs, one the complement of the other. The superpixels' scores are coefficients per area: what the
    score would lose by a whole picture of such pixels. The heat map blends them with the prior's map (with "cells" the
    mean of the copies' positive shares), (1 - g) scores + g map, the map in units in which both vary by as much: it
    orders the pixels inside superpixels and holds neighbours together.

    Details of an explanation: "passes", int64 [B], copies that the network saw (without what the scorer of gradient
    superpixels, or a map as prior, needs). With "cells" each pass goes back to the layer, too, and every target has
    passes of its own.

    Args:
        model: a network returning logits [B, classes]; anything else needs a callable target. Prior "cells" needs a
            `torch.nn.Module`.
        superpixels: see `midgrain.SWAG`.
        prior: "cells", the name of a class activation map or a pixel scorer, one with options (`midgrain.scorer`), or a
            callable `(model, x, target) -> [B, *S]`.
        scorer: makes the map that superpixels from the gradient follow: a name, or see `midgrain.SWAG`.
        n_segments: wanted superpixels of SLIC; by default 50, fewer for tiny inputs.
        n_samples: copies that the network sees, 2 or more, the input itself among them.
        layer: of prior "cells"; None finds the last spatial one; a module or its dotted name is taken.
        reshape: of prior "cells", from the layer's output to maps, see `midgrain.cams.CAM`.
        baseline: what stands where a superpixel is off, see `midgrain.explainer("lime", ...)`.
        blend: g above, 0 .. 1; 0 paints the scores alone.
        alpha: of the ridge regression; by default 1 for "cells" and 10 for a map.
        output: "log-odds" (log(p / (1 - p)) of the class's probability p), "logit" or "probability"; a callable
            target's scores are taken as they are.
        batch_size: copies at once; None chooses by the input's size.
        seed: of the copies.
        progress: show a bar.
        stop_at: stop a sample once the rank correlation of its scores with those of 10 copies before reaches this
            twice in a row; None never stops.
        compactness: see `midgrain.SWAG`.
        gradient_compactness: see `midgrain.SWAG`.
        mean: normalisation of x, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> e = mg.explainer("lime-prior", model, n_samples=25)(torch.rand(2, 3, 32, 32))
        >>> e.heatmap.shape, e.details["passes"]
        (torch.Size([2, 32, 32]), tensor([25, 25]))
    """

    block = 10

    def __init__(
        self,
        model: Any,
        superpixels: SuperpixelChoice = "image",
        prior: str | Scorer | ScorerFunction = CELLS,
        scorer: str | Scorer | ScorerFunction = "guided",
        n_segments: int | None = None,
        n_samples: int = 50,
        *,
        layer: Layer | None = None,
        reshape: Reshape | None = None,
        baseline: Baseline = 0.0,
        blend: float = 0.3,
        alpha: float | None = None,
        output: str = "log-odds",
        batch_size: int | None = None,
        seed: int = 0,
        progress: bool = False,
        stop_at: float | None = None,
        compactness: float = 20.0,
        gradient_compactness: float = 9.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__(
            model,
            superpixels,
            SlicOptions(n_segments, compactness, gradient_compactness, default_count=_DEFAULT_COUNT),
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
        self._cells = CAM(layer, reshape) if isinstance(prior, str) and prior == CELLS else None
        if self._cells is None and (layer is not None or reshape is not None):
            raise ValueError("layer, reshape: they are of prior='cells'; of another prior use midgrain.scorer(...)")
        self._prior = None if self._cells is not None else _prior_scorer(prior, mean, std)
        usual = _ALPHA_OF_MAPS if self._cells is None else _ALPHA_OF_CELLS
        self.alpha = usual if alpha is None else check_positive(alpha, "alpha")
        self.blend = check_positive(blend, "blend", zero=True)
        if self.blend > 1.0:
            raise ValueError(f"blend: expected 0 .. 1, got {blend}")
        self.name = "lime-prior"

    def probe(self, x: Tensor, targets: Sequence[Target]) -> Asker:
        """With prior "cells" the copies' class activation maps are kept."""
        if self._cells is None:
            return super().probe(x, targets)
        (target,) = targets
        return CellProbe(self.model, x, target, self._cells, output=self.output, batch_size=self.batch_size)

    def designs(self, probe: Asker, segments: Segmentation) -> Sequence[Design]:
        """Pairs of copies, each the complement of the other."""
        drawn = zip(segments.labels, segments.counts.tolist(), self.generators(probe.x), strict=True)
        regions = [_Regions(labels.cpu(), count, self._pairs(count, generator)) for labels, count, generator in drawn]
        if isinstance(probe, CellProbe):
            near = [nearness(each.labels, each.count, probe.grid, _REACH) for each in regions]
            return [
                _ByCells(each, self.alpha, probe.grid, own, shares)
                for each, own, shares in zip(regions, near, probe.shares, strict=True)
            ]
        assert self._prior is not None
        maps = [self._prior.score(self.model, probe.x, target).map for target in probe.targets]
        for each in maps:
            check_scores(each)
        sums = [pooled(each, segments, "sum").double().cpu().numpy() for each in maps]
        return [
            _ByMap(each, self.alpha, [own[sample, : each.count] for own in sums], [own[sample] for own in maps])
            for sample, each in enumerate(regions)
        ]

    def heatmap(self, scores: Tensor, fits: Sequence[RegionFit], segments: Segmentation) -> Tensor:
        """The scores painted, and blended with the prior's map."""
        flat = painted(scores, segments)
        if self.blend == 0.0:
            return flat
        maps = torch.stack([fit.map for fit in fits if fit.map is not None]).to(device=flat.device, dtype=flat.dtype)
        maps = resize_maps(maps, flat.shape[1:])
        axes = tuple(range(1, flat.ndim))
        spreads, own = (each.std(axes, correction=0, keepdim=True) for each in (flat, maps))
        # A map that is the same everywhere has nothing to add.
        centred = (maps - maps.mean(axes, keepdim=True)) * (spreads / own).where(own > 0, 0.0)
        return (1.0 - self.blend) * flat + self.blend * centred

    def _pairs(self, count: int, generator: torch.Generator) -> Bools:
        pairs = self.n_samples // 2
        drawn = torch.randint(0, 2, (pairs, count), generator=generator, dtype=torch.uint8).numpy().astype(np.bool_)
        table: Bools = np.stack([drawn, ~drawn], 1).reshape(-1, count)[: self.n_samples - 1]
        return table

    def _explain_all(self, x: Tensor, targets: Sequence[Target]) -> list[Explanation]:
        if self._cells is None or len(targets) == 1:
            return super()._explain_all(x, targets)
        return [self._explain_all(x, [target])[0] for target in targets]  # The way back is each target's own.


class _Regions:
    """The superpixels of one input, and which of them are on in its copies."""

    def __init__(self, labels: Tensor, count: int, table: Bools):
        self.labels, self.count, self.table = labels, count, table
        #: Share of the picture.
        self.area = np.bincount(labels.flatten().numpy(), minlength=count) / labels.numel()

    def rows(self, n: int) -> Bools:
        """All on, then the first n copies."""
        return np.concatenate([np.ones((1, self.count), dtype=np.bool_), self.table[:n]])


@dataclass(frozen=True)
class _ByCells:
    """Every cell's share of the score is regressed on the superpixels near it."""

    regions: _Regions
    alpha: float
    #: Cells along each spatial axis.
    grid: tuple[int, ...]
    #: [cells, K].
    near: Floats
    #: Those of the input, then those of its copies so far.
    shares: Sequence[Tensor]

    @property
    def table(self) -> Bools:
        """Which superpixels are on in each copy."""
        return self.regions.table

    def fit(self, scores: Floats, unaltered: float, place: int) -> RegionFit:
        """See `cell_coefficients`."""
        cells = torch.stack(list(self.shares[: len(scores) + 1])).numpy()
        values = np.concatenate([[unaltered], scores])
        found = cell_coefficients(self.regions.rows(len(scores)), cells, values, self.near, self.alpha)
        return RegionFit(
            found / self.regions.area, map=torch.from_numpy(np.maximum(cells, 0.0).mean(0)).reshape(self.grid)
        )


@dataclass(frozen=True)
class _ByMap:
    """Coefficients are expected near a multiple of a map's sums over the superpixels."""

    regions: _Regions
    alpha: float
    #: Per target [K].
    sums: Sequence[Floats]
    #: Per target [*S].
    maps: Sequence[Tensor]

    @property
    def table(self) -> Bools:
        """Which superpixels are on in each copy."""
        return self.regions.table

    def fit(self, scores: Floats, unaltered: float, place: int) -> RegionFit:
        """Of the scores s mu is fitted first, by least squares, then a ridge regression of what it leaves over."""
        rows, values = self.regions.rows(len(scores)), np.concatenate([[unaltered], scores])
        # In units of its largest sum, so that squares neither vanish nor overflow.
        mu = self.sums[place] / max(np.abs(self.sums[place]).max(), np.finfo(np.float64).tiny)
        expected = rows @ mu
        slope = expected - expected.mean()
        scale = max(0.0, float(slope @ (values - values.mean()))) / max(float(slope @ slope), np.finfo(np.float64).tiny)
        left = weighted_ridge(rows, values - scale * expected, np.ones(len(rows)), self.alpha).coefficients
        return RegionFit((scale * mu + left) / self.regions.area, map=self.maps[place])


def _prior_scorer(prior: Any, mean: Any, std: Any) -> Scorer:
    try:
        return make_map_scorer(prior, mean=mean, std=std)
    except (TypeError, ValueError) as error:
        raise type(error)(f"prior: {CELLS!r} or a scorer; {error}") from None
