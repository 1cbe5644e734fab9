"""What the network says while pixels turn from one picture into another: the passes behind all removal measures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from midgrain import driver
from midgrain.baseline import Baseline, make_baseline
from midgrain.driver import Target
from midgrain.measures.order import Schedule, check_maps
from midgrain.network.altered import probabilities
from midgrain.ops.checks import check_int

__all__ = ["Mixture", "Subject", "subject"]

# Values [C, *S] of a batch together: on a CPU more than a few images only leave the caches, and cost time.
_VALUES_PER_BATCH = {"cpu": 4 * 3 * 224 * 224}
_VALUES_PER_BATCH_ELSEWHERE = 128 * 3 * 224 * 224
# Bytes of a number -> integers of that size.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, eq=False)
class Subject:
    """A batch and the network that is asked about it."""

    model: Any
    #: [B, C, *S], a copy.
    x: Tensor
    #: The heat maps [B, *S] on x's device.
    maps: Tensor
    #: What stands where pixels are removed, of x's shape.
    empty: Tensor
    target: Target
    #: int64 [B]; None for a callable target.
    classes: Tensor | None
    #: The logits for x, [B, classes]; None for a callable target.
    logits: Tensor | None
    #: Pictures at once.
    batch_size: int

    def curve(
        self,
        before: Tensor,
        after: Tensor,
        plan: Schedule,
        output: str = "probability",
        *,
        ends: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> Tensor:
        """The class's probability or logit, or a callable's values, float32 [B, steps + 1].

        Args:
            before: what the pixels are at first, [B, C, *S].
            after: what they turn into.
            plan: in which order and how many at a step.
            output: "probability" or "logit".
            ends: what is known for `before` and `after` as they are, [B] each; the network is not asked for it again.
        """
        if self.classes is None:
            return self._curve_of_callable(before, after, plan)
        # Every state once: steps inside one group share its ends.
        states = [torch.cat([low, high]).unique() for low, high in zip(plan.below, plan.above, strict=True)]
        values = [torch.zeros(len(each), device=before.device) for each in states]
        asked = [torch.ones_like(each, dtype=torch.bool) for each in states]
        for known, count in zip(ends, (0, plan.rank.shape[1]), strict=True):
            if known is not None:
                for each, value, wanted, found in zip(states, values, asked, known, strict=True):
                    wanted[each == count], value[each == count] = False, found
        counts = [each[wanted].cpu() for each, wanted in zip(states, asked, strict=True)]
        for value, wanted, found in zip(values, asked, self._states(before, after, plan, counts, output), strict=True):
            value[wanted] = found
        low_values, high_values = (
            torch.stack([v[torch.searchsorted(s, count)] for v, s, count in zip(values, states, side, strict=True)])
            for side in (plan.below, plan.above)
        )
        return torch.lerp(low_values, high_values, plan.share)

    def _states(
        self, before: Tensor, after: Tensor, plan: Schedule, counts: Sequence[Tensor], output: str
    ) -> tuple[Tensor, ...]:
        """The values of each sample's states."""
        mixture = Mixture(before, after, plan.rank)
        numbers = [len(each) for each in counts]
        samples = torch.repeat_interleave(torch.tensor(numbers))
        values = [
            self._of_classes(mixture.of(rows.tolist(), some), rows.to(before.device), output)
            for rows, some in zip(
                samples.split(self.batch_size), torch.cat(list(counts)).split(self.batch_size), strict=True
            )
            if len(rows)
        ]
        joined = torch.cat(values) if values else torch.zeros(0, device=before.device)
        split: tuple[Tensor, ...] = joined.split(numbers)
        return split

    def known(self, output: str = "probability") -> Tensor | None:
        """The value of x as it is, float32 [B], without another pass; None for a callable target."""
        if self.logits is None:
            return None
        every = torch.arange(len(self.x), device=self.x.device)
        _refuse_nan(self.logits, every)
        return self._read(self.logits, every, output)

    def values(self, pictures: Tensor, output: str = "probability") -> Tensor:
        """The same of one picture for each sample, [B, C, *S] -> float32 [B]."""
        if self.classes is None:
            return driver.resolve_target(self.model(pictures), self.target, len(pictures))[1].float()
        every = torch.arange(len(pictures), device=pictures.device)
        return torch.cat([self._of_classes(pictures[rows], rows, output) for rows in every.split(self.batch_size)])

    def outputs(self, pictures: Tensor, samples: Tensor) -> Tensor:
        """The logits [n, classes] of n pictures; `samples` says which of the batch they are made from.

        Raises:
            ValueError: they are not [n, classes], or hold NaN.
        """
        outputs: Tensor = self.model(pictures)
        _check_rows(outputs, len(pictures))
        _refuse_nan(outputs, samples)
        return outputs

    def _of_classes(self, pictures: Tensor, samples: Tensor, output: str) -> Tensor:
        return self._read(self.outputs(pictures, samples), samples, output)

    def _read(self, outputs: Tensor, samples: Tensor, output: str) -> Tensor:
        assert self.classes is not None
        outputs = outputs.float()
        read = probabilities(outputs) if output == "probability" else outputs
        value = read.gather(1, self.classes[samples].to(read.device)[:, None])[:, 0].to(self.x.device)
        _refuse(~torch.isfinite(value), samples)
        return value

    def _curve_of_callable(self, before: Tensor, after: Tensor, plan: Schedule) -> Tensor:
        """A callable gets all samples in their order, as explainers call it."""
        mixture, every = Mixture(before, after, plan.rank), list(range(len(before)))
        ends = []
        seen: dict[tuple[int, ...], Tensor] = {}
        for counts in (*plan.below.T, *plan.above.T):
            key = tuple(counts.tolist())
            if key not in seen:
                outputs = self.model(mixture.of(every, counts.cpu()))
                seen[key] = driver.resolve_target(outputs, self.target, len(before))[1].float()
            ends.append(seen[key])
        low_values, high_values = torch.stack(ends, 1).chunk(2, 1)
        return torch.lerp(low_values, high_values, plan.share)


