"""What all explainers share: a model, how its inputs were normalised, one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from midgrain import driver
from midgrain.driver import Target
from midgrain.explanation import Explanation
from midgrain.normalisation import Normalisation
from midgrain.ops.deferred import can_read, deferred_on_device, numbers_of, report

if TYPE_CHECKING:
    from midgrain.compiled import CompiledExplainer

__all__ = ["Explainer", "ManyPassExplainer", "ScorerExplainer", "check_scores", "to_uint8"]


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
        self.model = model
        self._normalisation = Normalisation(mean, std)

    def __call__(self, x: Tensor, target: Target = None) -> Explanation:
        """Explain a batch.

        Args:
            x: floats [B, 3, H, W] or [B, 3, T, H, W], normalised as the model expects.
            target: None (each sample's predicted class), a class, one per sample, or a callable from the model's
                outputs to one score per sample [B].

        Raises:
            TypeError, ValueError: see `midgrain.driver`; NaN or infinity in the input or the gradient.
        """
        with deferred_on_device(x):
            x = driver.check_input(x)
            with driver.preserved(self.model, x):
                return self._explain(x, target)

    def _explain(self, x: Tensor, target: Target) -> Explanation:
        raise NotImplementedError

    def compile(self, example: Tensor, target: Target = None) -> CompiledExplainer:
        """Record the whole work on a GPU, network included, for one shape of input, and replay it with every call.

        A replay spares the time that a CPU needs to start some hundred operations, which is more than a GPU needs to
        carry them out for single pictures and clips. Results equal those of the explainer itself. Where the work
        cannot be recorded (on the CPU; a network or method that looks at values on its way), the explainer itself
        answers, and `reason` says why.

        Args:
            example: an input as `__call__` takes it; later inputs have its shape, dtype and device.
            target: a target as later ones will be: None, classes, or the same callable. Others are recorded when
                they come.

        Raises:
            TypeError, ValueError: see `__call__`; it is called once with the example.

        Example:
            >>> import torch, midgrain as mg
            >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
            ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
            >>> device = "cuda" if mg.build_info()["cuda"]["usable"] else "cpu"
            >>> x = torch.rand(1, 3, 64, 64, device=device)
            >>> swag = mg.SWAG(model.to(device), n_segments=50).compile(x)
            >>> swag(x).heatmap.shape
            torch.Size([1, 64, 64])
        """
        from midgrain.compiled import CompiledExplainer

        return CompiledExplainer(self, example, target)

    def normalisation(self, x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """(mean, std), one number per colour channel of x; None unless x has one or three channels."""
        return self._normalisation.of(x)

    def rgb(self, x: Tensor) -> Tensor | None:
        """The picture behind x, float32 [B, 3, *S] in 0 .. 1; None unless x has one or three channels."""
        return self._normalisation.rgb(x)


class ManyPassExplainer(Explainer):
    """Base of the explainers that ask the network about many altered inputs: all targets share the passes."""

    def several(self, x: Tensor, targets: Sequence[Target]) -> list[Explanation]:
        """Explain several targets of the same batch with the passes of one.

        Args:
            x: see `__call__`.
            targets: each as in `__call__`.

        Returns:
            One explanation for each target, the same as from a call of its own but for rounding.

        Raises:
            TypeError, ValueError: see `__call__`; no targets.
        """
        with deferred_on_device(x):
            x = driver.check_input(x)
            if not isinstance(targets, list | tuple):
                raise TypeError(f"targets: expected a list of targets, got {type(targets).__name__}")
            if not targets:
                raise ValueError("targets: expected at least one target, got none")
            with driver.preserved(self.model, x):
                return self._explain_all(x, targets)

    def _explain(self, x: Tensor, target: Target) -> Explanation:
        return self._explain_all(x, [target])[0]

    def _explain_all(self, x: Tensor, targets: Sequence[Target]) -> list[Explanation]:
        raise NotImplementedError


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
            details=score.details,
            image=to_uint8(self.rgb(x)),
        )


def check_scores(maps: Tensor) -> None:
    """Raises ValueError where a network's gradient turned into NaN or infinity."""
    if can_read(maps) and torch.isfinite(maps.sum()):  # Cheaper, and never so where a value is not.
        return
    report(
        ~torch.isfinite(maps.reshape(maps.shape[0], -1)).all(1),
        lambda bad: ValueError(
            f"model: its scores or gradients hold NaN or infinity for sample(s) {numbers_of(bad)}; half precision or "
            "unscaled weights are the usual cause"
        ),
    )


def to_uint8(picture: Tensor | None, *, overwrite: bool = False) -> Tensor | None:
    """[B, 3, *S] in 0 .. 1 -> uint8 [B, *S, 3].

    Args:
        picture: None stays None.
        overwrite: it is not needed any more; working in its memory spares a copy, for clips half a millisecond.
    """
    if picture is None:
        return None
    levels = picture.mul_(255.0) if overwrite and picture.is_contiguous() else picture * 255.0
    return levels.round_().to(torch.uint8).movedim(1, -1)
