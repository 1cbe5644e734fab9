"""How a network's input was made from a picture, and the way back."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Normalisation"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_KINETICS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))


@dataclass(frozen=True)
class Normalisation:
    """x = (RGB in 0 .. 1 - mean) / std, as the user says or by default.

    Args:
        mean: per channel; None means ImageNet's for images and Kinetics' for clips.
        std: likewise.

    Raises:
        TypeError: no numbers.
        ValueError: one without the other, NaN or infinity, a std that is not positive.
    """

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean, std: expected both or neither")
        object.__setattr__(self, "mean", _per_channel(self.mean, "mean"))
        object.__setattr__(self, "std", _per_channel(self.std, "std"))
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std: expected positive numbers, got {self.std}")

    def of(self, x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """(mean, std), one number per colour channel of x [B, C, *S]; None unless x has one or three channels."""
        channels = x.shape[1]
        if channels not in (1, 3):
            return None
        default_mean, default_std = _IMAGENET if x.ndim == 4 else _KINETICS
        mean = tuple(self.mean or (default_mean if channels == 3 else (0.0,)))
        std = tuple(self.std or (default_std if channels == 3 else (1.0,)))
        if len(mean) not in (1, channels) or len(std) not in (1, channels):
            raise ValueError(
                f"mean, std: expected {channels} numbers for x with {channels} channels, got {mean}, {std}"
            )
        return mean * (channels // len(mean)), std * (channels // len(std))

    def rgb(self, x: Tensor) -> Tensor | None:
        """The picture behind x, float32 [B, 3, *S] in 0 .. 1; None unless x has one or three channels."""
        numbers = self._tensors(x)
        if numbers is None:
            return None
        offset, scale = numbers
        picture = (x.detach().float() * scale).add_(offset).clamp_(0.0, 1.0)
        return picture.expand(-1, 3, *x.shape[2:])

    def inputs(self, rgb: Tensor, like: Tensor) -> Tensor:
        """What the network gets for pictures [n, 3, *S] in 0 .. 1; channels, dtype and device as of `like` [C, *S].

        Raises:
            ValueError: `like` has neither one nor three channels.
        """
        numbers = self._tensors(like[None])
        if numbers is None:
            raise ValueError(f"x: expected pictures of 1 or 3 channels, got {len(like)}")
        offset, scale = numbers
        return ((rgb.to(like.device)[:, : len(like)] - offset) / scale).to(like.dtype)

    def grey(self, x: Tensor, level: float) -> Tensor:
        """What the network gets for a picture of one grey level in 0 .. 1 (0 black, 1 white), of x's shape and dtype.

        Raises:
            ValueError: x has neither one nor three channels.
        """
        numbers = self._tensors(x)
        if numbers is None:
            raise ValueError(
                f"baseline: 'black' and 'white' are of pictures of 1 or 3 channels, got {x.shape[1]}; pass a number "
                "or a tensor"
            )
        offset, scale = numbers
        return ((level - offset) / scale).to(x.dtype).expand(x.shape).contiguous()

    def _tensors(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        numbers = self.of(x)
        if numbers is None:
            return None
        # Kept for other devices only: a transfer of three numbers makes the CPU wait for them.
        make = _as_tensors.__wrapped__ if x.device.type == "cpu" else _as_tensors
        return make(*numbers, x.ndim, x.device)


@functools.lru_cache(maxsize=64)
def _as_tensors(
    mean: tuple[float, ...], std: tuple[float, ...], ndim: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        shape = [1, -1] + [1] * (ndim - 2)
        offset, scale = (torch.tensor(each, dtype=torch.float32, device=device).reshape(shape) for each in (mean, std))
        return offset, scale


def _per_channel(values: Sequence[float] | None, name: str) -> tuple[float, ...] | None:
    if values is None:
        return None
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected one number per channel, got {values!r}") from error
    if not numbers or not all(torch.isfinite(torch.tensor(numbers)).tolist()):
        raise ValueError(f"{name}: expected finite numbers, got {values!r}")
    return numbers
