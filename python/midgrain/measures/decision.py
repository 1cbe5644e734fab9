"""How much can go until the network decides for another class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from midgrain.baseline import Baseline
from midgrain.driver import Target, check_input
from midgrain.measures.curves import Mixture, Subject, subject
from midgrain.measures.order import Schedule, check_order, schedule
from midgrain.ops.arrays import is_integral
from midgrain.ops.checks import check_int

__all__ = ["DecisionChange", "n_lerf", "n_morf", "superpixel_removal"]

_STEPS = 100


@dataclass(frozen=True, eq=False)
class DecisionChange:
    """How much was removed when the network first decided for another class."""

    #: The share removed, float32 [B] in 0 .. 1: 0 where the class was not decided for at all, 1 where it never changed.
    value: Tensor
    #: Whether the decision changed, bool [B].
    changed: Tensor
    #: The classes, int64 [B].
    target: Tensor


def n_morf(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target = None,
    steps: int | None = None,
    *,
    baseline: Baseline = 0.0,
    ties: str = "together",
    batch_size: int | None = None,
    seed: int = 0,
) -> DecisionChange:
    """The share of pixels that goes, most relevant first, until the decision changes. Lower is better.

    Args:
        model: a network that returns logits [B, classes].
        x: see `midgrain.measures.deletion`.
        heatmap: see `deletion`.
        target: None (the class predicted for x), a class or one per sample.
        steps: in how many equal parts pixels go, at most; None means 100, or one for each pixel of a tiny picture. The
            first step after which the class is not the greatest
            logit's counts.
        baseline: see `deletion`.
        ties: "together" removes pixels of one value together, so steps that would divide them wait for the group's
            end; "random" divides them at random.
        batch_size: see `deletion`; all steps of one sample up to the change go through the network in such batches.
        seed: see `deletion`.

    Returns:
        `.value` [B], `.changed` [B], `.target` [B].

    Raises:
        TypeError, ValueError: see `deletion`; a callable target, which says nothing of a decision.

    Source: DeepMaps (2021), section 4.2.

    Example:
        >>> import torch, midgrain as mg
        >>> x, weights = torch.ones(1, 1, 2, 2), torch.tensor([[4.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
        >>> model = lambda x: x.flatten(1) @ weights.T
        >>> mg.measures.n_morf(model, x, torch.tensor([[[4.0, 3.0], [2.0, 1.0]]]), steps=4).value
        tensor([0.2500])
    """
    return _pixels(model, x, heatmap, target, steps, baseline, ties, batch_size, seed, least_first=False)


def n_lerf(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target = None,
    steps: int | None = None,
    *,
    baseline: Baseline = 0.0,
    ties: str = "together",
    batch_size: int | None = None,
    seed: int = 0,
) -> DecisionChange:
    """The share of pixels that goes, least relevant first, until the decision changes. Higher is better.

    Args:
        model: see `n_morf`.
        x: see `n_morf`.
        heatmap: see `n_morf`.
        target: see `n_morf`.
        steps: see `n_morf`.
        baseline: see `n_morf`.
        ties: see `n_morf`.
        batch_size: see `n_morf`.
        seed: see `n_morf`.

    Returns:
        `.value` [B], `.changed` [B], `.target` [B].

    Raises:
        TypeError, ValueError: see `n_morf`.

    Source: DeepMaps (2021), section 4.2.

    Example:
        >>> import torch, midgrain as mg
        >>> x, weights = torch.ones(1, 1, 2, 2), torch.tensor([[4.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
        >>> model = lambda x: x.flatten(1) @ weights.T
        >>> mg.measures.n_lerf(model, x, torch.tensor([[[4.0, 3.0], [2.0, 1.0]]]), steps=4).value
        tensor([1.])
    """
    return _pixels(model, x, heatmap, target, steps, baseline, ties, batch_size, seed, least_first=True)


def superpixel_removal(
    model: Any,
    x: Tensor,
    segments: Tensor,
    scores: Tensor,
    target: Target = None,
    *,
    order: str = "best",
    baseline: Baseline = 0.0,
    batch_size: int | None = None,
    seed: int = 0,
) -> DecisionChange:
    """The share of superpixels that goes, best or worst first, until the decision changes.

    Best first, lower is better; worst first, higher is better.

    Args:
        model: see `n_morf`.
        x: see `n_morf`.
        segments: integers [B, *S] from 0 on: `Explanation.segments`.
        scores: [B, n], one for each superpixel and NaN beyond a sample's own count: `Explanation.scores`.
        target: see `n_morf`.
        order: "best" or "worst" first; superpixels with one score go in an order drawn from the seed.
        baseline: see `deletion`.
        batch_size: see `n_morf`.
        seed: of that order, and of a baseline of noise.

    Returns:
        `.value` [B], shares of the superpixels, `.changed` [B], `.target` [B].

    Raises:
        TypeError, ValueError: see `n_morf`; segments and scores that do not fit each other.

    Source: GWS (Hartley et al. 2019), section 4.1.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(4, 3))
        >>> x = torch.rand(2, 3, 32, 32)
        >>> e = mg.SWAG(model, n_segments=20)(x)
        >>> mg.measures.superpixel_removal(model, x, e.segments, e.scores).value.shape
        torch.Size([2])
    """
    check_order(order, ("best", "worst"))
    x = check_input(x)
    ranks, counts = _region_ranks(x, segments, scores, order == "worst", check_int(seed, "seed", 0, 2**63 - 1))
    states = [torch.arange(int(count) + 1) for count in counts]
    with subject(model, x, ranks, _a_class(target), baseline, batch_size, seed) as (asked, _):
        return _first_change(asked, ranks.flatten(1).to(asked.x.device), states, counts)


def _pixels(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target,
    steps: int | None,
    baseline: Baseline,
    ties: str,
    batch_size: int | None,
    seed: int,
    *,
    least_first: bool,
) -> DecisionChange:
    def plan(maps: Tensor) -> Schedule:
        chosen = min(_STEPS, maps[0].numel()) if steps is None else steps
        return schedule(maps, chosen, ties, seed, least_first=least_first)

    with subject(model, x, heatmap, _a_class(target), baseline, batch_size, seed, plan) as (asked, planned):
        states = [above.unique().cpu() for above in planned.above]
        wholes = torch.full((len(asked.x),), asked.maps[0].numel())
        return _first_change(asked, planned.rank, states, wholes)


def _a_class(target: Target) -> Target:
    if callable(target):
        raise TypeError("target: expected a class or one per sample, got a callable, which says nothing of a decision")
    return target


def _first_change(asked: Subject, rank: Tensor, states: Sequence[Tensor], wholes: Tensor) -> DecisionChange:
    """When the decision first changes, state by state.

    Args:
        asked: the batch.
        rank: int [B, N]; in the state of count c all pixels of ranks below c are removed.
        states: per sample its counts, ascending.
        wholes: int [B], the count of everything.
    """
    assert asked.classes is not None
    removed = wholes.double()
    changed = torch.zeros(len(wholes), dtype=torch.bool)
    mixture = Mixture(asked.x, asked.empty, rank)
    for sample, counts in enumerate(states):
        for part in counts.split(asked.batch_size):
            rows = torch.full((len(part),), sample, device=asked.x.device)
            outputs = asked.outputs(mixture.of([sample] * len(part), part), rows)
            other = (outputs.argmax(1) != asked.classes[sample].to(outputs.device)).cpu()
            if other.any():
                removed[sample], changed[sample] = part[other][0], True
                break
    share = (removed / wholes).float()
    return DecisionChange(share.to(asked.x.device), changed.to(asked.x.device), asked.classes)


def _region_ranks(x: Tensor, segments: Tensor, scores: Tensor, worst: bool, seed: int) -> tuple[Tensor, Tensor]:
    """Per pixel the rank of its region, int64 [B, *S], and the regions of each sample."""
    shape = (x.shape[0], *x.shape[2:])
    if not isinstance(segments, Tensor) or not is_integral(segments):
        got = segments.dtype if isinstance(segments, Tensor) else type(segments).__name__
        raise TypeError(f"segments: expected a tensor of integers, got {got}")
    if tuple(segments.shape) != shape:
        raise ValueError(
            f"segments: expected shape {list(shape)}, one label per pixel of x, got {list(segments.shape)}"
        )
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        got = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"scores: expected a tensor of floats, got {got}")
    if scores.ndim != 2 or scores.shape[0] != shape[0]:
        raise ValueError(f"scores: expected shape [{shape[0]}, superpixels], got {list(scores.shape)}")
    labels, values = segments.detach().long().cpu(), scores.detach().double().cpu()
    counts = labels.flatten(1).amax(1) + 1
    if labels.min() < 0 or int(counts.max()) > values.shape[1]:
        raise ValueError(
            f"segments: expected labels in 0 .. {values.shape[1] - 1}, one for each score, got "
            f"{int(labels.min())} .. {int(labels.max())}"
        )
    ranks = []
    for own, row, count in zip(labels, values, counts.tolist(), strict=True):
        if not torch.isfinite(row[:count]).all():
            raise ValueError("scores: expected a finite score for every superpixel, got NaN or infinity")
        shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        ordered = shuffled[row[shuffled].sort(descending=not worst, stable=True).indices]
        rank = torch.empty_like(ordered)
        rank[ordered] = torch.arange(count)
        ranks.append(rank[own])
    return torch.stack(ranks), counts
