"""What all explainers share: a model, how its inputs were normalised, one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from midgrain import driver
from midgrain.driver import Target
from midgrain.explanation import Explanation

__all__ = ["Explainer", "ScorerExplainer"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_KINETICS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))


class Explainer:
    """Base of all explainers: checks the input, keeps the model as it was, knows the picture behind the input.

    Args:
        model: a network returning logits [B, classes] for x, or anything else with a callable target.
        mean: per channel, what was subtracted from RGB in 0 .. 1 when x was made; by default ImageNet's for images
            and Kinetics' for clips.
        std: per channel, what it was divided by.
    """

    name = ""

    def __init__(self, model: Any, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None):
        driver.check_model(model)
        if (mean is None) != (std is None):
            raise ValueError("mean, std: expected both or neither")
        self.model = model
        self.mean = _per_channel(mean, "mean")
        self.std = _per_channel(std, "std")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std: expected positive numbers, got {self.std}")

    def __call__(self, x: Tensor, target: Target = None) -> Explanation:
        """Explain a batch.

        Args:
            x: floats [B, 3, H, W] or [B, 3, T, H, W], normalised as the model expects.
            target: None (each sample's predicted class), a class, one per sample, or a callable from the model's
                outputs to one score per sample [B].

        Raises:
            TypeError, ValueError: see `midgrain.driver`; NaN or infinity in the input or the gradient.
        """
        x = driver.check_input(x)
        with driver.preserved(self.model, x):
            return self._explain(x, target)

    def _explain(self, x: Tensor, target: Target) -> Explanation:
        raise NotImplementedError

    def normalisation(self, x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """(mean, std), one number per colour channel of x; None unless x has one or three channels."""
        channels = x.shape[1]
        if channels not in (1, 3):
            return None
        default_mean, default_std = _IMAGENET if x.ndim == 4 else _KINETICS
        mean = self.mean or (default_mean if channels == 3 else (0.0,))
        std = self.std or (default_std if channels == 3 else (1.0,))
        if len(mean) not in (1, channels) or len(std) not in (1, channels):
            raise ValueError(
                f"mean, std: expected {channels} numbers for x with {channels} channels, got {mean}, {std}"
            )
        return mean * (channels // len(mean)), std * (channels // len(std))

    def rgb(self, x: Tensor) -> Tensor | None:
        """The picture behind x, float32 [B, 3, *S] in 0 .. 1; None unless x has one or three channels."""
        normalisation = self.normalisation(x)
        if normalisation is None:
            return None
        shape = [1, -1] + [1] * (x.ndim - 2)
        offset, scale = (
            torch.tensor(numbers, dtype=torch.float32, device=x.device).reshape(shape) for numbers in normalisation
        )
        picture = (x.detach().float() * scale).add_(offset).clamp_(0.0, 1.0)
        return picture.expand(-1, 3, *x.shape[2:])


class ScorerExplainer(Explainer):
    """A pixel scorer as an explainer: its map is the heat map."""

    def __init__(self, name: str, model: Any, scorer: Any, **normalisation: Any):
        super().__init__(model, **normalisation)
        self.name = name
        self.scorer = scorer

    def _explain(self, x: Tensor, target: Target) -> Explanation:
        score = self.scorer.score(self.model, x, target)
        check_scores(score.map)
        return Explanation(
            heatmap=score.map,
            method=self.name,
            target=score.result.target,
            outputs=score.result.outputs,
            cam=score.cam,
            image=to_uint8(self.rgb(x)),
        )


def check_scores(maps: Tensor) -> None:
    """Raises ValueError where a network's gradient turned into NaN or infinity."""
    if torch.isfinite(maps.sum()):  # Cheaper, and never so where a value is not.
        return
    finite = torch.isfinite(maps.reshape(maps.shape[0], -1)).all(1)
    if not finite.all():
        bad = (~finite).nonzero()[:, 0].tolist()
        raise ValueError(
            f"model: its scores or gradients hold NaN or infinity for sample(s) {bad}; half precision or unscaled "
            "weights are the usual cause"
        )


def to_uint8(picture: Tensor | None) -> Tensor | None:
    """[B, 3, *S] in 0 .. 1 -> uint8 [B, *S, 3]."""
    return None if picture is None else (picture * 255.0).round_().to(torch.uint8).movedim(1, -1)


def _per_channel(values: Sequence[float] | None, name: str) -> tuple[float, ...] | None:
    if values is None:
        return None
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected one number per channel, got {values!r}") from error
    if not numbers or not all(torch.isfinite(torch.tensor(numbers)).tolist()):
        raise ValueError(f"{name}: expected finite numbers, got {values!r}")
    return numbers
