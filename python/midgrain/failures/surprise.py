"""Surprise and expectation: which filters react to an input otherwise than they do to its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from midgrain.failures.statistics import FilterStatistics

__all__ = ["HIGH", "LOW", "Surprise", "surprise"]

#: Percentiles beyond which a filter is expected but missing, and beyond which it surprises (Thesis 6.2.4).
LOW, HIGH = 0.1, 99.9
# Scores of the same image differ by so much between batches, relative to the class's; that surprises nobody.
_ROUNDING = 1e-4


@dataclass(frozen=True, eq=False)
class Surprise:
    """How the filters of a batch compare with those of the training images of each sample's class."""

    #: float32 [B, filters].
    scores: Tensor
    #: Mean over the filters of score less the class's mean, float64 [B]: below 0 the sample is untypical of its class.
    beta: Tensor
    #: (score - mean) / standard deviation over the class's training images, float64 [B, filters]; 0 where neither
    #: deviates.
    deviation: Tensor
    #: Above the class's percentile `high`, bool [B, filters].
    surprising: Tensor
    #: Below its percentile `low`, and on the average of the class above the mean filter; bool [B, filters].
    expected: Tensor
    #: Below the percentile `low`, whatever the class's average: a filter that is missed, or speaks against the class as
    #: hardly ever in training; bool [B, filters].
    against: Tensor
    #: The percentiles, float64 [B, filters].
    lower: Tensor
    upper: Tensor
    #: The class's means, float64 [B, filters].
    mean: Tensor
    #: The network's, [B, classes].
    outputs: Tensor
    #: int64 [B].
    true_class: Tensor

    def extreme(self, flagged: Tensor, sign: float, most: int) -> list[list[int]]:
        """Of the filters that are flagged in each sample the most extreme ones first, at most so many.

        Args:
            flagged: bool [B, filters].
            sign: 1 where a high deviation is extreme, -1 where a low one is.
            most: how many.
        """
        found = torch.where(flagged, sign * self.deviation, -torch.inf)
        order = found.sort(dim=1, descending=True, stable=True).indices[:, :most]
        return [row[some].tolist() for row, some in zip(order, flagged.gather(1, order), strict=True)]


def surprise(
    model: Any,
    x: Tensor,
    true_class: int | Sequence[int] | Tensor,
    stats: FilterStatistics,
    *,
    low: float = LOW,
    high: float = HIGH,
    few: str = "error",
) -> Surprise:
    """Which filters surprise, which are missed, and how typical the sample is of its class.

    With a_n the score of filter n for the true class c, mu_cn its mean and P_cn its percentiles over the training
    images of c: n surprises where a_n > P_cn(high); it is expected where a_n < P_cn(low) and mu_cn is above the mean of
    mu_c over the filters; beta = mean over n of a_n - mu_cn. Scores beyond a percentile by no more
    than 0.01 % of it or of the standard deviation, which another batch size's rounding explains, do not count. One
    forward pass, and one backward pass to the layer.

    Args:
        model: the network of the statistics.
        x: floats [B, C, *S].
        true_class: of each sample.
        stats: see `FilterStatistics.fit`.
        low: percentile.
        high: percentile.
        few: what to do with classes that have too few training images for these percentiles, 1000 for 0.1 and 99.9:
            "error"; or "extreme", to compare with the least and the greatest value there is.

    Returns:
        On x's device.

    Raises:
        TypeError, ValueError: statistics of another network; classes without training images, or with too few of
            them; percentiles out of order; see `midgrain.failures.filter_scores`.

    Source: T. Hartley's PhD thesis, 6.2.4 and 6.2.5, equations 6.7 and 6.8.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(8, 4))
        >>> data = torch.utils.data.TensorDataset(torch.rand(80, 3, 16, 16), torch.arange(80) % 4)
        >>> stats = mg.failures.FilterStatistics.fit(model, torch.utils.data.DataLoader(data, batch_size=16))
        >>> found = mg.failures.surprise(model, torch.rand(2, 3, 16, 16), [0, 3], stats, low=5, high=95)
        >>> found.beta.shape, found.surprising.shape
        (torch.Size([2]), torch.Size([2, 8]))
    """
    if not isinstance(stats, FilterStatistics):
        raise TypeError(f"stats: expected FilterStatistics, got {type(stats).__name__}")
    if few not in ("error", "extreme"):
        raise ValueError(f"few: expected 'error' or 'extreme', got {few!r}")
    if not 0 <= low < high <= 100:
        raise ValueError(f"low, high: expected 0 <= low < high <= 100, got {low} and {high}")
    if true_class is None or callable(true_class):
        raise TypeError(f"true_class: expected a class or one per sample, got {type(true_class).__name__}")
    found = stats.score(model, x, true_class)
    assert found.target is not None
    assert found.outputs is not None
    classes = stats.check_classes(found.target)
    device = found.target.device
    scores = found.scores[stats.measure]
    mean, std = (values[classes].to(device) for values in (stats.mean, stats.std))
    lower, upper = (stats.percentile(q, classes, few).to(device) for q in (low, high))
    difference = scores.double() - mean
    limitless = torch.full_like(difference, torch.inf).copysign(difference)
    deviation = torch.where(std > 0, difference / std, limitless.where(difference != 0, 0.0))
    needed = mean > mean.mean(1, keepdim=True)
    exact = scores.double()
    above, below = (
        beyond > _ROUNDING * torch.maximum(limit.abs(), std)
        for beyond, limit in ((exact - upper, upper), (lower - exact, lower))
    )
    return Surprise(
        scores,
        difference.mean(1),
        deviation,
        above,
        below & needed,
        below,
        lower,
        upper,
        mean,
        found.outputs,
        found.target,
    )
