"""What the class keeps where only what a heat map calls important is shown."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from midgrain.baseline import Baseline
from midgrain.driver import Target
from midgrain.maps import min_max
from midgrain.measures.curves import Subject, subject
from midgrain.measures.order import Schedule, schedule
from midgrain.ops.checks import check_share
from midgrain.scorers.baselines import Constant

__all__ = ["AverageDrop", "DropIncrease", "average_drop", "drop_increase"]


@dataclass(frozen=True, eq=False)
class DropIncrease:
    """The class's probability before and after all but the important part was taken away."""

    #: What of the probability is lost, max(0, before - after) / before, float32 [B] in 0 .. 1; Drop % is 100 times
    #: its mean. Lower is better.
    drop: Tensor
    #: Whether the probability rose, bool [B]; Increase % is 100 times its mean. Higher is better.
    increase: Tensor
    #: Float32 [B].
    before: Tensor
    #: Float32 [B].
    after: Tensor
    #: int64 [B]; None where a callable gave the values.
    target: Tensor | None

    @property
    def value(self) -> Tensor:
        """The measure's number, `drop`."""
        return self.drop


@dataclass(frozen=True, eq=False)
class AverageDrop(DropIncrease):
    """Likewise for a soft mask, beside a map that says nothing."""

    #: The same for the constant map (0.9 everywhere, one pixel 1 and one 0), which no method should lose to.
    constant: DropIncrease


def drop_increase(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target = None,
    share: float = 0.15,
    *,
    baseline: Baseline = 0.0,
    ties: str = "together",
    batch_size: int | None = None,
    seed: int = 0,
) -> DropIncrease:
    """Drop % and Increase %: only the most important pixels are kept.

    Args:
        model: see `midgrain.measures.deletion`.
        x: see `deletion`.
        heatmap: see `deletion`.
        target: see `deletion`.
        share: of the pixels that is kept, above 0 and up to 1.
        baseline: what stands in the others' place, see `deletion`.
        ties: see `deletion`.
        batch_size: see `deletion`.
        seed: see `deletion`.

    Returns:
        `.drop` [B], `.increase` [B], `.before`, `.after`, `.target`.

    Raises:
        TypeError, ValueError: see `deletion`; a share out of range, a probability of 0 that nothing can drop from.

    Source: SISE (Sattarzadeh et al. 2021), after Ramaswamy et al. 2020 and Fu et al. 2020.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
        >>> x = torch.rand(2, 3, 8, 8)
        >>> result = mg.measures.drop_increase(model, x, mg.explainer("input-x-gradient", model)(x).heatmap)
        >>> result.drop.shape, result.increase.dtype
        (torch.Size([2]), torch.bool)
    """
    share = check_share(share, "share")

    def plan(maps: Tensor) -> Schedule:
        return schedule(maps, 1, ties, seed, pixels=max(1, round(share * maps[0].numel())))

    with subject(model, x, heatmap, target, baseline, batch_size, seed, plan) as (asked, planned):
        before = _before(asked)
        last = Schedule(planned.rank, planned.below[:, 1:], planned.above[:, 1:], planned.share[:, 1:])
        after = asked.curve(asked.empty, asked.x, last, ends=(None, before))[:, 0]
        return _drop(before, after, asked.classes)


def average_drop(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target = None,
    *,
    baseline: Baseline = 0.0,
    batch_size: int | None = None,
    seed: int = 0,
) -> AverageDrop:
    """Average drop and increase in confidence: the picture seen through the heat map as a soft mask.

    x * m + baseline * (1 - m), m the heat map rescaled to 0 .. 1. A map that is nearly 1 everywhere hides nothing and
    scores best, so the result always holds what the constant map gets, and a warning says where that is better than
    what was measured: then the number says nothing for the method.

    Args:
        model: see `midgrain.measures.deletion`.
        x: see `deletion`.
        heatmap: see `deletion`.
        target: see `deletion`.
        baseline: what stands where the mask is 0, see `deletion`.
        batch_size: see `deletion`.
        seed: see `deletion`.

    Returns:
        `.drop` [B], `.increase` [B], `.before`, `.after`, `.target`, and `.constant` with the same fields.

    Raises:
        TypeError, ValueError: see `deletion`; a probability of 0 that nothing can drop from.

    Sources: Chattopadhay et al., "Grad-CAM++", 2018; the constant map: Poppi et al., "Revisiting the evaluation of
    class activation mapping", 2021 (Fake-CAM).

    Example:
        >>> import torch, midgrain as mg
        >>> model = lambda x: torch.stack([x.mean((1, 2, 3)), torch.zeros(len(x))], 1)
        >>> x, heatmap = torch.ones(2, 3, 8, 8), torch.ones(2, 8, 8)
        >>> heatmap[:, 0, 0] = 0.0
        >>> result = mg.measures.average_drop(model, x, heatmap, target=0)
        >>> bool((result.drop < result.constant.drop).all())
        True
    """
    with subject(model, x, heatmap, target, baseline, batch_size, seed) as (asked, _):
        before = _before(asked)
        constant = _drop(before, _seen_through(asked, Constant().map(asked.x)), asked.classes)
        own = _drop(before, _seen_through(asked, min_max(asked.maps.float())), asked.classes)
    if constant.drop.mean() < own.drop.mean():
        warnings.warn(
            f"average_drop: a constant map loses {constant.drop.mean():.3f}, this one {own.drop.mean():.3f}; the "
            "measure favours maps that hide nothing",
            stacklevel=2,
        )
    return AverageDrop(own.drop, own.increase, before, own.after, asked.classes, constant)


def _before(asked: Subject) -> Tensor:
    known = asked.known()
    return asked.values(asked.x) if known is None else known


def _seen_through(asked: Subject, masks: Tensor) -> Tensor:
    """The values of the batch behind soft masks [B, *S]."""
    soft = masks[:, None].to(asked.x.dtype)
    return asked.values(asked.x * soft + asked.empty * (1.0 - soft))


def _drop(before: Tensor, after: Tensor, classes: Tensor | None) -> DropIncrease:
    if (before <= 0).any():
        raise ValueError(
            f"model: the probability is 0 for sample(s) {(before <= 0).nonzero()[:, 0].tolist()}, so nothing can drop"
        )
    return DropIncrease((before - after).clamp_min(0.0) / before, after > before, before, after, classes)
