"""Networks for Jitter-CAM, and the thesis's recipe beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models_for_tests import CONV, batch_for, seeded


def gap_net(dims: int = 2, *, padding: int = 1, classes: int = 5) -> nn.Module:
    """A trunk of stride 2, a last stage of stride 2, average pooling and a linear layer, in float64.

    Without padding in the trunk (kernels as large as the stride), windows of its map are maps of windows.
    """

    def build() -> nn.Module:
        kernel = 3 if padding else 2
        features = nn.Sequential(
            CONV[dims](3, 6, kernel, stride=2, padding=padding),
            nn.ReLU(),
            CONV[dims](6, 8, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            CONV[dims](8, 8, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        pool = nn.AdaptiveAvgPool2d(1) if dims == 2 else nn.AdaptiveAvgPool3d(1)
        return nn.Sequential(features, nn.Sequential(pool, nn.Flatten(), nn.Linear(8, classes))).double().eval()

    return seeded(build)


class Curved(nn.Module):
    """A head that is no affine function of the last map; no module of it returns a map."""

    def __init__(self, rest: nn.Module):
        super().__init__()
        self.rest = rest

    def forward(self, maps):
        return self.rest(F.gelu(maps))


def curved_net(*, padding: int = 1) -> nn.Module:
    """`gap_net` with such a head."""
    features, head = gap_net(padding=padding)
    return nn.Sequential(features, Curved(head)).eval()


def doubles(dims: int = 2, batch: int = 2, size: tuple[int, ...] | None = None) -> torch.Tensor:
    return batch_for(dims, batch, size=size, dtype=torch.float64)
