"""grad-cam's `eigen_smooth`: the channels' principal component in the place of their sum."""

from __future__ import annotations

from torch import Tensor

from midgrain.cams import CAM
from midgrain.cams.activation import principal_component

__all__ = ["smooth_by_component"]


def smooth_by_component(cam: CAM) -> None:
    """Let a class activation map return the first principal component of its weighted channels."""
    cam.__class__ = type(type(cam).__name__, (_Principal, type(cam)), {})


class _Principal(CAM):
    """Put before a class activation map."""

    def combined(self, weights: Tensor, activations: Tensor) -> Tensor:
        """[B, *m]."""
        return principal_component(weights * activations)
