"""grad-cam's reshape transforms. midgrain mostly finds these layouts itself; naming one does no harm."""

from __future__ import annotations

from torch import Tensor

__all__ = ["fasterrcnn_reshape_transform", "swinT_reshape_transform", "vit_reshape_transform"]


def fasterrcnn_reshape_transform(x: object) -> Tensor:
    """Refused: pass the levels of the feature pyramid as several layers instead.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        "reshape_transform: a reshape is handed one tensor, not a feature pyramid; pass its levels as layers, "
        "target_layers=list(model.backbone.fpn.layer_blocks), with reshape_transform=lambda maps: maps"
    )


def swinT_reshape_transform(tensor: Tensor, height: int = 7, width: int = 7) -> Tensor:  # noqa: N802
    """[B, height * width, K] -> [B, K, height, width].

    Example:
        >>> import torch
        >>> from midgrain.compat.gradcam.utils.reshape_transforms import swinT_reshape_transform
        >>> swinT_reshape_transform(torch.zeros(2, 49, 96)).shape
        torch.Size([2, 96, 7, 7])
    """
    return tensor.reshape(len(tensor), height, width, tensor.shape[-1]).movedim(-1, 1)


def vit_reshape_transform(tensor: Tensor, height: int = 14, width: int = 14) -> Tensor:
    """[B, 1 + height * width, K], a class token first, -> [B, K, height, width]."""
    return swinT_reshape_transform(tensor[:, 1:], height, width)
