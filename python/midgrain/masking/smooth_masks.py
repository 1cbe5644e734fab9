"""Masks that are smooth by the way they are made: the maximum of bumps on a coarse lattice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SmoothMasks"]

# 1 / T of the smooth maximum that the gradient is taken of.
_COLDNESS = 20.0
# Of sigma: bumps are 1 up to the first distance, and cut off beyond the second, where they have fallen to 0.04.
_FLAT, _REACH = 0.5, 1.75


class SmoothMasks:
    """M(u) = max over lattice points v of k(|u - v|) P(v), for parameters P in 0 .. 1 (Fong et al. 2019).

    k(d) = exp(-2 max(0, d - 1/2)^2) for distances d in units of sigma, as in the authors' TorchRay. The lattice lies
    centred in the picture, `step` pixels apart.

    The gradient is that of a smooth maximum: every bump in reach of u has the share exp(20 f) / sum exp(20 f), f = k P,
    of what M(u) gets. TorchRay takes the smooth maximum, sum f exp(20 f) / sum exp(20 f), for the mask itself too; but
    near a picture's borders, where fewer bumps are in reach, that is a little higher, and a search for a mask of some
    area then ends in the corners where the score is weak. Here parameters of p everywhere make a mask of p everywhere.

    All bumps that reach a pixel are never held together: forward and backward pass go through them one by one.

    Args:
        size: pixels along each axis.
        step: pixels from one lattice point to the next along each axis.
        sigma: the bumps' width along each axis, in pixels.
        device: of the parameters.
        dtype: of the parameters.
    """

    def __init__(
        self,
        size: Sequence[int],
        step: Sequence[int],
        sigma: Sequence[float],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ):
        self.size, self.step = tuple(size), tuple(step)
        #: Lattice points along each axis.
        self.lattice = tuple(math.ceil(n / s) for n, s in zip(self.size, self.step, strict=True))
        #: How many cells away a bump may still reach a pixel, along each axis.
        self.margin = tuple(math.ceil(_REACH * w / s) + 1 for w, s in zip(sigma, self.step, strict=True))
        #: Cells from a pixel's own to a lattice point that may reach it -> k at each pixel of a cell, [prod(step)].
        self.bumps: dict[tuple[int, ...], Tensor] = {}
        places = [
            torch.arange(s, dtype=torch.float64) - (n - 1 - s * (count - 1)) / 2
            for n, s, count in zip(self.size, self.step, self.lattice, strict=True)
        ]
        for cells in itertools.product(*(range(-reach, reach + 1) for reach in self.margin)):
            squares = torch.zeros([], dtype=torch.float64)
            for place, cell, s, width in zip(places, cells, self.step, sigma, strict=True):
                squares = squares[..., None] + ((place - s * cell) / width).square()
            distance = squares.sqrt().flatten()
            if distance.min() < _REACH:
                bump = torch.exp(-2.0 * (distance - _FLAT).clamp(min=0).square()) * (distance < _REACH)
                self.bumps[cells] = bump.to(device=device, dtype=dtype)
        #: What gradients are divided by, see `_weights`.
        self.weights = self._weights(device, dtype)

    def __call__(self, parameters: Tensor) -> Tensor:
        """[K, *lattice] in 0 .. 1 -> masks [K, *size] in 0 .. 1, differentiable."""
        masks: Tensor = _Maximum.apply(parameters, self)
        return masks

    def _weights(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """How much of a mask that shows everything hangs on each parameter, [*lattice], 1 on average.

        Less on the outermost ones: they share fewer pixels. Divided by it, gradients move an even mask evenly.
        """
        with torch.enable_grad():
            ones = torch.ones(1, *self.lattice, device=device, dtype=dtype, requires_grad=True)
            (found,) = torch.autograd.grad(self(ones).sum(), ones)
        return found[0] / found.mean()

    def shifted(self, parameters: Tensor) -> Any:
        """Yields, for each of `bumps`, the parameters so many cells away, flat [K * cells]; 0 outside the picture.

        Points outside the picture, like pixels out of a bump's reach, count with f = 0 in the gradient's shares.
        """
        padding = [margin for margin in reversed(self.margin) for _ in range(2)]
        padded = F.pad(parameters, padding)
        for cells, bump in self.bumps.items():
            yield bump, padded[self._window(cells)].flatten()

    def gathered(self, contributions: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        """What each of `bumps` adds to the parameters so many cells away, summed up: `shifted` backwards."""
        padded = torch.zeros(
            shape[0],
            *(n + 2 * margin for n, margin in zip(self.lattice, self.margin, strict=True)),
            dtype=contributions[0].dtype,
            device=contributions[0].device,
        )
        for cells, contribution in zip(self.bumps, contributions, strict=True):
            padded[self._window(cells)] += contribution.reshape(shape)
        inner = tuple(slice(margin, margin + n) for n, margin in zip(self.lattice, self.margin, strict=True))
        return padded[(slice(None), *inner)]

    def unfolded(self, values: Tensor) -> Tensor:
        """[prod(step), K * cells] -> [K, *size]: every pixel to its place, those beyond the border cut off."""
        axes = len(self.size)
        blocks = values.reshape(*self.step, -1, *self.lattice)
        order = [axes]
        for axis in range(axes):
            order += [axes + 1 + axis, axis]
        pixels = [n * s for n, s in zip(self.lattice, self.step, strict=True)]
        whole = blocks.permute(order).reshape(-1, *pixels)
        return whole[(slice(None), *(slice(n) for n in self.size))]

    def folded(self, values: Tensor) -> Tensor:
        """`unfolded` backwards, 0 beyond the border."""
        axes = len(self.size)
        padding: list[int] = []
        for n, count, s in zip(reversed(self.size), reversed(self.lattice), reversed(self.step), strict=True):
            padding += [0, count * s - n]
        blocks = F.pad(values, padding)
        split = [extent for pair in zip(self.lattice, self.step, strict=True) for extent in pair]
        order = [2 * axis + 2 for axis in range(axes)] + [0] + [2 * axis + 1 for axis in range(axes)]
        return blocks.reshape(len(values), *split).permute(order).reshape(math.prod(self.step), -1)

    def _window(self, cells: tuple[int, ...]) -> tuple[slice, ...]:
        starts = (margin + cell for margin, cell in zip(self.margin, cells, strict=True))
        return (slice(None), *(slice(start, start + n) for start, n in zip(starts, self.lattice, strict=True)))


class _Maximum(torch.autograd.Function):
    """Rows are the pixels of a cell, columns the cells of all masks."""

    @staticmethod
    def forward(ctx: Any, parameters: Tensor, masks: SmoothMasks) -> Tensor:
        maximum = weights = None
        for bump, values in masks.shifted(parameters):
            heights = torch.outer(bump, values)
            exponentials = (_COLDNESS * heights).exp_()
            maximum = heights if maximum is None else torch.maximum(maximum, heights, out=maximum)
            weights = exponentials if weights is None else weights.add_(exponentials)
        assert maximum is not None
        assert weights is not None
        ctx.masks = masks
        ctx.save_for_backward(parameters, weights)
        return masks.unfolded(maximum)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        parameters, weights = ctx.saved_tensors
        masks: SmoothMasks = ctx.masks
        shares = masks.folded(gradient) / weights
        contributions = []
        for bump, values in masks.shifted(parameters):
            exponentials = torch.outer(_COLDNESS * bump, values).exp_()
            # The backward pass may run under the user's autocast, whatever the forward pass ran under.
            with torch.autocast(bump.device.type, enabled=False):
                contributions.append(bump @ exponentials.mul_(shares))
        return masks.gathered(contributions, parameters.shape), None
