"""Does an explanation say something of this image, or would any other image's do as well?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from midgrain.measures.order import check_maps
from midgrain.ops.checks import check_int

__all__ = ["Delta", "delta", "other_images"]


@dataclass(frozen=True, eq=False)
class Delta:
    """A measure of each image's own heat map less its mean over other images' heat maps."""

    #: Own less others, float32 [B]; near 0 for an explanation that says nothing of the image.
    value: Tensor
    #: Of the own heat maps, float32 [B].
    own: Tensor
    #: Of the others, float32 [B, K].
    others: Tensor


def delta(
    measure: Callable[..., Any], model: Any, x: Tensor, heatmap: Tensor, others: Tensor, *args: Any, **options: Any
) -> Delta:
    """sigma(x, s(x)) - mean over k of sigma(x, s(xi_k)): any removal measure, made specific.

    A map that points at the middle of every picture does well in many measures. It does as well on other images'
    pictures, so that its delta is 0, as a random map's is.

    Args:
        measure: such as `midgrain.measures.n_morf`, called as `measure(model, x, heatmap, *args, **options)`; its
            result has a `.value` [B].
        model: see the measure.
        x: [B, C, *S].
        heatmap: the heat maps of x, [B, *S].
        others: heat maps by the same method of K other images for each of x's, [B, K, *S], 5 in the paper;
            `other_images` draws which.
        *args: passed on.
        **options: passed on.

    Returns:
        `.value` [B], `.own` [B], `.others` [B, K].

    Raises:
        TypeError, ValueError: `others` of another shape, or with NaN; what the measure raises.

    Source: DeepMaps (2021), section 4.3.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
        >>> x = torch.rand(6, 3, 8, 8)
        >>> heatmap = mg.explainer("input-x-gradient", model)(x).heatmap
        >>> others = heatmap[mg.measures.other_images(6, k=2)]
        >>> mg.measures.delta(mg.measures.n_morf, model, x, heatmap, others).value.shape
        torch.Size([6])
    """
    if not callable(measure):
        raise TypeError(f"measure: expected a callable such as midgrain.measures.n_morf, got {type(measure).__name__}")
    maps = check_maps(heatmap)
    if not isinstance(others, Tensor):
        raise TypeError(f"others: expected a tensor of heat maps, got {type(others).__name__}")
    expected = [maps.shape[0], "K", *maps.shape[1:]]
    if others.ndim != maps.ndim + 1 or [others.shape[0], *others.shape[2:]] != [expected[0], *expected[2:]]:
        raise ValueError(f"others: expected shape [{', '.join(map(str, expected))}], got {list(others.shape)}")
    if others.shape[1] == 0:
        raise ValueError("others: expected heat maps of at least one other image, got none")
    own = measure(model, x, heatmap, *args, **options).value.float()
    rows = [
        measure(model, x, check_maps(others[:, number], name="others"), *args, **options).value.float()
        for number in range(others.shape[1])
    ]
    each = torch.stack(rows, 1)
    return Delta(own - each.mean(1), own, each)


def other_images(n: int, k: int = 5, seed: int = 0) -> Tensor:
    """For each of n images, k others, drawn without repetition.

    Args:
        n: more than k.
        k: 1 or more.
        seed: of the drawing.

    Returns:
        int64 [n, k]; row i never holds i.

    Raises:
        TypeError, ValueError: numbers out of range.

    Example:
        >>> import midgrain as mg
        >>> mg.measures.other_images(3, k=2).sort(1).values.tolist()
        [[1, 2], [0, 2], [0, 1]]
    """
    k = check_int(k, "k", 1)
    n = check_int(n, "n", k + 1)
    generator = torch.Generator().manual_seed(check_int(seed, "seed", 0, 2**63 - 1))
    drawn = [torch.randperm(n - 1, generator=generator)[:k] for _ in range(n)]
    return torch.stack([row + (row >= number) for number, row in enumerate(drawn)])
