"""Where everything that a network makes of its input passes through a single tensor."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from midgrain.driver import Target, resolve_target
from midgrain.network.capture import told_clearly
from midgrain.network.trace import hooked, tensors_of

__all__ = ["Narrow", "narrows"]

# Nodes of the autograd graph, by their names without "Backward" and number.
_ACTIVATIONS = frozenset(
    {
        *("Relu", "Threshold", "Hardtanh", "Clamp", "ClampMin", "LeakyRelu", "Prelu", "PreluKernel", "RreluWithNoise"),
        *("Elu", "Celu", "Selu", "Gelu", "Silu", "Mish", "Softplus", "Hardswish", "Tanh", "Sigmoid", "Hardsigmoid"),
    }
)
_MERGES = frozenset({"Add", "Sub", "Cat", "Stack"})


@dataclass(frozen=True)
class Narrow:
    """A tensor that a module returned and that the score depends on the input through, alone."""

    module: nn.Module
    #: Which call of the module, from 0 on.
    call: int
    #: Which of the tensors that it returned.
    item: int
    #: Is it what an activation function gives?
    activation: bool
    #: Is it where parallel routes come together, added or joined?
    merge: bool


def narrows(model: nn.Module, x: Tensor, target: Target) -> list[Narrow]:
    """The narrow places of a network, in the order in which they are computed; call it inside `driver.preserved`.

    One forward pass; no gradients are computed. A tensor is narrow where every path through the autograd graph from
    the score to the input leads through it. Of several modules that return the same tensor, the first one counts.

    Args:
        model: an unwrapped network.
        x: its input.
        target: what to explain.

    Returns:
        Empty where autograd sees no way from the score to the input.

    Raises:
        TypeError, ValueError: see `driver.resolve_target`.
    """
    leaf = x.detach().clone().requires_grad_(True)
    calls: dict[nn.Module, int] = {}
    returned: dict[tuple[Any, int], tuple[nn.Module, int, int]] = {}

    def note(module: nn.Module, output: Any) -> None:
        call = calls[module] = calls.get(module, -1) + 1
        for item, tensor in enumerate(tensors_of(output)):
            if tensor.grad_fn is not None:
                returned.setdefault((tensor.grad_fn, tensor.output_nr), (module, call, item))

    with told_clearly(), torch.enable_grad(), hooked(list(model.modules()), after=note):
        outputs = model(leaf.clone())
        score = resolve_target(outputs, target, x.shape[0])[1].sum()
    if score.grad_fn is None:
        return []
    order = _ordered(score.grad_fn)
    to_leaf = _paths_to_leaf(order, leaf)
    from_score = _paths_from_score(order)
    total = to_leaf[score.grad_fn]
    if total == 0:
        return []
    return [
        Narrow(*where, activation=_kind(node) in _ACTIVATIONS, merge=_kind(node) in _MERGES and _several(node, to_leaf))
        for (node, number), where in returned.items()
        if to_leaf.get(node, 0) * from_score.get((node, number), 0) == total
    ]


def _ordered(root: Any) -> list[Any]:
    """Every node behind `root`, each before those that it leads to."""
    finished: list[Any] = []
    seen: set[Any] = set()
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            finished.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(child, False) for child, _ in node.next_functions if child is not None]
    return finished[::-1]


def _paths_to_leaf(order: list[Any], leaf: Tensor) -> dict[Any, int]:
    """How many ways lead from each node to the leaf; exact, however many."""
    paths: dict[Any, int] = {}
    for node in reversed(order):
        if getattr(node, "variable", None) is leaf:
            paths[node] = 1
        else:
            paths[node] = sum(paths[child] for child, _ in node.next_functions if child is not None)
    return paths


def _paths_from_score(order: list[Any]) -> dict[tuple[Any, int], int]:
    """How many ways lead from the score to each output of each node."""
    paths: dict[tuple[Any, int], int] = {(order[0], 0): 1}
    at_node: dict[Any, int] = {order[0]: 1}
    for node in order:
        for child, number in node.next_functions:
            if child is not None:
                paths[child, number] = paths.get((child, number), 0) + at_node[node]
                at_node[child] = at_node.get(child, 0) + at_node[node]
    return paths


def _kind(node: Any) -> str:
    return re.sub(r"Backward\d*$", "", node.name())


def _several(node: Any, to_leaf: dict[Any, int]) -> bool:
    """Do several of a node's inputs depend on the leaf?"""
    return sum(child is not None and to_leaf[child] > 0 for child, _ in node.next_functions) > 1
