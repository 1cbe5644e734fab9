"""Does a wrong prediction come right once the regions that misled the network are gone?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from midgrain import driver
from midgrain.baseline import Baseline, make_baseline
from midgrain.cams import make_map_scorer
from midgrain.cams.layers import Layer
from midgrain.driver import Target
from midgrain.failures.predictions import predictions
from midgrain.failures.through_filter import ThroughFilter
from midgrain.network.altered import check_batch_size, copies_at_once
from midgrain.ops.checks import check_bool, check_int
from midgrain.progress import progress_bar
from midgrain.regions.swag import SWAG
from midgrain.scorers import Score

__all__ = ["N_SEGMENTS", "REMOVALS", "Suppression", "suppress"]

#: Wanted superpixels, and how many of them are removed: the thesis's search.
N_SEGMENTS = (100, 200, 300, 400)
REMOVALS = (1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 100)


@dataclass(frozen=True, eq=False)
class Suppression:
    """What a search for repairs found, for a batch."""

    #: Did any removal bring the true class to the top? bool [B].
    fixed: Tensor
    #: Which removals did: bool [B, counts of superpixels, removals].
    grid: Tensor
    #: The counts and removals that were tried.
    n_segments: tuple[int, ...]
    removals: tuple[int, ...]
    #: Of the repair that removes the fewest pixels: the wanted superpixels and how many of them went, int64 [B, 2]; 0
    #: without a repair.
    setting: Tensor
    #: The pixels it removes, bool [B, *S]; none without a repair.
    mask: Tensor
    #: Their share, float32 [B]; NaN without a repair.
    share: Tensor
    #: The true class's probability with it, float32 [B]; NaN likewise.
    probability: Tensor


def suppress(
    model: Any,
    x: Tensor,
    true_class: int | Sequence[int] | Tensor,
    filters: int | Tensor | None = None,
    *,
    layer: Layer | None = None,
    n_segments: int | Sequence[int] = N_SEGMENTS,
    removals: int | Sequence[int] = REMOVALS,
    guided: bool = False,
    baseline: Baseline = 0.0,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Suppression:
    """Remove the regions with the steepest gradient, some at a time, until the true class is predicted.

    Superpixels of the picture are scored by the mean gradient of the true class, with `filters` by what of it flows
    through that filter alone. The best 1, 2, ... of them are removed, for every wanted number of superpixels. What
    removes all pixels is never tried.

    Args:
        model: a network returning logits [B, classes].
        x: floats [B, C, *S], wrongly predicted.
        true_class: of each sample.
        filters: a filter for each sample, int64 [B], or one for all: the most surprising one. None searches without.
        layer: whose filters, see `midgrain.failures.filter_scores`.
        n_segments: wanted superpixels, one or several.
        removals: how many of them are removed at once, one or several, ascending.
        guided: guided backpropagation instead of the plain gradient.
        baseline: what a removed pixel becomes, see `midgrain.measures.deletion`.
        batch_size: altered inputs at once; None chooses by the input's size.
        seed: of baseline "noise".
        progress: show a bar.
        mean: normalisation of x, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.

    Raises:
        TypeError, ValueError: arguments of other kinds; classes out of range.

    Source: T. Hartley's PhD thesis, 6.4.1: 5116 of VGG16's errors came right through the most surprising filter, 4554
    without it.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(8, 4))
        >>> found = mg.failures.suppress(model, torch.rand(2, 3, 32, 32), [0, 1], n_segments=(20, 40), removals=(1, 5))
        >>> found.grid.shape, found.mask.shape
        (torch.Size([2, 2, 2]), torch.Size([2, 32, 32]))
    """
    driver.check_model(model)
    x = driver.check_input(x)
    counts, steps = _ascending(n_segments, "n_segments"), _ascending(removals, "removals")
    size = check_batch_size(batch_size) or copies_at_once(x)
    seed = check_int(seed, "seed", 0, 2**63 - 1)
    plain = "guided" if check_bool(guided, "guided") else "vanilla"
    scorer = plain if filters is None else ThroughFilter(filters, layer, guided)
    grid = torch.zeros(len(x), len(counts), len(steps), dtype=torch.bool)
    best = _Best(x)
    with (
        driver.preserved(model, x),
        progress_bar("suppressing", len(x) * len(counts), shown=check_bool(progress, "progress")) as advance,
    ):
        classes = predictions(model, x, true_class).true_class
        empty = make_baseline(baseline, x, seed=seed)
        known = _Known(make_map_scorer(scorer).score(model, x, classes))
        for place, count in enumerate(counts):
            explained = SWAG(model, "image", known, n_segments=count, mean=mean, std=std)(x, classes)
            for sample in range(len(x)):
                assert explained.segments is not None
                assert explained.scores is not None
                ranks = _ranks(explained.segments[sample], explained.scores[sample])
                tried = [step for step in steps if step <= int(ranks.max())]
                for part in torch.tensor(tried, device=x.device).split(size) if tried else ():
                    removed = ranks < part.reshape(-1, *[1] * ranks.ndim)
                    inputs = x[sample].where(~removed[:, None], empty[sample])
                    seen = predictions(model, inputs, classes[sample].expand(len(inputs)))
                    for number in seen.correct.nonzero()[:, 0].tolist():
                        grid[sample, place, steps.index(int(part[number]))] = True
                        chance = float(seen.probability[number])
                        best.see(sample, removed[number], (count, int(part[number])), chance)
                advance(1)
    return Suppression(
        grid.flatten(1).any(1).to(x.device),
        grid.to(x.device),
        counts,
        steps,
        best.setting.to(x.device),
        best.mask,
        best.share.to(x.device),
        best.probability.to(x.device),
    )


class _Known:
    """A scorer whose scores are known."""

    def __init__(self, score: Score):
        self.known = score

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """What is known."""
        return self.known


class _Best:
    """The repairs that remove the fewest pixels; of equal ones the first."""

    def __init__(self, x: Tensor):
        batch = len(x)
        self.setting = torch.zeros(batch, 2, dtype=torch.int64)
        self.mask = torch.zeros(batch, *x.shape[2:], dtype=torch.bool, device=x.device)
        self.share = torch.full((batch,), torch.nan)
        self.probability = torch.full((batch,), torch.nan)

    def see(self, sample: int, removed: Tensor, setting: tuple[int, int], probability: float) -> None:
        share = float(removed.double().mean())
        if not self.share[sample] <= share:
            self.setting[sample] = torch.tensor(setting)
            self.mask[sample], self.share[sample] = removed, share
            self.probability[sample] = probability


def _ranks(segments: Tensor, scores: Tensor) -> Tensor:
    """Per pixel, how many superpixels have a higher score than its own; of equal ones the lower label comes first."""
    count = int(segments.max()) + 1
    order = scores[:count].double().sort(descending=True, stable=True).indices
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(count, device=order.device)
    return ranks[segments.long()]


def _ascending(values: int | Sequence[int], name: str) -> tuple[int, ...]:
    given = values if isinstance(values, list | tuple) else [values]
    numbers = tuple(check_int(each, name, 1) for each in given)
    if not numbers or any(b <= a for a, b in itertools.pairwise(numbers)):
        raise ValueError(f"{name}: expected numbers in ascending order, got {list(given)}")
    return numbers
