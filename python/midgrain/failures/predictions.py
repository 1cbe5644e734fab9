"""What a network predicts for samples whose class is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from midgrain import driver
from midgrain.network.altered import probabilities

__all__ = ["Predictions", "predictions", "read_predictions"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """One pass over a batch."""

    #: int64 [B].
    true_class: Tensor
    #: The class of the highest logit, int64 [B].
    predicted: Tensor
    #: Of the true class: softmax probability and logit, float32 [B].
    probability: Tensor
    logit: Tensor

    @property
    def correct(self) -> Tensor:
        """Bool [B]."""
        return self.predicted == self.true_class


def predictions(model: Any, x: Tensor, true_class: int | Sequence[int] | Tensor) -> Predictions:
    """One forward pass; call it inside `driver.preserved`.

    Raises:
        TypeError, ValueError: no classes, or out of range; a network that gives no logits.
    """
    if true_class is None or callable(true_class):
        raise TypeError(f"true_class: expected a class or one per sample, got {type(true_class).__name__}")
    try:
        found = driver.forward(model, x, true_class)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("target:", "true_class:", 1)) from error
    assert found.target is not None
    assert found.outputs is not None
    return read_predictions(found.outputs, found.target)


def read_predictions(outputs: Tensor, true_class: Tensor) -> Predictions:
    """What logits [B, classes] say, for classes int64 [B]."""
    own = true_class[:, None]
    return Predictions(
        true_class,
        outputs.argmax(1),
        probabilities(outputs).gather(1, own)[:, 0].float(),
        outputs.gather(1, own)[:, 0].float(),
    )
