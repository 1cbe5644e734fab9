"""Is a score an affine function of a layer's output? Read from the autograd graph between them."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

__all__ = ["is_affine"]

# Affine in all their inputs together.
_LINEAR = frozenset(
    {
        *("Add", "Sub", "Rsub", "Neg", "Cat", "Stack", "Mean", "Sum", "Clone", "ToCopy", "Detach", "Alias"),
        *("View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Mt", "Expand", "Repeat", "AsStrided"),
        *("Squeeze", "Unsqueeze", "Select", "Slice", "Split", "SplitWithSizes", "Unbind", "Unfold", "Diagonal"),
        *("Gather", "Index", "IndexSelect", "Flip", "Roll", "ConstantPadNd"),
        *("AvgPool2D", "AvgPool3D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "MkldnnAdaptiveAvgPool2D"),
        *("UpsampleBilinear2D", "UpsampleTrilinear3D", "UpsampleNearest2D", "UpsampleNearest3D"),
    }
)
# Linear in each input, so affine where only one of them comes from the layer.
_BILINEAR = frozenset(
    {"Mul", "Mm", "Bmm", "Addmm", "Addmv", "Addbmm", "Baddbmm", "Mv", "Dot", "Linear", "MkldnnLinear", "Convolution"}
)


def is_affine(score: Tensor, layer: Tensor) -> bool:
    """True where every operation between a layer and the score is known to be affine; call it before `backward`.

    Global average pooling and a linear layer are, for example; a ReLU, a batch norm or a softmax in between is not.
    What autograd does not see (comparisons, detached values, chosen indices) is taken for constant.

    Args:
        score: part of an autograd graph.
        layer: a leaf or an inner tensor of the same graph.
    """
    if not layer.requires_grad or score.grad_fn is None:
        return False
    source = (layer.grad_fn, layer.output_nr) if layer.grad_fn is not None else None
    depends: dict[Any, bool] = {}
    affine = True
    stack: list[tuple[Any, bool]] = [(score.grad_fn, False)]
    while stack:
        node, ready = stack.pop()
        if node in depends and not ready:
            continue
        if not ready:
            depends[node] = False
            stack.append((node, True))
            stack += [(child, False) for child, _ in node.next_functions if child is not None and child not in depends]
            continue
        edges = [_leads(child, number, layer, source, depends) for child, number in node.next_functions]
        depends[node] = any(edges)
        if depends[node]:
            kind = re.sub(r"Backward\d*$", "", node.name())
            affine = affine and (
                kind in _LINEAR
                or (kind in _BILINEAR and sum(edges) == 1)
                or (kind == "Div" and not any(edges[1:]))  # By a number, or by what does not come from the layer.
            )
    return affine and bool(depends[score.grad_fn])


def _leads(child: Any, number: int, layer: Tensor, source: tuple[Any, int] | None, depends: dict[Any, bool]) -> bool:
    """Does an edge of the graph lead to the layer?"""
    if child is None:
        return False
    found = getattr(child, "variable", None) is layer if source is None else (child, number) == source
    return found or depends.get(child, False)
