"""captum's occlusion."""

from __future__ import annotations

from typing import Any

import torch

from midgrain.compat.captum.attribution import Arguments, CaptumTarget
from midgrain.compat.captum.inputs import Inputs, one_input
from midgrain.compat.captum.perturbations import Hiding
from midgrain.masking.windows import Windows
from midgrain.ops.checks import check_int

__all__ = ["Occlusion"]


class Occlusion(Hiding):
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


def _per_axis(value: Any, name: str, size: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], tuple):
        (value,) = value
    numbers = (value,) * len(size) if isinstance(value, int) else value
    if not isinstance(numbers, tuple | list) or len(numbers) != len(size):
        raise ValueError(f"{name}: expected one number per axis of {size}, got {value}")
    return tuple(check_int(number, name, 1) for number in numbers)
