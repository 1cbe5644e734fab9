"""Every bias that a network adds to its features, said or implied, and what the explained score makes of it."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["BiasTerm", "Biases"]

# Operations by their names in torch, torch.nn.functional and torch.ops.aten, and as methods of tensors.
_CONVOLUTIONS = frozenset({f"conv{transposed}{n}d" for transposed in ("", "_transpose") for n in (1, 2, 3)})
# f(c x) = c f(x) for c > 0 and f differentiable there: by Euler's theorem f(x) = f'(x) x, with nothing left over.
# Operations that are not named are looked at in full, so that this is about speed alone.
_HOMOGENEOUS = frozenset(
    {
        *("relu", "leaky_relu", "prelu", "abs", "neg", "norm"),
        *(f"{kind}_pool{n}d" for kind in ("max", "avg", "lp") for n in (1, 2, 3)),
        *(f"adaptive_{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)),
        *(f"dropout{n}" for n in ("", "1d", "2d", "3d")),
        *("alpha_dropout", "feature_dropout", "feature_alpha_dropout"),
        *("mean", "sum", "amax", "amin", "cumsum", "clone", "contiguous", "to", "type", "float", "half", "bfloat16"),
        *(
            "double",
            "type_as",
            "view",
            "view_as",
            "reshape",
            "reshape_as",
            "flatten",
            "unflatten",
            "permute",
            "transpose",
            "t",
        ),
        *("movedim", "moveaxis", "swapaxes", "swapdims", "expand", "expand_as", "repeat", "repeat_interleave", "tile"),
        *("squeeze", "unsqueeze", "chunk", "split", "tensor_split", "unbind", "narrow", "select", "index_select"),
        *("gather", "roll", "flip", "unfold", "fold", "interpolate", "upsample", "pixel_shuffle", "pixel_unshuffle"),
        *("channel_shuffle", "__getitem__", "__get__", "size", "dim", "numel", "stride", "is_contiguous"),
        *("is_floating_point", "detach", "requires_grad_", "register_hook", "retain_grad", "argmax"),
    }
)
# What comes out depends on the first argument alone; of others only the shape or dtype counts.
_OF_THE_FIRST = frozenset({"expand_as", "view_as", "reshape_as", "to", "type_as"})
_SUMS = frozenset({"add", "sub", "cat", "concat", "concatenate", "stack"})
_PRODUCTS = frozenset({"mul", "matmul", "mm", "bmm", "div"})


@dataclass(frozen=True, eq=False)
class BiasTerm:
    """What one operation adds to what is linear in its inputs."""

    node: Any
    #: Which output of the node of the autograd graph it is.
    output: int
    #: Broadcasts to the output's shape.
    bias: Tensor
    #: The operation, by its name in torch.
    operation: str
    #: Sizes of the maps that were there before, latest last.
    grids: tuple[tuple[int, ...], ...]


class Biases(TorchFunctionMode):
    """While active, in this thread, notes the bias of every operation that the network's features pass.

    Where an operation gives z for inputs a, linearised as z = J a + b, its bias is b = z - J a: that of a convolution
    or a linear layer, beta - gamma * mean / sqrt(var + eps) of a batch norm, a constant that is added, 6 where a ReLU6
    is saturated, and what bends in other functions ("implicit biases", Srinivas and Fleuret 2019). With all of them
    counted, score = sum of x * gradient + sum of all b * gradient, whatever the network.

    Not seen: operations of TorchScript, of custom autograd functions, and of reentrant checkpoints.

    Args:
        implicit: False notes biases of convolutions, linear layers and batch norms, and constants that are added,
            alone.
    """

    def __init__(self, implicit: bool = True) -> None:
        super().__init__()
        self.implicit = implicit
        self.terms: list[BiasTerm] = []
        self._grids: tuple[tuple[int, ...], ...] = ()
        # Tensors that depend on parameters but not on the input -> their version then.
        self._constants: Any = WeakTensorKeyDictionary()

    @contextmanager
    def attributed(self, consume: Callable[[BiasTerm, Tensor], None]) -> Iterator[None]:
        """While active, a backward pass hands every term and its bias times gradient, in float32 or wider, on.

        One at a time: the gradients of all layers are never held together.
        """

        def hand_on(term: BiasTerm, gradients: Sequence[Tensor | None]) -> None:
            gradient = gradients[term.output]
            if gradient is not None:
                wide = torch.promote_types(gradient.dtype, torch.float32)
                consume(term, gradient.detach().to(wide) * term.bias.to(wide))

        handles = [term.node.register_prehook(partial(hand_on, term)) for term in self.terms]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, _name(func)
        counting = args[:1] if name in _OF_THE_FIRST else (args, kwargs)
        tensors = [leaf for leaf in pytree.tree_leaves(counting) if isinstance(leaf, Tensor)]
        active = [tensor for tensor in tensors if self._is_active(tensor)]
        if not active or not torch.is_grad_enabled():
            made = func(*args, **kwargs)
            self._note_constants(made)
            return made
        known = _known_bias(func, name, args, kwargs, active)
        if known.is_known or _leaves_nothing(name, args, tensors, active):
            made = func(*args, **kwargs)
            if name in _CONVOLUTIONS:
                self._note_grid(made.shape[2:])
            if known.bias is not None:
                axes = 0 if name == "linear" else made.ndim - 2
                self._note(made, known.bias.reshape(-1, *[1] * axes), name)
            return made
        rest = self._rest(func, args, kwargs) if self.implicit or name in _SUMS else None
        made = func(*args, **kwargs)
        if rest is not None:
            for output, bias in zip(pytree.tree_leaves(made), rest, strict=True):
                if bias is not None:
                    self._note(output, bias, name)
        return made

    def _is_active(self, tensor: Tensor) -> bool:
        """Does it depend on the input, as far as gradients tell?"""
        if not tensor.requires_grad or tensor.is_leaf:
            return False
        return bool(self._constants.get(tensor) != tensor._version)

    def _note_constants(self, made: Any) -> None:
        for leaf in pytree.tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.requires_grad and not leaf.is_leaf:
                self._constants[leaf] = leaf._version

    def _note_grid(self, grid: Sequence[int]) -> None:
        if tuple(grid) != (self._grids or ((),))[-1]:
            self._grids = (*(each for each in self._grids if each != tuple(grid)), tuple(grid))

    def _note(self, output: Any, bias: Tensor, operation: str) -> None:
        if isinstance(output, Tensor) and output.grad_fn is not None and bool(bias.any()):
            edge = get_gradient_edge(output)
            self.terms.append(BiasTerm(edge.node, edge.output_nr, bias, operation, self._grids))

    def _rest(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[Tensor | None] | None:
        """Of every output z its z - J a; None where torch cannot tell."""

        def dual(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            # A copy of all but weights: the operation may work in place.
            values = leaf.detach() if isinstance(leaf, nn.Parameter) else leaf.detach().clone()
            return forward_ad.make_dual(values, values.clone()) if self._is_active(leaf) else values

        _load_derivatives()
        try:
            # Fused attention has no forward-mode derivative.
            with torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
                args, kwargs = pytree.tree_map(dual, (args, kwargs))
                return [_beyond_linear(leaf) for leaf in pytree.tree_leaves(func(*args, **kwargs))]
        except RuntimeError:  # NotImplementedError among them. An error of the network's own comes once more.
            return None


@cache
def _load_derivatives() -> None:
    """What torch's forward mode imports when it is first used, without the warnings of that import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def _beyond_linear(output: Any) -> Tensor | None:
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None
    dual = forward_ad.unpack_dual(output)
    values: Tensor = dual.primal.clone() if dual.tangent is None else dual.primal - dual.tangent
    return values


