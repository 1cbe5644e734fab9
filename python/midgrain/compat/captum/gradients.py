"""captum's methods that differentiate with respect to the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from midgrain import driver
from midgrain.compat.captum.attribution import Arguments, Attribution, CaptumTarget
from midgrain.compat.captum.inputs import Inputs, one_baseline, one_input
from midgrain.ops.checks import check_bool
from midgrain.scorers.guided import GuidedReLUs
from midgrain.scorers.integrated import IntegratedGradients as Integral

__all__ = ["GuidedBackprop", "InputXGradient", "IntegratedGradients", "Saliency"]

_RULES = {"gausslegendre": "gauss-legendre", "riemann_middle": "midpoint", "riemann_trapezoid": "trapezium"}


class _Gradient(Attribution):
    """One gradient."""

    def gradient(self, x: Tensor, target: CaptumTarget, arguments: Arguments) -> Tensor:
        """Of the score with respect to x."""
        model = self.model(x, arguments)
        with driver.preserved(model, x):
            found = driver.input_gradient(model, x, self.targets(target)).gradient
        assert found is not None
        return found


class Saliency(_Gradient):
    """The gradient, or its magnitude.

    Example:
        >>> import torch
        >>> from midgrain.compat.captum import Saliency
        >>> model = torch.nn.Linear(3, 2)
        >>> attributions = Saliency(model).attribute(torch.rand(4, 3), target=1, abs=False)
        >>> torch.equal(attributions[0], model.weight[1])
        True
    """

    def attribute(
        self, inputs: Inputs, target: CaptumTarget = None, abs: bool = True, additional_forward_args: Arguments = None
    ) -> Any:
        """Attributions of the inputs' form and shape."""
        x, in_tuple = one_input(inputs)
        found = self.gradient(x, target, additional_forward_args)
        found = found.abs() if check_bool(abs, "abs") else found
        return (found,) if in_tuple else found


class InputXGradient(_Gradient):
    """The input times the gradient."""

    def attribute(self, inputs: Inputs, target: CaptumTarget = None, additional_forward_args: Arguments = None) -> Any:
        """Attributions of the inputs' form and shape."""
        x, in_tuple = one_input(inputs)
        found = x * self.gradient(x, target, additional_forward_args)
        return (found,) if in_tuple else found


class GuidedBackprop(Attribution):
    """Guided backpropagation; functional, reused and in-place ReLUs and ReLU6 count too, nothing is hooked."""

    def __init__(self, model: nn.Module):
        super().__init__(model)

    def attribute(self, inputs: Inputs, target: CaptumTarget = None, additional_forward_args: Arguments = None) -> Any:
        """Attributions of the inputs' form and shape.

        Raises:
            ValueError: the gradient met no ReLU.
        """
        x, in_tuple = one_input(inputs)
        model, relus = self.model(x, additional_forward_args), GuidedReLUs()
        with driver.preserved(model, x):
            found = driver.input_gradient(model, x, self.targets(target), relus.guide).gradient
        relus.check_any("GuidedBackprop")
        assert found is not None
        return (found,) if in_tuple else found


class IntegratedGradients(Attribution):
    """Integrated gradients.

    Args:
        forward_func: see `Attribution`.
        multiply_by_inputs: False leaves out the factor x - baseline.
    """

    def __init__(self, forward_func: Callable[..., Any], multiply_by_inputs: bool = True):
        super().__init__(forward_func)
        self.multiplies_by_inputs = check_bool(multiply_by_inputs, "multiply_by_inputs")

    def attribute(
        self,
        inputs: Inputs,
        baselines: Any = None,
        target: CaptumTarget = None,
        additional_forward_args: Arguments = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        """Attributions of the inputs' form and shape, and [B] how far their sum is off, where that is asked for.

        Args:
            inputs: floats [B, ...].
            baselines: None (0), a number, or a tensor that broadcasts to the inputs.
            target: see `CaptumTarget`.
            additional_forward_args: see `Arguments`.
            n_steps: gradients on the way.
            method: "gausslegendre", "riemann_middle" or "riemann_trapezoid", whose weights add up to 1 here.
            internal_batch_size: copies at once.
            return_convergence_delta: return the delta, too.

        Raises:
            TypeError, ValueError: an argument of the wrong kind or out of range.
        """
        x, in_tuple = one_input(inputs)
        if method not in _RULES:
            raise ValueError(f"method: expected one of {', '.join(_RULES)}, got {method!r}")
        if check_bool(return_convergence_delta, "return_convergence_delta") and not self.multiplies_by_inputs:
            raise ValueError("return_convergence_delta: expected False without the factor of the inputs")
        integral = Integral(one_baseline(baselines), n_steps, _RULES[method], batch_size=internal_batch_size)
        model = self.model(x, additional_forward_args)
        with driver.preserved(model, x):
            found, _, details = integral.attributions(
                model, x, self.targets(target), times_input=self.multiplies_by_inputs
            )
        attributions: Any = (found.to(x.dtype),) if in_tuple else found.to(x.dtype)
        if return_convergence_delta:
            return attributions, details["convergence_delta"].to(x.dtype)
        return attributions
