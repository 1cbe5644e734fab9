"""grad-cam's `aug_smooth`: maps of altered copies, brought back to the input's own place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

__all__ = ["augmented_maps"]

# Brightness of the copies, each also mirrored.
_FACTORS = (0.9, 1.0, 1.1)


def augmented_maps(explain: Callable[[Tensor], Tensor], x: Tensor, transforms: Any) -> list[Tensor]:
    """The maps [B, *S] of darker, brighter and mirrored copies.

    Args:
        explain: from inputs to maps [B, *S].
        x: floats [B, C, *S].
        transforms: None, or others instead: objects with ttach's `augment_image` and `deaugment_mask`.
    """
    if transforms is not None:
        maps = ((each, explain(each.augment_image(x))) for each in transforms)
        return [each.deaugment_mask(found[:, None])[:, 0] for each, found in maps]
    straight = [explain(factor * x) for factor in _FACTORS]
    return straight + [explain(factor * x.flip(-1)).flip(-1) for factor in _FACTORS]
