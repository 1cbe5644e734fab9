"""Photographs from files, and the preprocessing that turns them into a network's input."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

__all__ = ["PICTURE_SUFFIXES", "Preprocess", "list_pictures", "open_picture"]

#: File name endings taken from a folder.
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocess:
    """Resize the shorter side, crop the centre, scale to 0 .. 1, normalise.

    Attributes:
        resize: shorter side after resizing, in pixels.
        crop: side of the square cut from the centre, in pixels.
        mean: per channel, of RGB in 0 .. 1.
        std: per channel.
        interpolation: "bilinear" or "bicubic", both antialiased.
    """

    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise ValueError(f"crop: expected 1 .. resize ({self.resize}), got {self.crop}")
        if self.interpolation not in _FILTERS:
            raise ValueError(f"interpolation: expected {' or '.join(_FILTERS)}, got {self.interpolation!r}")

    def __call__(self, picture: Image.Image) -> Tensor:
        """An RGB picture as the network's input, float32 [1, 3, crop, crop]."""
        values = torch.from_numpy(np.asarray(self.cropped(picture), np.float32) / 255.0).movedim(-1, 0)
        mean = torch.tensor(self.mean, dtype=torch.float32)[:, None, None]
        std = torch.tensor(self.std, dtype=torch.float32)[:, None, None]
        return ((values - mean) / std)[None]

    def of_array(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """The same for pixels, uint8 RGB [H, W, 3]."""
        return self(Image.fromarray(pixels))

    def region(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """What the network sees of a picture, in its own pixels: x0, y0, x1, y1, the last ones excluded.

        Args:
            size: (width, height) of the picture.
        """
        (width, height), (left, top) = self._place(size)
        across, down = size[0] / width, size[1] / height
        return left * across, top * down, (left + self.crop) * across, (top + self.crop) * down

    def cropped(self, picture: Image.Image) -> Image.Image:
        """What the network sees, [crop, crop] pixels."""
        size, (left, top) = self._place(picture.size)
        resized = picture.resize(size, _FILTERS[self.interpolation])
        return resized.crop((left, top, left + self.crop, top + self.crop))

    def placed(self, boxes: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Boxes of a picture in pixels of what the network sees, cut at its edges; those outside of it are left out.

        Args:
            boxes: x0, y0, x1, y1, the last ones excluded, [n, 4].
            size: (width, height) of the picture.

        Returns:
            [m, 4] with m up to n.
        """
        resized, corner = self._place(size)
        scale = np.array([resized[0] / size[0], resized[1] / size[1]])
        found = np.clip(boxes * np.tile(scale, 2) - np.tile(np.array(corner, np.float64), 2), 0.0, self.crop)
        kept: npt.NDArray[np.float64] = found[(found[:, 2:] > found[:, :2]).all(1)]
        return kept

    def _place(self, picture: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """The size that a picture is resized to, and where the crop begins in it (left, top)."""
        width, height = picture
        short = min(width, height)
        size = (max(self.crop, self.resize * width // short), max(self.crop, self.resize * height // short))
        return size, (round((size[0] - self.crop) / 2), round((size[1] - self.crop) / 2))

    def shown(self, picture: Image.Image, side: int) -> npt.NDArray[np.uint8]:
        """The same crop at the picture's own resolution, at most `side` pixels: uint8 [n, n, 3]."""
        width, height = picture.size
        visible = min(width, height) * self.crop / self.resize
        box = ((width - visible) / 2, (height - visible) / 2, (width + visible) / 2, (height + visible) / 2)
        n = max(self.crop, min(side, round(visible)))
        return np.asarray(picture.resize((n, n), Image.Resampling.BICUBIC, box=box))


def open_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Read a photograph as RGB, turned upright as its camera says, transparency on white.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture, or a broken or absurdly large one.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"picture: there is no file {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"picture: {str(path)!r} is not a file")
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I"):  # 16 bits per pixel, which convert() would clip
                levels = np.asarray(picture, np.float64)
                full = 65535.0 if picture.mode != "I" or levels.max() > 255 else 255.0
                picture = Image.fromarray((levels / full * 255.0).clip(0, 255).round().astype(np.uint8))
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                layer = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
            return picture.convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(f"picture: {str(path)!r} is too large ({error})") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise
        raise ValueError(f"picture: {str(path)!r} is not a picture that can be read ({error})") from error


def list_pictures(paths: list[Path]) -> list[Path]:
    """Files as given, folders replaced by their pictures in order of name.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: a folder without pictures.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"picture: there is no file or folder {str(path)!r}")
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in PICTURE_SUFFIXES)
        if not inside:
            raise ValueError(
                f"picture: the folder {str(path)!r} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})"
            )
        found += inside
    return found
