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
from midgrain.stability import Stability, check_stop_at

__all__ = ["AVERAGES", "SmoothGrad", "noisy_copies"]

#: How the copies' values become one: from the sums of their values and squares and their number.
AVERAGES: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "mean": lambda total, squares, n: total / n,
    "squared": lambda total, squares, n: squares / n,
    "variance": lambda total, squares, n: (squares / n - (total / n).square()).clamp(min=0),
}
# With `stop_at`, maps are compared every so many copies.
_COPIES_BETWEEN = 5
# Attributions with a sign for every channel, averaged before the channels become one score.
_SIGNED = ("vanilla", "guided", "input-x-gradient")


class SmoothGrad:
    """The mean gradient over noisy copies of x, its maximum of |.| over the channels (Smilkov et al. 2017).

    The class of `target=None` is that of x itself. The noise belongs to a sample and the seed, so that it is the same
    alone and in any batch.

    Details: "passes" int64 [B], forward passes of a sample: 1 for its class and one for each copy that counts (of a
    scorer that has several passes of its own, runs).

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
        stop_at: stop for a sample once the rank correlation of its map with that of 5 copies before reaches this
            twice in a row; None takes all `n_samples`.
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
        stop_at: float | None = None,
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
        self.stop_at = check_stop_at(stop_at)
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

        averages: _Averages | None = None
        with progress_bar("smoothing", self.n_samples * len(x), shown=self.progress) as advance:
            for numbers, samples, values in probe.over_copies(make, self.n_samples, attribution):
                averages = averages or _Averages(self, len(x), values)
                averages.add(values, samples)
                advance(len(numbers) * values.shape[1])
                if averages.all_settled:
                    break
        if self.of == "guided":
            relus.check_any("scorer 'smoothgrad' of 'guided'")
        assert averages is not None
        maps = torch.stack([averages.map(sample) for sample in range(len(x))])
        return Score(maps, probe.result, details={"passes": 1 + averages.counts.to(x.device)})


class _Averages:
    """What the copies give together, sample by sample, each until it has settled."""

    def __init__(self, options: SmoothGrad, batch: int, values: Tensor):
        self.options = options
        #: Sums of the values and of their squares.
        self.total = values.new_zeros(2, batch, *values.shape[2:], dtype=torch.float64)
        #: Copies of each sample that count.
        self.counts = torch.zeros(batch, dtype=torch.int64)
        self.settled = [False] * batch
        self._stabilities = [Stability(options.stop_at) for _ in range(batch)]

    @property
    def all_settled(self) -> bool:
        """Does no sample need more copies?"""
        return all(self.settled)

    def add(self, values: Tensor, samples: slice) -> None:
        """Some copies [n, b, ...], one after the other, so that it does not matter how many are computed together."""
        for copy in values.double():
            for sample, value in zip(range(samples.start, samples.stop), copy, strict=True):
                if self.settled[sample]:
                    continue
                self.total[0, sample] += value
                self.total[1, sample] += value.square()
                self.counts[sample] += 1
                if self.options.stop_at is not None and self.counts[sample] % _COPIES_BETWEEN == 0:
                    self.settled[sample] = self._stabilities[sample].settled(self.map(sample).cpu().numpy())

    def map(self, sample: int) -> Tensor:
        """The score map of one sample so far, float32 [*S]."""
        options = self.options
        total, squares = self.total[:, sample]
        average = AVERAGES[options.average](total, squares, int(self.counts[sample]))
        return over_channels(average[None], options.channels)[0] if isinstance(options.of, str) else average.float()


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
