"""Maps that know nothing of the network: what a method must beat (Thesis 3.7)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from midgrain import driver
from midgrain.driver import Target
from midgrain.randomness import seeded_by_content
from midgrain.scorers.base import Score

__all__ = ["Centre", "Constant", "Noise", "RandomPoint", "Sobel"]


class _Baseline:
    """Needs the network only for the name of the class: one forward pass."""

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """The map, and the pass that found the class."""
        return Score(self.map(x), driver.forward(model, x, target))

    def map(self, x: Tensor) -> Tensor:
        """[B, C, *S] -> float32 [B, *S]."""
        raise NotImplementedError


class Sobel(_Baseline):
    """Magnitude of the Sobel gradient of the channel mean, per frame; the border repeats its pixels."""

    def map(self, x: Tensor) -> Tensor:
        """[B, C, *S] -> float32 [B, *S]."""
        grey = x.detach().float().mean(1)
        smooth = grey.new_tensor([1.0, 2.0, 1.0])
        difference = grey.new_tensor([1.0, 0.0, -1.0])
        along_x = torch.outer(smooth, difference)
        kernels = torch.stack([along_x, along_x.T])[:, None]
        frames = F.pad(grey.reshape(-1, 1, *grey.shape[-2:]), (1, 1, 1, 1), mode="replicate")
        with torch.autocast(x.device.type, enabled=False):
            magnitude = F.conv2d(frames, kernels).square().sum(1).sqrt()
        return magnitude.reshape(grey.shape)


class _Seeded(_Baseline):
    """Random, but the same for the same picture and seed, alone or in any batch."""

    def __init__(self, seed: int = 0):
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise TypeError(f"seed: expected an int, got {type(seed).__name__}")
        self.seed = int(seed)

    def map(self, x: Tensor) -> Tensor:
        """[B, C, *S] -> float32 [B, *S]."""
        samples = x.detach().float().cpu()
        maps = [self.draw(tuple(sample.shape[1:]), seeded_by_content(sample, self.seed)) for sample in samples]
        return torch.stack(maps).to(x.device)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """One map of this shape."""
        raise NotImplementedError


class Noise(_Seeded):
    """Uniform noise in [0, 1)."""

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """One map of this shape."""
        return torch.rand(shape, generator=generator, dtype=torch.float32)


class RandomPoint(_Seeded):
    """Minus the distance, in pixels, to one random pixel of the frame (Thesis figure 3.10)."""

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """One map of this shape."""
        y = int(torch.randint(shape[-2], (), generator=generator))
        x = int(torch.randint(shape[-1], (), generator=generator))
        return _minus_distance(shape[-2:], y, x).expand(shape).clone()


class Centre(_Baseline):
    """Minus the distance, in pixels, to the centre of the frame (Thesis figure 3.10)."""

    def map(self, x: Tensor) -> Tensor:
        """[B, C, *S] -> float32 [B, *S]."""
        height, width = x.shape[-2:]
        frame = _minus_distance((height, width), (height - 1) / 2, (width - 1) / 2).to(x.device)
        return frame.expand(x.shape[0], *x.shape[2:]).clone()


class Constant(_Baseline):
    """0.9 everywhere, the first pixel 1 and the last 0: it beats real methods at average drop (methods' caveat)."""

    def map(self, x: Tensor) -> Tensor:
        """[B, C, *S] -> float32 [B, *S]."""
        values = torch.full((x.shape[0], x[0, 0].numel()), 0.9, device=x.device, dtype=torch.float32)
        values[:, -1] = 0.0
        values[:, 0] = 1.0
        return values.reshape(x.shape[0], *x.shape[2:])


def _minus_distance(shape: tuple[int, ...], y: float, x: float) -> Tensor:
    rows = torch.arange(shape[0], dtype=torch.float32) - y
    columns = torch.arange(shape[1], dtype=torch.float32) - x
    return -torch.hypot(rows[:, None], columns[None, :])
