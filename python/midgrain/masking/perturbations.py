"""Inputs that are hidden more or less at each pixel, as a mask says: blurred or faded."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["BlurPyramid", "Fading", "Perturbation"]

# A Gaussian's taps, in sigmas to each side.
_TAPS = 4.0


class Perturbation(Protocol):
    """What becomes of samples behind masks."""

    def apply(self, sample: int, masks: Tensor) -> Tensor:
        """Copies of one sample.

        Args:
            sample: its number.
            masks: float32 [n, *S] in 0 .. 1: 1 shows the input, 0 hides it.

        Returns:
            [n, C, *S] of the input's dtype, differentiable with respect to the masks.
        """
        ...


class Fading:
    """x m + x0 (1 - m).

    Args:
        x: [B, C, *S].
        hidden: x0, likewise.
    """

    def __init__(self, x: Tensor, hidden: Tensor):
        self.hidden, self.difference = hidden.float(), x.float() - hidden.float()
        self.dtype = x.dtype

    def apply(self, sample: int, masks: Tensor) -> Tensor:
        """Copies of one sample, see `Perturbation`."""
        return (self.hidden[sample] + masks[:, None] * self.difference[sample]).to(self.dtype)


class BlurPyramid:
    """The input blurred by sigma = max_blur (1 - m) at each pixel, by linear interpolation between levels.

    The levels' sigmas are equally spaced from max_blur to 0 (Fong et al. 2019, with 8 levels and a
    max_blur of 20 pixels). Clips are blurred frame by frame. Beyond the border the picture goes on with its last
    pixels.

    Args:
        x: [B, C, *S].
        max_blur: the largest sigma, in pixels.
        levels: how many, the unblurred input included.
    """

    def __init__(self, x: Tensor, max_blur: float, levels: int = 8):
        self.dtype = x.dtype
        wide = x.float()
        with torch.autocast(x.device.type, enabled=False):
            blurred = [_blurred(wide, max_blur * (1.0 - level / (levels - 1))) for level in range(levels - 1)]
        #: Float32 [B, levels, C, *S].
        self.levels = torch.stack([*blurred, wide], 1)

    def apply(self, sample: int, masks: Tensor) -> Tensor:
        """Copies of one sample, see `Perturbation`."""
        levels = self.levels[sample].expand(len(masks), *self.levels.shape[1:])
        place = masks * (levels.shape[1] - 1)
        low = place.detach().floor().clamp(0, levels.shape[1] - 2)
        # [n, 1, C, *S], the same level for all channels.
        number = low.long()[:, None, None].expand(-1, 1, *levels.shape[2:])
        below, above = levels.gather(1, number)[:, 0], levels.gather(1, number + 1)[:, 0]
        return torch.lerp(below, above, (place - low)[:, None].expand_as(below)).to(self.dtype)


def _blurred(x: Tensor, sigma: float) -> Tensor:
    rows, columns = (_gaussian(n, sigma, x.device) for n in x.shape[-2:])
    return rows @ x @ columns.T


def _gaussian(pixels: int, sigma: float, device: torch.device) -> Tensor:
    """Float32 [pixels, pixels]: a Gaussian filter along one axis as a matrix."""
    reach = math.ceil(_TAPS * sigma)
    steps = torch.arange(-reach, reach + 1)
    taps = torch.exp(-0.5 * (steps.double() / sigma).square())
    taps = taps / taps.sum()
    sources = (torch.arange(pixels)[:, None] + steps).clamp(0, pixels - 1)
    matrix = torch.zeros(pixels, pixels, dtype=torch.float64)
    matrix.scatter_add_(1, sources, taps.expand(pixels, -1).contiguous())
    return matrix.float().to(device)
