"""What captum's classes share: a model with further arguments, targets in several forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from midgrain import driver
from midgrain.compat.absent import Refusing
from midgrain.driver import Target

__all__ = ["Arguments", "Attribution", "CaptumTarget"]

#: None for a model of one score per sample; a class; one per sample; an index into a sample's output, or one each.
CaptumTarget: TypeAlias = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | None
#: What the model gets besides its input.
Arguments: TypeAlias = Any

_DELTA = "IntegratedGradients' attribute has return_convergence_delta=True"


class Attribution(Refusing):
    """Base of the classes with captum's calls.

    Unlike there the model is explained in evaluation mode, and is afterwards in the mode it was in.

    Args:
        forward_func: the model, a callable from [B, ...] to outputs.
    """

    _instead = {  # noqa: RUF012 - annotated in the base class
        "attribute_future": "use attribute",
        "compute_convergence_delta": _DELTA,
        "get_name": "use type(method).__name__",
        "has_convergence_delta": _DELTA,
        "kernel_shap_perturb_generator": "use attribute with n_samples",
        "kernel_shap_similarity_kernel": "use attribute with n_samples",
    }

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


def _only_score(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor) or outputs.ndim == 0 or outputs.numel() != len(outputs):
        got = f"outputs {list(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"target: expected one for a model that returns more than a number per sample, got {got}")
    return outputs.reshape(len(outputs))


def _indexed(outputs: Any, places: list[tuple[int, ...]]) -> Tensor:
    if len(places) != len(outputs):
        raise ValueError(f"target: expected one per sample ({len(outputs)}), got {len(places)}")
    return torch.stack([output[place] for output, place in zip(outputs, places, strict=True)])
