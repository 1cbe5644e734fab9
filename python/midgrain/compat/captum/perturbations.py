"""captum's methods that hide parts of the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from midgrain import driver
from midgrain.baseline import make_baseline
from midgrain.compat.captum.attribution import Arguments, Attribution, CaptumTarget, Inputs, one_baseline, one_input
from midgrain.masking.windows import Windows
from midgrain.network.probe import MakeInputs, Probe
from midgrain.ops.checks import check_bool, check_int
from midgrain.progress import progress_bar

__all__ = ["FeatureAblation", "Occlusion"]


class _Hiding(Attribution):
    """Hides one part after the other."""

    def drops(
        self,
        x: Tensor,
        masks: MakeInputs,
        wanted: Tensor,
        baselines: Any,
        target: CaptumTarget,
        arguments: Arguments,
        at_once: int,
        progress: bool,
    ) -> Tensor:
        """How much the score falls, float64 [B, J].

        Args:
            x: the input.
            masks: from a sample and numbers of parts to bool [n, C, *S], true where hidden.
            wanted: bool [B, J], which parts of which samples.
            baselines: what stands where something is hidden.
            target: see `CaptumTarget`.
            arguments: see `Arguments`.
            at_once: copies in one pass.
            progress: show a bar.
        """
        hidden = make_baseline(one_baseline(baselines), x)
        model, at_once = self.model(x, arguments), check_int(at_once, "perturbations_per_eval", 1)

        def make(sample: int, numbers: Any) -> Tensor:
            return torch.where(masks(sample, numbers), hidden[sample], x[sample])

        with driver.preserved(model, x):
            probe = Probe(model, x, [self.targets(target)], output="logit", batch_size=at_once)
            shown = check_bool(progress, "show_progress")
            with progress_bar("hiding parts", int(wanted.sum()), shown=shown) as advance:
                scores = probe.scores(make, wanted, advance)[0]
        return (probe.unaltered[0][:, None] - scores).where(wanted.to(scores.device), 0.0)


class FeatureAblation(_Hiding):
    """How much the score falls without each feature.

    Example:
        >>> import torch
        >>> from midgrain.compat.captum import FeatureAblation
        >>> model = torch.nn.Flatten()
        >>> FeatureAblation(model).attribute(torch.ones(1, 1, 2, 2), target=3).flatten()
        tensor([0., 0., 0., 1.])
    """

    def attribute(
        self,
        inputs: Inputs,
        baselines: Any = None,
        target: CaptumTarget = None,
        additional_forward_args: Arguments = None,
        feature_mask: Any = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> Any:
        """Attributions of the inputs' form and shape.

        Args:
            inputs: floats [B, ...].
            baselines: None (0), a number, or a tensor that broadcasts to the inputs.
            target: see `CaptumTarget`.
            additional_forward_args: see `Arguments`.
            feature_mask: integers that broadcast to the inputs: which feature each value belongs to; None makes every
                value one of its own.
            perturbations_per_eval: features at once.
            show_progress: show a bar.

        Raises:
            TypeError, ValueError: an argument of the wrong kind or out of range.
        """
        x, in_tuple = one_input(inputs)
        features = _features(feature_mask, x)
        count = int(features.max()) + 1
        wanted = torch.zeros(len(x), count, dtype=torch.bool, device=x.device)
        wanted.scatter_(1, features.flatten(1), True)

        def masks(sample: int, numbers: Any) -> Tensor:
            chosen = torch.tensor(list(numbers), device=x.device).reshape(-1, *[1] * (x.ndim - 1))
            return features[sample] == chosen

        drops = self.drops(
            x, masks, wanted, baselines, target, additional_forward_args, perturbations_per_eval, show_progress
        )
        found = drops.to(x.device).gather(1, features.flatten(1)).reshape(x.shape).to(x.dtype)
        return (found,) if in_tuple else found


class Occlusion(_Hiding):
    """How much the score falls behind a sliding window; of several windows over a value the mean."""

    def attribute(
        self,
        inputs: Inputs,
        sliding_window_shapes: Any,
        strides: Any = None,
        baselines: Any = None,
        target: CaptumTarget = None,
        additional_forward_args: Arguments = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> Any:
        """Attributions of the inputs' form and shape.

        Args:
            inputs: floats [B, ...].
            sliding_window_shapes: one number per axis but the first.
            strides: likewise, or one for all; None is 1.
            baselines: None (0), a number, or a tensor that broadcasts to the inputs.
            target: see `CaptumTarget`.
            additional_forward_args: see `Arguments`.
            perturbations_per_eval: windows at once.
            show_progress: show a bar.

        Raises:
            TypeError, ValueError: an argument of the wrong kind or out of range; a stride longer than the window.
        """
        x, in_tuple = one_input(inputs)
        size = tuple(x.shape[1:])
        window = _per_axis(sliding_window_shapes, "sliding_window_shapes", size)
        stride = _per_axis(1 if strides is None else strides, "strides", size)
        for pixels, length, step in zip(size, window, stride, strict=True):
            if length > pixels:
                raise ValueError(f"sliding_window_shapes: expected at most {size}, got {window}")
            if step > length < pixels:
                raise ValueError(f"strides: expected at most the window's {window}, got {stride}")
        windows = Windows(size, window, stride, x.device)
        wanted = torch.ones(len(x), len(windows), dtype=torch.bool, device=x.device)
        drops = self.drops(
            x,
            lambda sample, numbers: windows.masks(numbers),
            wanted,
            baselines,
            target,
            additional_forward_args,
            perturbations_per_eval,
            show_progress,
        )
        found = windows.mean(drops.to(x.device)).to(x.dtype)
        return (found,) if in_tuple else found


def _features(feature_mask: Any, x: Tensor) -> Tensor:
    """Feature numbers from 0 on of every value, of x's shape."""
    if isinstance(feature_mask, tuple) and len(feature_mask) == 1:
        (feature_mask,) = feature_mask
    if feature_mask is None:
        return torch.arange(x[0].numel(), device=x.device).reshape(1, *x.shape[1:]).expand(x.shape)
    if not isinstance(feature_mask, Tensor) or feature_mask.is_floating_point():
        got = feature_mask.dtype if isinstance(feature_mask, Tensor) else type(feature_mask).__name__
        raise TypeError(f"feature_mask: expected a tensor of integers, got {got}")
    try:
        numbers = feature_mask.to(x.device).expand(x.shape)
    except RuntimeError:
        raise ValueError(
            f"feature_mask: expected a shape that broadcasts to {list(x.shape)}, got {list(feature_mask.shape)}"
        ) from None
    features: Tensor = torch.unique(numbers, return_inverse=True)[1]
    return features


def _per_axis(value: Any, name: str, size: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], tuple):
        (value,) = value
    numbers = (value,) * len(size) if isinstance(value, int) else value
    if not isinstance(numbers, tuple | list) or len(numbers) != len(size):
        raise ValueError(f"{name}: expected one number per axis of {size}, got {value}")
    return tuple(check_int(number, name, 1) for number in numbers)
