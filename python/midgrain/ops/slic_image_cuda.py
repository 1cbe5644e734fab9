"""What `slic_image` does to pictures before they are clustered, for torch tensors on a CUDA device."""

from __future__ import annotations

import torch
from torch import Tensor

from midgrain.ops.color import GRADIENT_RANGE
from midgrain.ops.deferred import report
from midgrain.ops.slic_image_numpy import UNIT_TOLERANCE
from midgrain.ops.torch_cuda import power_of_two, slic, slic_pictures

__all__ = ["slic", "slic_pictures", "stack", "unit_rgb"]


def unit_rgb(image: Tensor) -> Tensor:
    """uint8 as it is, uint16 and floats as float32 in 0 .. 1."""
    if image.dtype == torch.uint8:
        return image
    if image.dtype == torch.uint16:
        return image.to(torch.float32) / 65535
    if not image.is_floating_point():
        raise TypeError(f"image: expected RGB as uint8, uint16 or floats, got dtype {image.dtype}")
    narrow = image.to(torch.float32)
    low, high = torch.aminmax(narrow)

    def error(_: list[int]) -> Exception:
        lowest, highest = float(low), float(high)
        if not torch.isfinite(high - low):
            return ValueError("image: expected finite values, got NaN or infinity")
        return ValueError(
            f"image: expected RGB floats in 0 .. 1, got {lowest:g} .. {highest:g}; scale the image or pass "
            "convert2lab=False"
        )

    report(~((low >= -UNIT_TOLERANCE) & (high <= 1 + UNIT_TOLERANCE)), error)
    return narrow


def stack(pixels: Tensor, slope: Tensor | None, weights: list[float]) -> tuple[Tensor, list[float], list[float]]:
    """Features [1, C, ...] of an image that is not converted to Lab, their weights and flattened ranges."""
    channels = len(pixels)
    features, per_channel = [_unit_range(pixels, "image")], [weights[0]] * channels
    ranges = [0.0, 1.0] * channels
    if slope is not None:
        unit = _unit_range(slope, "gradient")
        # A flat gradient says nothing; as a channel it would still change the rounding of the colours.
        if bool(unit.any()):
            low, high = GRADIENT_RANGE
            features.append(unit[None] * high)
            per_channel.append(weights[1])
            ranges += [low, high]
    return torch.cat(features)[None], per_channel, ranges


def _unit_range(array: Tensor, name: str) -> Tensor:
    """Rescaled together to 0 .. 1, float32; all equal gives 0."""
    values = array.to(torch.float64)
    largest = values.abs().amax()
    report(~torch.isfinite(largest), lambda _: ValueError(f"{name}: expected finite values, got NaN or infinity"))
    # Times a power of two, so that differences neither overflow nor vanish.
    values = values * power_of_two(largest)
    if name == "gradient":
        values = values.to(torch.float32)
    low, high = torch.aminmax(values)
    return torch.where(high == low, 0.0, (values - low) / (high - low)).to(torch.float32)
