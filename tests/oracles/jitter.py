"""Jitter-CAM as the thesis describes it: patch by patch, cell by cell, with plain autograd."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def grad_cam(features: nn.Module, head: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """ReLU(sum_k mean(dy_c/dA_k) A_k) of a network that is `head(features(x))`, [B, *m]."""
    activations = features(x).detach().requires_grad_(True)
    score = head(activations).gather(1, classes[:, None]).sum()
    (gradients,) = torch.autograd.grad(score, activations)
    weights = gradients.mean(tuple(range(2, x.ndim)), keepdim=True)
    return (weights * activations.detach()).sum(1).clamp(min=0)


def jitter_cam(
    inner: Callable[[Tensor, Tensor], Tensor], x: Tensor, classes: Tensor, increase: Sequence[int]
) -> Tensor:
    """The mean of the inner maps of all patches, [B, *(m + d)].

    Args:
        inner: from patches [B, C, *p] and classes [B] to maps [B, *m].
        x: [B, C, *p].
        classes: of the whole inputs.
        increase: d along each axis.
    """
    cells = inner(x, classes).shape[1:]
    pixels = [p / m for p, m in zip(x.shape[2:], cells, strict=True)]
    size = [p + int(d * k + 0.5) for p, d, k in zip(x.shape[2:], increase, pixels, strict=True)]
    enlarged = F.interpolate(x, size, mode="bilinear" if x.ndim == 4 else "trilinear", align_corners=False)
    total = x.new_zeros(x.shape[0], *(m + d for m, d in zip(cells, increase, strict=True)))
    counts = torch.zeros_like(total)
    for offset in itertools.product(*(range(d + 1) for d in increase)):
        starts = [int(i * k + 0.5) for i, k in zip(offset, pixels, strict=True)]
        patch = enlarged[(..., *(slice(s, s + p) for s, p in zip(starts, x.shape[2:], strict=True)))]
        window = (slice(None), *(slice(i, i + m) for i, m in zip(offset, cells, strict=True)))
        total[window] += inner(patch, classes)
        counts[window] += 1
    return total / counts
