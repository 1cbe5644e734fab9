"""Kernel SHAP: Shapley values of superpixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch

from midgrain.baseline import Baseline
from midgrain.regions.superpixels import SlicOptions, SuperpixelChoice
from midgrain.regions.switched import Bools, Floats, RegionFit, SwitchedRegions
from midgrain.scorers import Scorer, ScorerFunction

__all__ = ["KernelSHAP"]

_DEFAULT_COUNT = 50
# Draws for each new subset before sampling gives up: where nearly all were drawn, most draws are known ones.
_DRAWS_PER_SUBSET = 4


class KernelSHAP(SwitchedRegions):
    """Shapley values of superpixels by weighted least squares (Lundberg and Lee 2017), for images and clips.

    The Shapley value of a superpixel is what it adds to the score of those already on, averaged over all orders of
    switching them on. They are the coefficients of a linear model of the score, weighted by the Shapley kernel
    (K - 1) / (C(K, s) s (K - s)) of a copy with s of K superpixels on, under the constraint that they add up to the
    score of the input less that of the baseline; this holds exactly.

    Where all 2^K copies are within `n_samples`, the values are exact. Otherwise copies with very few or very many
    superpixels on, which weigh most, are enumerated as far as the budget allows; the others are drawn by the kernel,
    each together with its complement.

    Details of an explanation: "passes", int64 [B], copies that the network saw (without what the scorer of gradient
    superpixels needs); "intercept", float32 [B], the score of the baseline; "exact", bool-like float32 [B], 1 where
    all copies were looked at.

    Args:
        model: a network returning logits [B, classes]; anything else needs a callable target.
        superpixels: see `midgrain.SWAG`.
        scorer: makes the map that superpixels from the gradient follow: a name, or see `midgrain.SWAG`.
        n_segments: wanted superpixels of SLIC; by default 50, fewer for tiny inputs.
        n_samples: copies that the network sees at most, 2 or more, the input itself and the baseline among them.
        baseline: what stands where a superpixel is off, see `midgrain.explainer("lime", ...)`.
        output: "probability" p, "logit" or "log-odds" (log(p / (1 - p))) of the class; a callable target's scores are
            taken as they are.
        batch_size: copies at once; None chooses by the input's size.
        seed: of the copies.
        progress: show a bar.
        stop_at: stop a sample once the rank correlation of its values with those of 50 copies before reaches this
            twice in a row; None never stops.
        compactness: see `midgrain.SWAG`.
        gradient_compactness: see `midgrain.SWAG`.
        mean: normalisation of x, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
        >>> x = torch.rand(1, 3, 16, 16)
        >>> e = mg.explainer("kernel-shap", model, n_segments=6, n_samples=64, output="logit")(x, 2)
        >>> torch.allclose(e.scores.sum(), model(x)[0, 2] - model(0 * x)[0, 2], atol=1e-5)
        True
    """

    def __init__(
        self,
        model: Any,
        superpixels: SuperpixelChoice = "image",
        scorer: str | Scorer | ScorerFunction = "guided",
        n_segments: int | None = None,
        n_samples: int = 1000,
        *,
        baseline: Baseline = 0.0,
        output: str = "probability",
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
        self.name = "kernel-shap"

    def design(self, count: int, generator: torch.Generator) -> _Subsets:
        """All subsets where the budget allows, else the weightiest and a sample of the others."""
        if count < self.n_samples.bit_length():  # 2^count <= n_samples
            return _all_subsets(count)
        return _subsets_within(self.n_samples - 2, count, generator)


@dataclass(frozen=True)
class _Subsets:
    """Copies with subsets of the superpixels on; the first has none."""

    table: Bools
    #: Of each copy in the least squares; the first has none.
    weights: Floats
    #: Are they all there are but the input itself?
    exact: bool

    def fit(self, scores: Floats, unaltered: float, place: int) -> RegionFit:
        """Shapley values as far as these copies tell them."""
        details = {"intercept": float(scores[0]), "exact": float(self.exact and len(scores) == len(self.table))}
        if details["exact"]:
            return RegionFit(_exact_values(self.table, scores, unaltered), details)
        seen = slice(1, len(scores))
        return RegionFit(
            _least_squares(self.table[seen], scores[seen], self.weights[seen], float(scores[0]), unaltered), details
        )


def _all_subsets(count: int) -> _Subsets:
    """Every subset but the whole, the empty one first, then small and large ones before those between."""
    numbers = np.arange(2**count - 1, dtype=np.int64)
    table = (numbers[:, None] >> np.arange(count)) & 1 == 1
    sizes = table.sum(1)
    order = np.argsort(np.minimum(sizes, count - sizes), kind="stable")
    kernel = [0.0] + [(count - 1) / (math.comb(count, size) * size * (count - size)) for size in range(1, count)]
    return _Subsets(table[order], np.array(kernel)[sizes[order]], exact=True)


def _exact_values(table: Bools, scores: Floats, unaltered: float) -> Floats:
    """The definition: what each adds to the others, averaged over all orders."""
    count = table.shape[1]
    rows = np.concatenate([table, np.ones((1, count), dtype=np.bool_)])
    # Relative to the empty set, so that equal scores give exactly 0.
    values = np.concatenate([scores, [unaltered]]) - scores[0]
    sizes = rows.sum(1)
    # Of an order's places, the share in which exactly the others of the subset come first.
    gained = np.array([0.0] + [1.0 / (count * math.comb(count - 1, size - 1)) for size in range(1, count + 1)])
    missed = np.array([1.0 / (count * math.comb(count - 1, size)) for size in range(count)] + [0.0])
    shares = np.where(rows, gained[sizes][:, None], -missed[sizes][:, None])
    found: Floats = values @ shares
    return found


def _least_squares(table: Bools, scores: Floats, weights: Floats, empty: float, unaltered: float) -> Floats:
    """The weighted least squares under the constraint that the values add up to unaltered - empty.

    The values are equal shares plus a part that adds up to 0; of several solutions the one nearest to equal shares.
    """
    count = table.shape[1]
    total = unaltered - empty
    shares = np.full(count, total / count)
    if count == 1 or len(table) == 0:
        return shares
    roots = np.sqrt(weights)[:, None]
    residuals = scores - empty - table @ shares
    # Columns less their mean: a row's product with them sees only the part that adds up to 0.
    centred = table - table.mean(1, keepdims=True)
    free = np.linalg.lstsq(roots * centred, roots[:, 0] * residuals, rcond=None)[0]
    values: Floats = shares + (free - free.mean())
    return values


def _subsets_within(budget: int, count: int, generator: torch.Generator) -> _Subsets:
    """The empty set, then `budget` subsets: whole sizes as long as they fit, then draws, each with its complement."""
    # Sizes and their complements together: 1 and K - 1, 2 and K - 2, ...
    sizes = range(1, count // 2 + 1)
    kernel = {size: (count - 1) / (size * (count - size)) * (1 if 2 * size == count else 2) for size in sizes}
    rows: list[Bools] = [np.zeros(count, dtype=np.bool_)]
    weights: list[float] = [0.0]
    left = dict(kernel)
    for size in sizes:
        subsets = math.comb(count, size) * (1 if 2 * size == count else 2)
        # A size is taken whole where draws would meet each of its subsets about once.
        if subsets > (budget - len(rows) + 1) * left[size] / sum(left.values()):
            break
        for row in _of_size(count, size):
            rows.append(row)
            weights.append(kernel[size] / subsets)
        del left[size]
    drawn = _drawn(budget + 1 - len(rows), count, left, generator) if left else {}
    total = sum(drawn.values())
    for key, times in drawn.items():
        rows.append(np.frombuffer(key, dtype=np.bool_))
        weights.append(sum(left.values()) * times / total)
    return _Subsets(np.array(rows), np.array(weights), exact=False)


def _of_size(count: int, size: int) -> Iterator[Bools]:
    """All subsets of a size, each followed by its complement."""
    for chosen in combinations(range(count), size):
        if 2 * size == count and 0 not in chosen:
            return  # From here on they are complements of those before.
        row = np.zeros(count, dtype=np.bool_)
        row[list(chosen)] = True
        yield row
        yield ~row


def _drawn(budget: int, count: int, shares: dict[int, float], generator: torch.Generator) -> dict[bytes, int]:
    """Subsets in the order in which they first came, with how often they did; each beside its complement."""
    found: dict[bytes, int] = {}
    sizes = torch.tensor(list(shares))
    odds = torch.tensor(list(shares.values()), dtype=torch.float64)
    for _ in range(_DRAWS_PER_SUBSET * budget):
        if len(found) + 1 >= budget:  # No place for another pair.
            break
        size = int(sizes[torch.multinomial(odds, 1, generator=generator)])
        row = np.zeros(count, dtype=np.bool_)
        row[torch.randperm(count, generator=generator)[:size].numpy()] = True
        for each in (row, ~row):
            key = each.tobytes()
            found[key] = found.get(key, 0) + 1
    return found
