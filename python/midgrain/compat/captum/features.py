"""Which feature each value of the input belongs to: superpixels, and captum's `feature_mask`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from midgrain.compat.captum.inputs import IMAGES_AND_CLIPS, Inputs, one_input
from midgrain.normalisation import Normalisation
from midgrain.regions.superpixels import Pictures, SlicOptions, Superpixels

__all__ = ["feature_mask", "feature_numbers", "superpixel_labels"]


def feature_mask(
    inputs: Inputs,
    n_segments: int = 50,
    *,
    superpixels: Any = "image",
    compactness: float = 20.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Tensor:
    """Superpixels as captum's `feature_mask`, for its methods and for those here.

    Args:
        inputs: floats [B, 3, H, W] or [B, 3, T, H, W] (or one channel), normalised as the model expects.
        n_segments: wanted superpixels.
        superpixels: "image" (SLIC), "quickshift", "felzenszwalb" or a callable, see `midgrain.SWAG`.
        compactness: of SLIC.
        mean: normalisation of the inputs, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.

    Returns:
        int64 [B, 1, *S], from 0 on in every sample.

    Raises:
        TypeError, ValueError: inputs that are no pictures, or an unfit option.

    Example:
        >>> import torch
        >>> from midgrain.compat.captum import feature_mask
        >>> feature_mask(torch.zeros(2, 3, 40, 60), n_segments=6).unique()
        tensor([0, 1, 2, 3, 4, 5])
    """
    x, _ = one_input(inputs, ranks=IMAGES_AND_CLIPS)
    normalisation = Normalisation(mean, std)
    numbers, rgb = normalisation.of(x), normalisation.rgb(x)
    if numbers is None or rgb is None:
        raise ValueError(f"inputs: expected 1 or 3 channels for superpixels of the picture, got {x.shape[1]}")
    if isinstance(superpixels, str) and "gradient" in superpixels:
        raise ValueError(f"superpixels: expected those of the picture alone, got {superpixels!r}")
    made = Superpixels(superpixels, SlicOptions(n_segments, compactness))
    return made.make(x, Pictures(x, *numbers, rgb), None).labels.to(device=x.device, dtype=torch.int64)[:, None]


def feature_numbers(mask: Any, x: Tensor) -> Tensor:
    """Feature numbers from 0 on of every value, of x's shape; without a mask every value is a feature of its own.

    Raises:
        TypeError, ValueError: no tensor of integers, or one that does not broadcast to x.
    """
    if mask is None:
        return torch.arange(x[0].numel(), device=x.device).reshape(1, *x.shape[1:]).expand(x.shape)
    features: Tensor = torch.unique(_expanded(mask, x, len(x)).to(x.device), return_inverse=True)[1]
    return features


def superpixel_labels(mask: Any, x: Tensor) -> Tensor:
    """Superpixels [*S] or [B, *S] of pictures x from a mask that is the same in all channels.

    Raises:
        TypeError, ValueError: none, no tensor of integers, or one that differs between channels or does not fit x.
    """
    if mask is None:
        raise ValueError("feature_mask: expected one; midgrain.compat.captum.feature_mask(inputs) makes superpixels")
    every = _expanded(mask, x, None)
    if not (every == every[:, :1]).all():
        raise ValueError("feature_mask: expected the same superpixels in all channels; FeatureAblation takes others")
    return every[:, 0] if len(every) > 1 else every[0, 0]


def _expanded(mask: Any, x: Tensor, batch: int | None) -> Tensor:
    """A mask in every channel and pixel, of so many samples; None leaves it one sample where it says one for all."""
    if isinstance(mask, tuple) and len(mask) == 1:
        (mask,) = mask
    if not isinstance(mask, Tensor) or mask.is_floating_point():
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"feature_mask: expected a tensor of integers, got {got}")
    if batch is None:
        batch = len(x) if mask.ndim == x.ndim and len(mask) > 1 else 1
    try:
        return mask.expand(batch, *x.shape[1:])
    except RuntimeError:
        raise ValueError(
            f"feature_mask: expected a shape that broadcasts to {list(x.shape)}, got {list(mask.shape)}"
        ) from None
