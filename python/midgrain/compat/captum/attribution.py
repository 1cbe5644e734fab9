"""What captum's classes share: inputs that may be tuples, targets in several forms, further arguments of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from midgrain import driver
from midgrain.driver import Target

__all__ = ["Arguments", "Attribution", "CaptumTarget", "Inputs", "one_baseline", "one_input", "refused"]

#: A tensor, or a tuple of one; what comes back has the same form.
Inputs: TypeAlias = Tensor | tuple[Tensor, ...]
#: None for a model of one score per sample; a class; one per sample; an index into a sample's output, or one each.
CaptumTarget: TypeAlias = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | None
#: What the model gets besides its input.
Arguments: TypeAlias = Any


class Attribution:
    """Base of the classes with captum's calls.

    Unlike there the model is explained in evaluation mode, and is afterwards in the mode it was in.

    Args:
        forward_func: the model, a callable from [B, ...] to outputs.
    """

    def __init__(self, forward_func: Callable[..., Any]):
        driver.check_model(forward_func)
        self.forward_func = forward_func

    def model(self, x: Tensor, arguments: Arguments) -> Any:
        """The model as a function of its first argument alone."""
        if arguments is None:
            return self.forward_func
        bound = arguments if isinstance(arguments, tuple) else (arguments,)
        return _Bound(self.forward_func, bound, len(x))

    def targets(self, target: CaptumTarget) -> Target:
        """The target as midgrain has it.

        Raises:
            TypeError: none of captum's forms.
        """
        if target is None:
            return _only_score
        if isinstance(target, Tensor):
            return int(target) if target.numel() == 1 and not target.is_floating_point() else target
        if isinstance(target, tuple):
            index = target
            return lambda outputs: _indexed(outputs, [index] * len(outputs))
        if isinstance(target, list) and target and all(isinstance(each, tuple) for each in target):
            places = [each for each in target if isinstance(each, tuple)]
            return lambda outputs: _indexed(outputs, places)
        return target  # type: ignore[return-value]


class _Bound(nn.Module):
    """A model with its further arguments."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], batch: int):
        super().__init__()
        self.function = function
        self.arguments = arguments
        self.batch = batch

    def forward(self, x: Tensor) -> Any:
        """The model's outputs."""
        of_samples = [each for each in self.arguments if isinstance(each, Tensor) and each.ndim and len(each) > 1]
        if len(x) != self.batch and any(len(each) == self.batch for each in of_samples):
            raise ValueError(
                "additional_forward_args: expected no tensors of a value per sample, since this method runs other "
                f"batches than the {self.batch} sample(s) given; explain one sample at a time"
            )
        return self.function(x, *self.arguments)


def one_input(inputs: Inputs, name: str = "inputs", ranks: tuple[int, ...] | None = None) -> tuple[Tensor, bool]:
    """The only tensor of the inputs, detached, and whether it came in a tuple.

    Raises:
        TypeError: no tensor of floats.
        ValueError: several tensors, an empty one, NaN or infinity, another number of axes.
    """
    in_tuple = isinstance(inputs, tuple)
    if isinstance(inputs, tuple):
        if len(inputs) != 1:
            raise ValueError(f"{name}: expected one tensor, got a tuple of {len(inputs)}; midgrain explains one input")
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
            raise ValueError(f"baselines: expected one, got a tuple of {len(baselines)}")
        (baselines,) = baselines
    return 0.0 if baselines is None else baselines


def refused(**given: Any) -> None:
    """Raises ValueError for parameters of captum's that are not offered, where one is not None or False."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise ValueError(f"{name}: expected it not to be given, it is not offered; got {value!r:.60}")


def _only_score(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor) or outputs.ndim == 0 or outputs.numel() != len(outputs):
        got = f"outputs {list(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"target: expected one for a model that returns more than a number per sample, got {got}")
    return outputs.reshape(len(outputs))


def _indexed(outputs: Any, places: list[tuple[int, ...]]) -> Tensor:
    if len(places) != len(outputs):
        raise ValueError(f"target: expected one per sample ({len(outputs)}), got {len(places)}")
    return torch.stack([output[place] for output, place in zip(outputs, places, strict=True)])
