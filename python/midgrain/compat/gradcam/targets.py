"""From grad-cam's targets, one callable per sample, to midgrain's, one for the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from midgrain.compat.gradcam.utils.model_targets import ClassifierOutputTarget
from midgrain.driver import Target

__all__ = ["SampleTarget", "as_target"]

#: From one sample's output to its score.
SampleTarget: TypeAlias = Callable[[Any], Tensor]


def as_target(targets: Sequence[SampleTarget] | None, batch: int, seen: list[Any] | None = None) -> Target:
    """Midgrain's target for grad-cam's: classes where that is what they say, else a callable.

    Args:
        targets: one callable per sample, from that sample's output to a scalar; None is the best class.
        batch: samples.
        seen: takes the outputs of the first pass that a callable is shown.

    Raises:
        TypeError: no sequence of callables.
        ValueError: not one for each sample.
    """
    if targets is None:
        return None
    if not isinstance(targets, Sequence) or not all(callable(each) for each in targets):
        raise TypeError(f"targets: expected a list of callables, one per sample, got {type(targets).__name__}")
    if len(targets) != batch:
        raise ValueError(
            f"targets: expected one per sample ({batch}), got {len(targets)}; repeat it: targets * {batch}"
        )
    classes = [_class_of(each) for each in targets]
    if all(number is not None for number in classes):
        return [number for number in classes if number is not None]

    def scores(outputs: Any) -> Tensor:
        if seen is not None and not seen:
            seen.append(_detached(outputs))
        if len(outputs) != batch:
            raise ValueError(f"model: expected one output per sample ({batch}) for `targets`, got {len(outputs)}")
        return torch.stack([_scalar(each(output)) for each, output in zip(targets, outputs, strict=True)])

    return scores


def _class_of(target: Any) -> int | None:
    """The class of a `ClassifierOutputTarget`, also of grad-cam's own; None for others."""
    kind = type(target)
    theirs = (kind.__module__, kind.__name__) == ("pytorch_grad_cam.utils.model_targets", "ClassifierOutputTarget")
    if not theirs and kind is not ClassifierOutputTarget:
        return None
    number = target.category
    if isinstance(number, Tensor) and number.numel() == 1:
        number = number.item()
    is_class = isinstance(number, int | np.integer) and not isinstance(number, bool) and number >= 0
    return int(number) if is_class else None


def _scalar(score: Any) -> Tensor:
    if not isinstance(score, Tensor) or score.numel() != 1:
        got = f"shape {list(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
        raise ValueError(f"targets: expected each to return a scalar tensor, got {got}")
    return score.reshape(())


def _detached(outputs: Any) -> Any:
    return pytree.tree_map_only(Tensor, Tensor.detach, outputs)
