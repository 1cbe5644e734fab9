"""Runs a user's model for an explanation and leaves it as it was.

Every explainer passes its forward and backward passes through here, so that what is promised about the model
(mode, flags, gradients, random state, hooks) is kept in one place.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from midgrain.ops.arrays import is_integral
from midgrain.ops.deferred import can_read, numbers_of, report
from midgrain.stopwatch import network_pass

__all__ = [
    "Pass",
    "Target",
    "check_input",
    "check_model",
    "class_tensor",
    "forward",
    "input_gradient",
    "preserved",
    "read_outputs",
    "resolve_target",
]

#: None (each sample's predicted class), a class, one class per sample, or `outputs -> scores [B]`.
Target: TypeAlias = int | Sequence[int] | Tensor | Callable[[Any], Tensor] | None


@dataclass(frozen=True)
class Pass:
    """What one pass through the model gave."""

    #: Classes explained, int64 [B]; None where the target is a callable.
    target: Tensor | None
    #: The model's outputs, detached, [B, classes]; None where they are no such tensor.
    outputs: Tensor | None
    #: d score / d input, the input's shape; None after a forward pass only.
    gradient: Tensor | None = None


def check_model(model: object) -> None:
    """Raises TypeError unless `model` can be called."""
    if not callable(model):
        raise TypeError(f"model: expected a torch.nn.Module or another callable, got {type(model).__name__}")


def check_input(x: object) -> Tensor:
    """The input as every explainer takes it: finite floats [B, C, H, W] or [B, C, T, H, W].

    Raises:
        TypeError: not a dense floating-point torch tensor.
        ValueError: another rank, an empty axis, NaN or infinity.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a torch tensor [B, 3, H, W] or [B, 3, T, H, W], got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"x: expected floats, normalised as the model expects, got dtype {x.dtype}")
    if x.layout is not torch.strided:
        raise TypeError(f"x: expected a dense tensor, got layout {x.layout}")
    if x.ndim not in (4, 5):
        hint = "; add the batch axis with x[None]" if x.ndim == 3 else ""
        raise ValueError(f"x: expected [B, 3, H, W] or [B, 3, T, H, W], got shape {list(x.shape)}{hint}")
    if 0 in x.shape:
        raise ValueError(f"x: expected no empty axis, got shape {list(x.shape)}")
    # The sum is cheap and is not finite where any value is not; it may also overflow.
    if not can_read(x) or not torch.isfinite(x.detach().sum()):
        report(
            ~torch.isfinite(x.detach()).all(), lambda _: ValueError("x: expected finite values, got NaN or infinity")
        )
    return x


class _EagerCode:
    """Compiled models run their original Python code while any thread is inside.

    The compiler's stance belongs to the process: the first thread in sets it, the last one out puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._stance: AbstractContextManager[Any] = nullcontext()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._stance = torch.compiler.set_stance("force_eager")
                self._stance.__enter__()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._stance.__exit__(None, None, None)


_eager_code = _EagerCode()


class _Evaluation:
    """Modules that train are in evaluation mode while any thread needs them so; the last one out puts them back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[nn.Module, int] = {}

    @contextmanager
    def of(self, modules: Sequence[nn.Module]) -> Iterator[None]:
        """Evaluation mode for these modules."""
        with self._lock:
            mine = [module for module in modules if module.training or module in self._users]
            for module in mine:
                self._users[module] = self._users.get(module, 0) + 1
                module.training = False
        try:
            yield
        finally:
            with self._lock:
                for module in mine:
                    self._users[module] -= 1
                    if not self._users[module]:
                        del self._users[module]
                        module.training = True


_evaluation = _Evaluation()


