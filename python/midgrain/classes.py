"""Classes that a network considered, by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ClassScore", "class_score", "top_classes"]


@dataclass(frozen=True)
class ClassScore:
    """One class that the network considered."""

    index: int
    label: str
    probability: float


def top_classes(logits: Tensor, label: Callable[[int], str], k: int = 5) -> list[ClassScore]:
    """The k most probable classes, the most probable first.

    Args:
        logits: of one sample, [classes].
        label: the name of a class.
        k: 1 or more; fewer where there are fewer classes.
    """
    probabilities = logits.detach().float().softmax(0)
    top = probabilities.topk(min(k, len(probabilities)))
    return [
        ClassScore(index, label(index), value)
        for value, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]


def class_score(logits: Tensor, index: int, label: Callable[[int], str]) -> ClassScore:
    """One class of `logits` [classes]."""
    return ClassScore(index, label(index), float(logits.detach().float().softmax(0)[index]))
