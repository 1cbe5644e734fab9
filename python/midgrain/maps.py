"""Small operations on score maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["min_max", "resize_maps"]


def min_max(maps: Tensor) -> Tensor:
    """Rescale every map of [B, *S] to 0 .. 1 over its own image or clip; all equal gives 0."""
    flat = maps.reshape(maps.shape[0], -1)
    low = flat.amin(1, keepdim=True)
    # Halves, so that the difference of extreme values stays finite.
    width = 0.5 * flat.amax(1, keepdim=True) - 0.5 * low
    scaled = (0.5 * flat - 0.5 * low) / width.where(width > 0, 1)
    return scaled.reshape(maps.shape)


def resize_maps(maps: Tensor, size: Sequence[int]) -> Tensor:
    """[B, *m] -> [B, *size], bilinear (trilinear for clips) without aligned corners."""
    mode = "bilinear" if maps.ndim == 3 else "trilinear"
    with torch.autocast(maps.device.type, enabled=False):
        return F.interpolate(maps[:, None], tuple(size), mode=mode, align_corners=False)[:, 0]