@contextmanager
def preserved(model: Any, x: Tensor) -> Iterator[None]:
    """Evaluation mode with gradients enabled, everything put back at the end, also after an exception.

    Only the modules' `training` flags are set, one by one: `model.eval()` may be overridden and would not know the
    way back. Compiled models run their original Python code, where gradients can be intercepted.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    devices = [x.device] if x.is_cuda else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if "torch._dynamo" in sys.modules:  # Otherwise nothing can have been compiled.
            stack.enter_context(_eager_code)
        if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
            # TorchScript fuses operators from its second run on, ReLUs among them.
            stack.enter_context(torch.jit.optimized_execution(False))  # type: ignore[attr-defined]
        stack.enter_context(_evaluation.of(modules))
        yield


@network_pass
def forward(model: Any, x: Tensor, target: Target) -> Pass:
    """One forward pass without gradients; call it inside `preserved`."""
    with torch.no_grad():
        outputs = model(x.detach().clone())
        return read_outputs(outputs, target, x.shape[0])


def read_outputs(outputs: Any, target: Target, batch: int) -> Pass:
    """What a pass without gradients gave, for one of the targets that can be read from it.

    Raises:
        TypeError, ValueError: see `resolve_target`.
    """
    classes, _ = resolve_target(outputs, target, batch)
    return Pass(classes, _detached_logits(outputs))


@network_pass
def input_gradient(
    model: Any,
    x: Tensor,
    target: Target,
    around_backward: Callable[[Tensor], AbstractContextManager[Any]] | None = None,
) -> Pass:
    """One forward and one backward pass to the input; call it inside `preserved`.

    Only the input's gradient is computed: parameters keep their `.grad` and `requires_grad`.

    Args:
        model: the model.
        x: its input.
        target: what to explain.
        around_backward: from the sum of the scores to a context that its backward pass is run in.

    Raises:
        TypeError, ValueError: see `resolve_target`; the output does not depend on the input.
    """
    leaf = x.detach().clone().requires_grad_(True)
    # The model gets a tensor that is no leaf, so that it may work on it in place.
    outputs = model(leaf.clone())
    classes, scores = resolve_target(outputs, target, x.shape[0])
    if not scores.requires_grad:
        raise ValueError(
            "model: its output cannot be differentiated with respect to the input; does it detach, run under "
            "no_grad, or return a constant?"
        )
    total = scores.sum()
    with around_backward(total) if around_backward else nullcontext():
        (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
    if gradient is None:
        raise ValueError("model: the explained score does not depend on the input")
    return Pass(classes, _detached_logits(outputs), gradient.detach())


def resolve_target(outputs: Any, target: Target, batch: int) -> tuple[Tensor | None, Tensor]:
    """The classes meant by `target` and their scores.

    Args:
        outputs: what the model returned.
        target: see `Target`.
        batch: B.

    Returns:
        classes: int64 [B], None for a callable target.
        scores: [B], part of the autograd graph.

    Raises:
        TypeError: the model returned no tensor (a tuple, say) and no callable picks from it; a target of a wrong kind.
        ValueError: outputs that are not [B, classes], a class out of range, the wrong number of targets, scores that
            are NaN or infinite.
    """
    if callable(target):
        scores = target(outputs)
        if not isinstance(scores, Tensor):
            raise TypeError(f"target: expected the callable to return a tensor [B], got {type(scores).__name__}")
        if list(scores.shape) != [batch]:
            raise ValueError(f"target: expected the callable to return shape [{batch}], got {list(scores.shape)}")
        if scores.is_complex():
            raise TypeError(f"target: expected the callable to return real numbers, got dtype {scores.dtype}")
        return None, _finite(scores)
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"model: expected it to return a tensor of logits [B, classes], got {type(outputs).__name__}; pass "
            "target=, a callable from these outputs to one score per sample"
        )
    if outputs.ndim != 2 or outputs.shape[0] != batch or outputs.shape[1] == 0 or outputs.is_complex():
        raise ValueError(
            f"model: expected real logits of shape [{batch}, classes], got {list(outputs.shape)} of {outputs.dtype}; "
            "pass target=, a callable from these outputs to one score per sample"
        )
    classes = outputs.detach().argmax(1) if target is None else class_tensor(target, batch, outputs.shape[1])
    classes = classes.to(outputs.device)
    return classes, _finite(outputs.gather(1, classes[:, None])[:, 0])


def _finite(scores: Tensor) -> Tensor:
    report(
        ~torch.isfinite(scores.detach()),
        lambda bad: ValueError(
            f"model: the explained score is NaN or infinite for sample(s) {numbers_of(bad)}; half precision or "
            "untrained weights are the usual cause"
        ),
    )
    return scores


def class_tensor(target: Any, batch: int, n_classes: int) -> Tensor:
    """The classes that a target names, int64 [B], on its own device.

    Args:
        target: a class, or one per sample.
        batch: B.
        n_classes: how many there are.

    Raises:
        TypeError, ValueError: see `resolve_target`.
    """
    if isinstance(target, int) and not 0 <= target < n_classes:
        raise ValueError(f"target: expected classes in 0 .. {n_classes - 1}, got {target}")
    if isinstance(target, np.bool_):  # Older torch would take it for an integer.
        raise TypeError("target: expected integers, got dtype torch.bool")
    try:
        classes = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"target: expected a class, one per sample or a callable, got {type(target).__name__}"
        ) from error
    if list(classes.shape) not in ([], [batch]):
        raise ValueError(f"target: expected one class per sample ([{batch}]), got shape {list(classes.shape)}")
    if not is_integral(classes):
        raise TypeError(f"target: expected integers, got dtype {classes.dtype}")
    classes = classes.to(torch.int64).expand(batch)
    if classes.is_inference():  # Autograd would refuse to save it.
        classes = classes.clone()

    def outside(_: list[int]) -> Exception:
        low, high = int(classes.min()), int(classes.max())
        return ValueError(f"target: expected classes in 0 .. {n_classes - 1}, got {low if low < 0 else high}")

    report((classes < 0) | (classes >= n_classes), outside)
    # Where the check is looked at later, nothing may be read outside until then.
    return classes if can_read(classes) else classes.clamp(0, n_classes - 1)


def _detached_logits(outputs: Any) -> Tensor | None:
    return outputs.detach() if isinstance(outputs, Tensor) and outputs.ndim == 2 else None
