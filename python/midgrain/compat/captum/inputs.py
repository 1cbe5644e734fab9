"""captum's forms of inputs and baselines, as midgrain takes them; its parameters that are not offered."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["IMAGES_AND_CLIPS", "Inputs", "one_baseline", "one_input", "refused"]

#: A tensor, or a tuple of one; what comes back has the same form.
Inputs: TypeAlias = Tensor | tuple[Tensor, ...]
#: How many axes pictures and clips have.
IMAGES_AND_CLIPS = (4, 5)


def one_input(inputs: Inputs, name: str = "inputs", ranks: tuple[int, ...] | None = None) -> tuple[Tensor, bool]:
    """The only tensor of the inputs, detached, and whether it came in a tuple.

    Raises:
        TypeError: no tensor of floats.
        ValueError: several tensors, an empty one, NaN or infinity, another number of axes.
    """
    in_tuple = isinstance(inputs, tuple)
    if isinstance(inputs, tuple):
        if len(inputs) != 1:
            raise ValueError(
                f"{name}: expected one tensor, got a tuple of {len(inputs)}; pass the others as additional_forward_args"
            )
        (inputs,) = inputs
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        got = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TypeError(f"{name}: expected a tensor of floats, got {got}")
    if inputs.ndim < 2 or 0 in inputs.shape or (ranks is not None and inputs.ndim not in ranks):
        wanted = "[B, ...]" if ranks is None else "[B, C, H, W] or [B, C, T, H, W]"
        raise ValueError(f"{name}: expected {wanted} without empty axes, got shape {list(inputs.shape)}")
    if not torch.isfinite(inputs.detach()).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    return inputs.detach(), in_tuple


def one_baseline(baselines: Any) -> Any:
    """0, a number or a tensor, from what may be None or in a tuple.

    Raises:
        ValueError: several.
    """
    if isinstance(baselines, tuple):
        if len(baselines) != 1:
            raise ValueError(f"baselines: expected one, got a tuple of {len(baselines)}; call it once for each")
        (baselines,) = baselines
    return 0.0 if baselines is None else baselines


def refused(name: str, value: Any, instead: str) -> None:
    """Raises ValueError for a parameter of captum's that is not offered, unless it is None or False."""
    if value is not None and value is not False:
        raise ValueError(f"{name}: expected it not to be given, it is not offered; {instead}; got {value!r:.60}")
