"""What the network says while pixels turn from one picture into another: the passes behind all removal measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

__all__ = ["Subject", "mixed", "subject"]

# Values [C, *S] of a batch together: on a CPU more than a few images only leave the caches, and cost time.
_VALUES_PER_BATCH = {"cpu": 4 * 3 * 224 * 224}
_VALUES_PER_BATCH_ELSEWHERE = 128 * 3 * 224 * 224


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
    #: Pictures at once.
    batch_size: int

    def curve(self, before: Tensor, after: Tensor, plan: Schedule, output: str = "probability") -> Tensor:
        """The class's probability or logit, or a callable's values, float32 [B, steps + 1].

        Args:
            before: what the pixels are at first, [B, C, *S].
            after: what they turn into.
            plan: in which order and how many at a step.
            output: "probability" or "logit".
        """
        if self.classes is None:
            return self._curve_of_callable(before, after, plan)
        # Every state once: steps inside one group share its ends.
        states = [torch.cat([low, high]).unique() for low, high in zip(plan.below, plan.above, strict=True)]
        samples = torch.repeat_interleave(torch.tensor([len(each) for each in states])).to(before.device)
        counts = torch.cat(states)
        values = []
        for rows, count in zip(samples.split(self.batch_size), counts.split(self.batch_size), strict=True):
            values.append(self._of_classes(mixed(before[rows], after[rows], plan.rank[rows], count), rows, output))
        ends = zip(torch.cat(values).split([len(each) for each in states]), states, plan.below, plan.above, strict=True)
        found = [
            (value[torch.searchsorted(s, low)], value[torch.searchsorted(s, high)]) for value, s, low, high in ends
        ]
        low_values, high_values = (torch.stack(each) for each in zip(*found, strict=True))
        return torch.lerp(low_values, high_values, plan.share)

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
        outputs = self.model(pictures)
        _check_rows(outputs, len(pictures))
        # Infinity may be right: some networks rule classes out.
        _refuse(torch.isnan(outputs).any(1), samples)
        checked: Tensor = outputs
        return checked

    def _of_classes(self, pictures: Tensor, samples: Tensor, output: str) -> Tensor:
        assert self.classes is not None
        outputs = self.outputs(pictures, samples).float()
        read = probabilities(outputs) if output == "probability" else outputs
        value = read.gather(1, self.classes[samples].to(read.device)[:, None])[:, 0].to(pictures.device)
        _refuse(~torch.isfinite(value), samples)
        return value

    def _curve_of_callable(self, before: Tensor, after: Tensor, plan: Schedule) -> Tensor:
        """A callable gets all samples in their order, as explainers call it."""
        ends = []
        seen: dict[tuple[int, ...], Tensor] = {}
        for counts in (*plan.below.T, *plan.above.T):
            key = tuple(counts.tolist())
            if key not in seen:
                outputs = self.model(mixed(before, after, plan.rank, counts))
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
        classes = None if callable(target) else driver.forward(model, x, target).target
        yield Subject(model, x, maps, empty, target, classes, batch_size or _chosen_batch_size(x)), planned


def mixed(before: Tensor, after: Tensor, rank: Tensor, counts: Tensor) -> Tensor:
    """Pixels of ranks below each row's count come from `after`, the others from `before`."""
    changed = (rank < counts[:, None]).reshape(len(before), 1, *before.shape[2:])
    return torch.where(changed, after, before)


def _refuse(bad: Tensor, samples: Tensor) -> None:
    if bad.any():
        numbers = samples[bad.to(samples.device)].unique().tolist()
        raise ValueError(
            f"model: its outputs hold NaN or infinity for sample(s) {numbers} with pixels removed; half precision or "
            "untrained weights are the usual cause"
        )


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