@contextmanager
def subject(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target,
    baseline: Baseline,
    batch_size: int | None,
    seed: int,
    plan: Callable[[Tensor], Any] = lambda maps: None,
) -> Iterator[tuple[Subject, Any]]:
    """Checks what a measure was given and runs the network once for the classes; measure inside.

    Args:
        model: see `midgrain.measures.deletion`.
        x: likewise.
        heatmap: likewise.
        target: likewise.
        baseline: likewise.
        batch_size: likewise.
        seed: of a baseline of noise.
        plan: what else is made, and checked, from the heat maps before the network runs.

    Returns:
        The subject and what `plan` returned.

    Raises:
        TypeError, ValueError: see `midgrain.measures.deletion`.
    """
    driver.check_model(model)
    x = driver.check_input(x).detach()
    maps = check_maps(heatmap, (x.shape[0], *x.shape[2:])).to(x.device)
    planned = plan(maps)
    if batch_size is not None:
        batch_size = check_int(batch_size, "batch_size", 1)
    with driver.preserved(model, x), torch.no_grad():
        # A copy: an inference tensor could not be worked on, and the model may write into what it is given.
        x = x.clone()
        empty = make_baseline(baseline, x, seed)
        first = driver.Pass(None, None) if callable(target) else driver.forward(model, x, target)
        chosen = batch_size or _chosen_batch_size(x)
        yield Subject(model, x, maps, empty, target, first.target, first.outputs, chosen), planned


class Mixture:
    """Pictures that are one thing where pixels have been removed, and another elsewhere.

    On a CPU `torch.where` takes four times as long, and gathering each picture's originals first as long again: beside
    a small network that shows. So the bits that differ are switched.

    Args:
        before: what the pixels are at first, [B, C, *S].
        after: what they turn into, of the same shape and dtype.
        rank: int [B, N]: how many pixels turn before this one.
    """

    def __init__(self, before: Tensor, after: Tensor, rank: Tensor):
        self._dtype, self._shape = before.dtype, before.shape[2:]
        integers = _INTEGERS[before.element_size()]
        self._bits = before.view(integers)
        self._change = self._bits ^ after.view(integers)
        self._rank = rank.to(torch.int32)

    def of(self, samples: Sequence[int], counts: Tensor) -> Tensor:
        """For each of these samples a picture with so many pixels turned, [n, C, *S]; `counts` [n] is on the CPU."""
        parts, start = [], 0
        for sample, group in itertools.groupby(samples):
            stop = start + len(list(group))
            few = counts[start:stop].to(self._rank.device, torch.int32)
            # All bits of the pixels whose rank is below the count, none of the others.
            turned = (self._rank[sample] - few[:, None]) >> 31
            chosen = turned.to(self._bits.dtype).reshape(-1, 1, *self._shape)
            parts.append((self._change[sample] & chosen).bitwise_xor_(self._bits[sample]))
            start = stop
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        return joined.view(self._dtype)


def _refuse(bad: Tensor, samples: Tensor) -> None:
    if bad.any():
        numbers = samples[bad.to(samples.device)].unique().tolist()
        raise ValueError(
            f"model: its outputs hold NaN or infinity for sample(s) {numbers} with pixels removed; half precision or "
            "untrained weights are the usual cause"
        )


def _refuse_nan(outputs: Tensor, samples: Tensor) -> None:
    """Infinity may be right: some networks rule classes out."""
    _refuse(torch.isnan(outputs).any(1), samples)


def _check_rows(outputs: Any, rows: int) -> None:
    """Raises where the first pass on x gave [B, classes], but one on another number of pictures gave something else."""
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[0] != rows:
        got = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"model: expected logits [{rows}, classes] for {rows} pictures, got {got}; set batch_size to the one "
            "the model takes"
        )


def _chosen_batch_size(x: Tensor) -> int:
    budget = _VALUES_PER_BATCH.get(x.device.type, _VALUES_PER_BATCH_ELSEWHERE)
    return max(1, budget // x[0].numel())