def _name(func: Callable[..., Any]) -> str:
    """The operation's name, without overload and the mark of working in place."""
    name: str = getattr(func, "__name__", "").partition(".")[0]
    return name if name.startswith("__") else name.rstrip("_")


@dataclass(frozen=True)
class _Known:
    """Is an operation's bias known without looking, and what is it, one number per channel?"""

    is_known: bool
    bias: Tensor | None = None


def _known_bias(
    func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any], active: Sequence[Tensor]
) -> _Known:
    """That of a convolution, a linear layer or a batch norm."""
    if not args or len(active) != 1 or args[0] is not active[0]:
        return _Known(False)
    if name in _CONVOLUTIONS or name == "linear":
        weight = kwargs.get("weight", args[1] if len(args) > 1 else None)
        bias = kwargs.get("bias", args[2] if len(args) > 2 else None)
        if name != "linear" and (not isinstance(weight, Tensor) or args[0].ndim != weight.ndim):
            return _Known(False)  # A convolution of a single sample.
        return _Known(True, None if bias is None else bias.detach())
    if func is F.batch_norm:
        folded = _batch_norm_bias(*args, **kwargs)
        return _Known(folded is not None, folded)
    return _Known(False)


def _batch_norm_bias(
    values: Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: Any = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Of `torch.nn.functional.batch_norm` with these arguments; None where it uses the batch's own statistics."""
    if training or not isinstance(running_mean, Tensor) or not isinstance(running_var, Tensor):
        return None
    scale = (running_var.detach() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.detach()
    folded = -running_mean.detach() * scale
    return folded if bias is None else folded + bias.detach()


def _leaves_nothing(name: str, args: tuple[Any, ...], tensors: Sequence[Tensor], active: Sequence[Tensor]) -> bool:
    """Is an operation known to be homogeneous in its active inputs?"""
    if name in _SUMS:
        return len(active) == len(tensors) and (isinstance(args[0], list | tuple) or len(tensors) == 2)
    if name in _PRODUCTS:
        return len(active) == 1 and (name != "div" or args[0] is active[0])
    return name in _HOMOGENEOUS
