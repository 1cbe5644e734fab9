"""From the frames of a clip to a network's input."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from midgrain.clips.reading import Clip
from midgrain.clips.timing import Window

__all__ = ["ClipPreprocess"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class ClipPreprocess:
    """Resize, crop the centre, scale to 0 .. 1, normalise: [T, H, W, 3] -> [1, 3, T, h, w].

    The same as `torchvision.transforms._presets.VideoClassification`, which torchvision's weights for videos bring;
    with `antialias`, the same as `midgrain.pictures.Preprocess` on every frame.

    Attributes:
        resize: the frames' shorter side, or (height, width) whatever their aspect.
        crop: side of the square cut from the centre, or (height, width).
        mean: per channel, of RGB in 0 .. 1.
        std: per channel.
        interpolation: "bilinear" or "bicubic".
        antialias: of frames made smaller. torchvision's networks for videos are trained without.
        frames: T of the window that the network was trained with, for `midgrain.clips.open_clip`.
        rate: frames per second that it was trained with; None takes the video's own.

    Example:
        >>> import numpy as np
        >>> from midgrain.clips import ClipPreprocess
        >>> preprocess = ClipPreprocess((128, 171), 112, (0.43, 0.39, 0.38), (0.23, 0.22, 0.22))
        >>> preprocess(np.zeros((16, 240, 320, 3), np.uint8)).shape
        torch.Size([1, 3, 16, 112, 112])
    """

    resize: int | tuple[int, int]
    crop: int | tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    antialias: bool = False
    frames: int = 16
    rate: float | None = 15.0

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):
            _check_sides(getattr(self, name), name)
        least = self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)
        if self._crop[0] > least[0] or self._crop[1] > least[1]:
            raise ValueError(f"crop: expected up to resize ({self.resize}), got {self.crop}")
        if self.interpolation not in _FILTERS:
            raise ValueError(f"interpolation: expected {' or '.join(_FILTERS)}, got {self.interpolation!r}")
        Window(self.frames, self.rate)  # Checks them.

    def __call__(self, frames: Clip | npt.NDArray[np.uint8] | Tensor) -> Tensor:
        """Frames, uint8 RGB [T, H, W, 3], as the network's input, float32 [1, 3, T, h, w].

        Raises:
            TypeError, ValueError: no such frames.
        """
        seen = self._seen(checked_frames(frames))
        values = torch.stack([frame.movedim(-1, 0).float() for frame in seen], 1)
        mean, std = (_tensor(np.array(each, np.float32))[:, None, None, None] for each in (self.mean, self.std))
        return values.div_(255.0).sub_(mean).div_(std)[None]

    def cropped(self, frames: Clip | npt.NDArray[np.uint8] | Tensor) -> npt.NDArray[np.uint8]:
        """What the network sees, uint8 [T, h, w, 3]."""
        pixels = checked_frames(frames)
        result = np.empty((len(pixels), *self._crop, 3), np.uint8)
        for frame, seen in zip(result, self._seen(pixels), strict=True):
            _tensor(frame).copy_(seen)
        return result

    def stencil(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """A mask of the frames, bool [T, H, W], as the network sees it, bool [T, h, w]."""
        white = np.repeat(np.where(mask, np.uint8(255), np.uint8(0))[..., None], 3, -1)
        seen: npt.NDArray[np.bool_] = self.cropped(white)[..., 0] >= 128
        return seen

    def placed(self, boxes: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Boxes in the frames' pixels in those of what the network sees, cut at its edges.

        Args:
            boxes: x0, y0, x1, y1, the last ones excluded, [..., 4]; NaN where there is none.
            size: (width, height) of the frames.

        Returns:
            Of the same shape, NaN where nothing of a box is seen.
        """
        (height, width), (top, left) = self._place((size[1], size[0]))
        scale = np.array([width / size[0], height / size[1]] * 2)
        limits = np.array([self._crop[1], self._crop[0]] * 2, np.float64)
        found: npt.NDArray[np.float64] = np.clip(boxes * scale - np.array([left, top] * 2), 0.0, limits)
        found[~(found[..., 2:] > found[..., :2]).all(-1)] = np.nan
        return found

    def region(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """What the network sees of frames, in their own pixels: x0, y0, x1, y1, the last ones excluded.

        Args:
            size: (width, height) of the frames.
        """
        (height, width), (top, left) = self._place((size[1], size[0]))
        across, down = size[0] / width, size[1] / height
        h, w = self._crop
        return left * across, top * down, (left + w) * across, (top + h) * down

    def shown(self, frames: Clip | npt.NDArray[np.uint8] | Tensor, side: int) -> npt.NDArray[np.uint8]:
        """The same crop at the frames' own resolution and aspect, at most `side` pixels, uint8 [T, n, m, 3]."""
        pixels = checked_frames(frames)
        size = pixels.shape[1:3]
        (height, width), _ = self._place(size)
        h, w = size[0] * self._crop[0] / height, size[1] * self._crop[1] / width
        shrink = min(1.0, side / max(h, w))
        n, m = max(1, round(h * shrink)), max(1, round(w * shrink))
        box = ((size[1] - w) / 2, (size[0] - h) / 2, (size[1] + w) / 2, (size[0] + h) / 2)
        resized = [Image.fromarray(frame).resize((m, n), Image.Resampling.BICUBIC, box=box) for frame in pixels]
        return np.stack([np.asarray(frame) for frame in resized])

    def sized(self, side: int) -> ClipPreprocess:
        """The same for a square crop of another side."""
        h, w = self._crop
        if isinstance(self.resize, int):
            resize: int | tuple[int, int] = max(side, round(side * self.resize / min(h, w)))
        else:
            resize = (max(side, round(side * self.resize[0] / h)), max(side, round(side * self.resize[1] / w)))
        return replace(self, resize=resize, crop=side)

    @property
    def _crop(self) -> tuple[int, int]:
        return self.crop if isinstance(self.crop, tuple) else (self.crop, self.crop)

    def _place(self, size: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        """The (height, width) that frames are resized to, and where the crop begins in it (top, left)."""
        if isinstance(self.resize, tuple):
            resized = self.resize
        else:
            short = min(size)
            resized = (self.resize * size[0] // short, self.resize * size[1] // short)
        top, left = (round((resized[axis] - self._crop[axis]) / 2) for axis in (0, 1))
        return resized, (top, left)

    def _seen(self, pixels: npt.NDArray[np.uint8]) -> Iterator[Tensor]:
        """What the network sees of each frame, whole numbers in 0 .. 255, [h, w, 3] of any dtype and strides."""
        size, (top, left) = self._place(pixels.shape[1:3])
        part = slice(top, top + self._crop[0]), slice(left, left + self._crop[1])
        for frame in pixels:
            if frame.shape[:2] == size:
                yield _tensor(frame[part])
            elif self.antialias:
                resized = Image.fromarray(frame).resize(size[::-1], _FILTERS[self.interpolation])
                yield _tensor(np.asarray(resized)[part])
            else:
                # As torchvision does it: through float32, rounded.
                values = _tensor(frame).movedim(-1, 0)[None].float()
                values = nn.functional.interpolate(values, size, mode=self.interpolation, align_corners=False)
                yield values[0].movedim(0, -1)[part].clamp(0, 255).round_()


def _tensor(values: npt.NDArray[Any]) -> Tensor:
    """The same memory where torch can have it: it knows no read-only memory and no negative strides."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))


def checked_frames(frames: object) -> npt.NDArray[np.uint8]:
    """Frames as an array, uint8 [T, H, W, 3].

    Raises:
        TypeError, ValueError: they are none.
    """
    if isinstance(frames, Clip):
        return frames.frames
    pixels = frames.detach().cpu().numpy() if isinstance(frames, Tensor) else frames
    if not isinstance(pixels, np.ndarray):
        raise TypeError(f"clip: expected a uint8 array [T, H, W, 3], got {type(frames).__name__}")
    if pixels.dtype != np.uint8:
        raise TypeError(f"clip: expected a uint8 array [T, H, W, 3], got dtype {pixels.dtype}")
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or not math.prod(pixels.shape):
        raise ValueError(f"clip: expected shape [T, H, W, 3], got {list(pixels.shape)}")
    return pixels


def _check_sides(value: object, name: str) -> None:
    sides = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(side, int) and not isinstance(side, bool) for side in sides) or len(sides) > 2 or not sides:
        raise TypeError(f"{name}: expected an int or (height, width), got {value!r}")
    if min(sides) < 1 or (isinstance(value, tuple) and len(sides) != 2):
        raise ValueError(f"{name}: expected 1 or more, or (height, width), got {value!r}")
