"""Deletion and insertion: what the class loses without the pixels a heat map calls important."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from midgrain.baseline import Baseline
from midgrain.driver import Target
from midgrain.measures.curves import subject
from midgrain.measures.order import Schedule, schedule

__all__ = ["Combined", "RemovalCurve", "combined", "deletion", "insertion"]


@dataclass(frozen=True, eq=False)
class RemovalCurve:
    """How the class's probability changes while pixels are removed, or restored."""

    #: Area under the curve over the share of pixels, by the trapezium rule on [0, 1]; float32 [B].
    auc: Tensor
    #: The probability after 0 .. steps steps, float32 [B, steps + 1].
    curve: Tensor
    #: The classes, int64 [B]; None where a callable gave the values.
    target: Tensor | None

    @property
    def value(self) -> Tensor:
        """The measure's number, `auc`."""
        return self.auc


@dataclass(frozen=True, eq=False)
class Combined:
    """Deletion and insertion in one number."""

    #: Deletion + (1 - insertion), lower is better; float32 [B].
    score: Tensor
    deletion: RemovalCurve
    insertion: RemovalCurve

    @property
    def value(self) -> Tensor:
        """The measure's number, `score`."""
        return self.score


def deletion(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target = None,
    steps: int = 28,
    *,
    baseline: Baseline = 0.0,
    ties: str = "together",
    batch_size: int | None = None,
    seed: int = 0,
) -> RemovalCurve:
    """Deletion: the probability of the class while pixels are removed, most important first. Lower is better.

    Judge it beside `insertion`, or use `combined`: noise that merely confuses the network scores well in deletion
    alone.

    Args:
        model: a network that returns logits [B, classes], or anything else with a callable target.
        x: floats [B, C, H, W] or [B, C, T, H, W], normalised as the model expects.
        heatmap: finite, [B, H, W] or [B, T, H, W]: one value per pixel, greater is more important. Only the order
            counts. A clip's pixels are ordered over all its frames.
        target: None (the class predicted for x), a class, one per sample, or a callable from the model's outputs to
            one value per sample [B]. Of classes the softmax is measured; a callable's values are measured as they
            are, so they should lie in 0 .. 1 where areas are to be compared.
        steps: into how many equal parts the pixels are divided; 28 as in Thesis, 1 .. pixels.
        baseline: what stands where pixels are removed: a number (0, Thesis and RISE, is the mean colour of ImageNet
            for normalised inputs), "mean" (each sample's own mean colour), "median" (likewise, per channel), "blur"
            (RISE's start of insertion: each frame blurred 11 x 11 with sigma 5), "noise" (standard normal, seeded), a
            tensor that broadcasts to x, or a callable from x to such a tensor.
        ties: "together": pixels of the same value are removed together; where a step falls inside such a group (a
            superpixel, a class activation map's zeros), the curve takes the straight line between the group's two
            ends. "random": in an order drawn from the seed. Both treat all places of the picture alike; they agree
            where no two values are equal.
        batch_size: how many pictures go through the network at a time; None chooses by their size. Results do not
            depend on it beyond rounding. A callable target is given all B samples in their order, so there it is B.
        seed: of "noise" and of "random".

    Returns:
        `.auc` [B], `.curve` [B, steps + 1] from all pixels to none, `.target` [B].

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: a heat map of another shape than x's, or with NaN or infinity; `steps`, `target`, `batch_size` or
            `seed` out of range; a `baseline` that does not fit; a model whose outputs hold NaN.

    Sources: Petsiuk et al., "RISE", 2018; T. Hartley's PhD thesis, 3.7 (28 steps, removed pixels 0).

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
        >>> x = torch.rand(2, 3, 8, 8)
        >>> result = mg.measures.deletion(model, x, mg.explainer("vanilla", model)(x).heatmap, steps=8)
        >>> result.auc.shape, result.curve.shape
        (torch.Size([2]), torch.Size([2, 9]))
    """
    return _measure(model, x, heatmap, target, steps, baseline, ties, batch_size, seed)[0]


