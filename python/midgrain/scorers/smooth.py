"""SmoothGrad: scores averaged over noisy copies of the input."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from midgrain import driver
from midgrain.driver import Target
from midgrain.network.altered import check_batch_size
from midgrain.network.gradients import GradientProbe
from midgrain.ops.checks import check_bool, check_int, check_positive
from midgrain.progress import progress_bar
from midgrain.randomness import seeded_by_content
from midgrain.scorers.base import Score, Scorer, ScorerFunction, check_channels, over_channels
from midgrain.scorers.guided import GuidedReLUs

__all__ = ["AVERAGES", "SmoothGrad", "noisy_copies"]

#: How the copies' values become one: from the sums of their values and squares and their number.
AVERAGES: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "mean": lambda total, squares, n: total / n,
    "squared": lambda total, squares, n: squares / n,
    "variance": lambda total, squares, n: (squares / n - (total / n).square()).clamp(min=0),
}
# Attributions with a sign for every channel, averaged before the channels become one score.
_SIGNED = ("vanilla", "guided", "input-x-gradient")


class SmoothGrad:
    """The mean gradient over noisy copies of x, its maximum of |.| over the channels (Smilkov et al. 2017).

    The class of `target=None` is that of x itself. The noise belongs to a sample and the seed, so that it is the same
    alone and in any batch.

    Details: "passes" int64 [B], forward passes of a sample: 1 for its class and `n_samples` passes of the scorer.

    Args:
        n_samples: noisy copies.
        noise: standard deviation of the noise, relative to the range (maximum minus minimum) of each sample.
        of: what is averaged: "vanilla", "guided" or "input-x-gradient", with their signs; or any other scorer's
            maps: a name, one with options (`midgrain.scorer`), a callable `(model, x, target) -> [B, *S]`.
        average: "mean" (SmoothGrad); "squared", the mean of the squares (SmoothGrad-Squared, Hooker et al. 2019);
            "variance" (VarGrad, Adebayo et al. 2018).
        channels: how the averages of a pixel's channels become its score: "max-abs", "max" or "sum"; of use where
            `of` has signs.
        batch_size: copies at once; None chooses by the input's size.
        mean: normalisation of x, for the scorers that need to know it.
        std: likewise.
        seed: of the noise.
        progress: show a bar.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> swag = mg.SWAG(model, scorer=mg.scorer("smoothgrad", n_samples=8, of="guided"), n_segments=20)
        >>> swag(torch.rand(2, 3, 32, 32)).details["passes"]
        tensor([9, 9])
    """

    def __init__(
        self,
        n_samples: int = 50,
        noise: float = 0.15,
        of: str | Scorer | ScorerFunction = "vanilla",
        average: str = "mean",
        channels: str = "max-abs",
        batch_size: int | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        seed: int = 0,
        progress: bool = False,
    ):
        self.n_samples = check_int(n_samples, "n_samples", 1)
        self.noise = check_positive(noise, "noise", zero=True)
        self.of = of if isinstance(of, str) and of in _SIGNED else _inner(of, mean, std)
        if not isinstance(average, str) or average not in AVERAGES:
            raise ValueError(f"average: expected one of {', '.join(AVERAGES)}, got {average!r}")
        self.average = average
        self.channels = check_channels(channels)
        if self.channels != "max-abs" and not isinstance(self.of, str):
            raise ValueError(f"channels: they go with of={', '.join(_SIGNED)}; other scorers' maps have none")
        self.batch_size = check_batch_size(batch_size)
        self.seed = check_int(seed, "seed", 0, 2**63 - 1)
        self.progress = check_bool(progress, "progress")

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """One pass for the class, and `n_samples` of the scorer.

        Raises:
            ValueError: see `driver.input_gradient`; guided backpropagation without any ReLU.
        """
        probe = GradientProbe(model, x, target, batch_size=self.batch_size)
        make = noisy_copies(probe.x, self.noise, self.n_samples, self.seed)
        relus = GuidedReLUs()

        def attribution(copies: Tensor, target: Target) -> Tensor:
            if not isinstance(self.of, str):
                return self.of.score(model, copies, target).map
            result = driver.input_gradient(model, copies, target, relus.guide if self.of == "guided" else None)
            assert result.gradient is not None
            return copies * result.gradient if self.of == "input-x-gradient" else result.gradient

        total: Tensor | None = None
        with progress_bar("smoothing", self.n_samples * len(x), shown=self.progress) as advance:
            for numbers, samples, values in probe.over_copies(make, self.n_samples, attribution):
                if total is None:
                    total = values.new_zeros(2, len(x), *values.shape[2:], dtype=torch.float64)
                # One after the other, so that it does not matter how many are computed together.
                for copy in values.double():
                    total[0, samples] += copy
                    total[1, samples] += copy.square()
                advance(len(numbers) * values.shape[1])
        if self.of == "guided":
            relus.check_any("scorer 'smoothgrad' of 'guided'")
        assert total is not None
        averaged = AVERAGES[self.average](total[0], total[1], self.n_samples)
        maps = over_channels(averaged, self.channels) if isinstance(self.of, str) else averaged.float()
        passes = torch.full((len(x),), 1 + self.n_samples, dtype=torch.int64, device=x.device)
        return Score(maps, probe.result, details={"passes": passes})


def noisy_copies(x: Tensor, noise: float, count: int, seed: int) -> Callable[[Sequence[int], slice], Tensor]:
    """Copies of a batch with Gaussian noise, the same for the same sample, seed and number, alone and in any batch.

    Args:
        x: floats [B, C, *S].
        noise: standard deviation, relative to each sample's range.
        count: how many copies there are of each sample.
        seed: of the noise.

    Returns:
        From numbers and a slice of the batch to [len(numbers), b, C, *S] of x's dtype.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    flat = x.to(wide).flatten(1)
    deviations = noise * (flat.amax(1) - flat.amin(1))
    # A seed for every copy: each can be made again without those before it.
    seeds = [
        torch.randint(2**62, (count,), generator=seeded_by_content(sample, seed)).tolist() for sample in x.float().cpu()
    ]

    def make(numbers: Sequence[int], samples: slice) -> Tensor:
        drawn = [
            torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(own[number]), dtype=torch.float32)
            for number in numbers
            for own in seeds[samples]
        ]
        values: Tensor = torch.stack(drawn).to(device=x.device, dtype=wide).unflatten(0, (len(numbers), -1))
        values *= deviations[samples].reshape(-1, *[1] * (x.ndim - 1))
        values += x[samples].to(wide)
        return values.to(x.dtype)

    return make


def _inner(of: Any, mean: Sequence[float] | None, std: Sequence[float] | None) -> Scorer:
    """The scorer whose maps are averaged."""
    from midgrain.scorers import SCORERS, make_scorer  # The table holds this one, too.

    if isinstance(of, str):
        if of not in SCORERS:
            raise ValueError(f"of: expected one of {', '.join(SCORERS)}, a scorer or a callable, got {of!r}")
        options = {"mean": mean, "std": std} if "mean" in inspect.signature(SCORERS[of][0]).parameters else {}
        return make_scorer(of, **options)
    if isinstance(of, type) or not (isinstance(of, Scorer) or callable(of)):
        raise TypeError(f"of: expected a name, a scorer or a callable (model, x, target), got {type(of).__name__}")
    return make_scorer(of)
