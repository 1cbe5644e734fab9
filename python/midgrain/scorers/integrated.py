"""Integrated gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from midgrain.baseline import Baseline, make_baseline
from midgrain.driver import Pass, Target
from midgrain.network.altered import check_batch_size
from midgrain.network.gradients import GradientProbe
from midgrain.normalisation import Normalisation
from midgrain.ops.checks import check_bool, check_int
from midgrain.progress import progress_bar
from midgrain.scorers.base import Score, check_channels, over_channels

__all__ = ["RULES", "IntegratedGradients"]

_Floats: TypeAlias = npt.NDArray[np.float64]


def _gauss_legendre(n: int) -> tuple[_Floats, _Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1.0) / 2.0, weights / 2.0


def _midpoint(n: int) -> tuple[_Floats, _Floats]:
    return (np.arange(n) + 0.5) / n, np.full(n, 1.0 / n)


def _trapezium(n: int) -> tuple[_Floats, _Floats]:
    if n == 1:
        raise ValueError("n_steps: expected 2 or more with rule='trapezium', got 1")
    weights = np.full(n, 1.0 / (n - 1))
    weights[[0, -1]] /= 2.0
    return np.linspace(0.0, 1.0, n), weights


#: Name -> from a number of steps to where on the path from 0 to 1 they are, and their weights, which add up to 1.
RULES: dict[str, Callable[[int], tuple[_Floats, _Floats]]] = {
    "gauss-legendre": _gauss_legendre,
    "midpoint": _midpoint,
    "trapezium": _trapezium,
}


class IntegratedGradients:
    """(x - x0) * mean of dy_c/dx along the straight path from a baseline x0 to x (Sundararajan et al. 2017, eq. 1).

    The class of `target=None` is that of x, all along the path. With several baselines, each has a path of its own
    and the attributions are averaged.

    Details: "convergence_delta" float64 [B], the attributions' sum over channels and pixels minus (y_c(x) - y_c(x0)),
    0 for an exact integral (of several baselines, the mean); "passes" int64 [B], forward passes of a sample:
    1 + (n_steps + 1) for each baseline, n_steps of them with a backward pass.

    Args:
        baseline: x0: "black" (the default), "white", "mean" (each sample's own mean colour), "blur", "noise"; a
            number (0 is the mean colour of the normalised input); a tensor that broadcasts to x; a callable from x to
            one. Several joined by a plus ("black+white", as XRAI has it) or in a list: the mean of their
            attributions.
        n_steps: gradients along each path.
        rule: where they are taken: "gauss-legendre", more densely near both ends, which mostly leaves the smallest
            "convergence_delta"; "midpoint" and "trapezium" evenly.
        channels: how a pixel's channels become its score: "max-abs", the largest magnitude; "sum", which keeps the
            signs and adds up to y_c(x) - y_c(x0); "max", the largest signed value, as XRAI has it.
        batch_size: copies at once; None chooses by the input's size.
        mean: normalisation of x, for "black" and "white"; by default ImageNet's for images and Kinetics' for clips.
        std: likewise.
        seed: of "noise".
        progress: show a bar.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> e = mg.explainer("integrated-gradients", model, n_steps=8, channels="sum")(torch.rand(2, 3, 16, 16))
        >>> e.heatmap.shape, e.details["passes"].tolist()
        (torch.Size([2, 16, 16]), [10, 10])
    """

    def __init__(
        self,
        baseline: Baseline | Sequence[Baseline] = "black",
        n_steps: int = 50,
        rule: str = "gauss-legendre",
        channels: str = "max-abs",
        batch_size: int | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        seed: int = 0,
        progress: bool = False,
    ):
        self.n_steps = check_int(n_steps, "n_steps", 1)
        if not isinstance(rule, str) or rule not in RULES:
            raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {rule!r}")
        self.rule = rule
        self._places, self._weights = RULES[rule](self.n_steps)
        self.channels = check_channels(channels)
        self.batch_size = check_batch_size(batch_size)
        self.seed = check_int(seed, "seed", 0, 2**63 - 1)
        self.progress = check_bool(progress, "progress")
        self._normalisation = Normalisation(mean, std)
        self.baselines = _separate(baseline)

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """`n_steps` forward and backward passes for each baseline.

        Raises:
            TypeError, ValueError: see `attributions`.
        """
        attributions, result, details = self.attributions(model, x, target)
        return Score(over_channels(attributions, self.channels), result, details=details)

    def attributions(
        self, model: Any, x: Tensor, target: Target, *, times_input: bool = True
    ) -> tuple[Tensor, Pass, dict[str, Tensor]]:
        """What `score` adds up over the channels.

        Args:
            model: see `score`.
            x: floats [B, ...], of any number of axes.
            target: see `score`.
            times_input: False leaves out the factor x - x0; then there is no "convergence_delta".

        Returns:
            attributions: [B, ...], x's dtype or float32.
            result: of the pass on x.
            details: see the class.

        Raises:
            TypeError, ValueError: see `midgrain.baseline.make_baseline` and `driver.input_gradient`.
        """
        # Baselines first: bad ones are told before the network is run.
        starts = [make_baseline(each, x.detach(), self.seed, self._normalisation) for each in self.baselines]
        probe = GradientProbe(model, x, target, batch_size=self.batch_size)
        steps = self.n_steps * len(x) * len(starts)
        attributions = torch.zeros_like(x, dtype=_wide(x.dtype), requires_grad=False)
        delta = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        with progress_bar("integrating gradients", steps, shown=self.progress) as advance:
            for start in starts:
                along = self._along(probe, start, advance, times_input)
                change = probe.scores - probe.scores_of(start)
                delta += along.flatten(1).sum(1, dtype=torch.float64) - change.to(x.device)
                attributions += along
        attributions /= len(starts)
        details = {
            "convergence_delta": delta / len(starts),
            "passes": torch.full((len(x),), probe.passes, dtype=torch.int64, device=x.device),
        }
        if not times_input:
            del details["convergence_delta"]
        return attributions, probe.result, details

    def _along(
        self, probe: GradientProbe, start: Tensor, advance: Callable[[int], object], times_input: bool
    ) -> Tensor:
        """The attributions of one path, [B, C, *S]."""
        x = probe.x
        wide = _wide(x.dtype)
        difference = x.to(wide) - start.to(wide)
        ones = [1] * (x.ndim)

        def on_path(numbers: Sequence[int], samples: slice) -> Tensor:
            places = torch.tensor(self._places[numbers], dtype=wide, device=x.device).reshape(-1, *ones)
            return (start[samples].to(wide) + places * difference[samples]).to(x.dtype)

        total = torch.zeros_like(difference)
        for numbers, samples, gradients in probe.gradients(on_path, self.n_steps, advance=advance):
            # One after the other, so that it does not matter how many are computed together.
            for number, gradient in zip(numbers, gradients, strict=True):
                total[samples].add_(gradient.to(wide), alpha=float(self._weights[number]))
        return total.mul_(difference) if times_input else total


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _separate(baseline: Any) -> tuple[Baseline, ...]:
    """One or several baselines as a tuple."""
    if isinstance(baseline, str):
        return tuple(each.strip() for each in baseline.split("+"))
    if isinstance(baseline, list | tuple):
        if not baseline:
            raise ValueError("baseline: expected at least one, got none")
        return tuple(baseline)
    return (baseline,)