def insertion(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target = None,
    steps: int = 28,
    *,
    baseline: Baseline = 0.0,
    ties: str = "together",
    batch_size: int | None = None,
    seed: int = 0,
) -> RemovalCurve:
    """Insertion: the probability of the class while pixels are restored, most important first. Higher is better.

    It starts from the baseline everywhere: zeros by default, as in Thesis; RISE starts from `baseline="blur"`.

    Args:
        model: see `deletion`.
        x: see `deletion`.
        heatmap: see `deletion`.
        target: see `deletion`.
        steps: see `deletion`.
        baseline: see `deletion`.
        ties: see `deletion`.
        batch_size: see `deletion`.
        seed: see `deletion`.

    Returns:
        `.auc` [B], `.curve` [B, steps + 1] from no pixels to all, `.target` [B].

    Raises:
        TypeError, ValueError: see `deletion`.

    Example:
        >>> import torch, midgrain as mg
        >>> x, weights = torch.ones(1, 1, 2, 2), torch.tensor([[4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
        >>> model = lambda x: x.flatten(1) @ weights.T
        >>> heatmap = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
        >>> mg.measures.insertion(model, x, heatmap, steps=4).curve
        tensor([[0.5000, 0.9820, 0.9820, 0.9820, 0.9820]])
    """
    return _measure(model, x, heatmap, target, steps, baseline, ties, batch_size, seed, orders=("insertion",))[0]


def combined(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target = None,
    steps: int = 28,
    *,
    baseline: Baseline = 0.0,
    ties: str = "together",
    batch_size: int | None = None,
    seed: int = 0,
) -> Combined:
    """Deletion + (1 - insertion), in 0 .. 2 for a class's probability. Lower is better; noise gets about 1.

    Args:
        model: see `deletion`.
        x: see `deletion`.
        heatmap: see `deletion`.
        target: see `deletion`.
        steps: see `deletion`.
        baseline: see `deletion`.
        ties: see `deletion`.
        batch_size: see `deletion`.
        seed: see `deletion`.

    Returns:
        `.score` [B], and the two curves as `.deletion` and `.insertion`.

    Raises:
        TypeError, ValueError: see `deletion`.

    Source: T. Hartley's PhD thesis, ch. 4.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
        >>> x, heatmap = torch.rand(1, 3, 8, 8), torch.rand(1, 8, 8)
        >>> result = mg.measures.combined(model, x, heatmap)
        >>> torch.allclose(result.score, result.deletion.auc + 1 - result.insertion.auc)
        True
    """
    orders = ("deletion", "insertion")
    removed, restored = _measure(model, x, heatmap, target, steps, baseline, ties, batch_size, seed, orders=orders)
    return Combined(removed.auc + (1.0 - restored.auc), removed, restored)


def _measure(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target,
    steps: int,
    baseline: Baseline,
    ties: str,
    batch_size: int | None,
    seed: int,
    orders: tuple[str, ...] = ("deletion",),
) -> list[RemovalCurve]:
    def plan(maps: Tensor) -> Schedule:
        return schedule(maps, steps, ties, seed)

    with subject(model, x, heatmap, target, baseline, batch_size, seed, plan) as (asked, planned):
        curves: list[RemovalCurve] = []
        whole, nothing = asked.known(), None
        for order in orders:
            if order == "deletion":
                curve = asked.curve(asked.x, asked.empty, planned, ends=(whole, nothing))
                nothing = curve[:, -1]
            else:
                curve = asked.curve(asked.empty, asked.x, planned, ends=(nothing, whole))
            curves.append(RemovalCurve(_area(curve), curve, asked.classes))
    return curves


def _area(curve: Tensor) -> Tensor:
    """The trapezium rule on [0, 1], [B, steps + 1] -> [B]."""
    return torch.trapezoid(curve, dx=1.0 / (curve.shape[1] - 1))
