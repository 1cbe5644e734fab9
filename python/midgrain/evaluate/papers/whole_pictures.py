"""Pictures that a network is shown whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from midgrain.pictures import Preprocess

__all__ = ["WholePictures"]


@dataclass(frozen=True)
class WholePictures(Preprocess):
    """Resize the shorter side to `crop` and cut nothing off; `resize` is not used.

    For networks that take pictures of any size.
    """

    def cropped(self, picture: Image.Image) -> Image.Image:
        """What the network sees: all of it."""
        size, _ = self._place(picture.size)
        return picture.resize(size, self._filter)

    def placed(self, boxes: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Boxes of a picture in pixels of what the network sees, see `Preprocess.placed`."""
        (width, height), _ = self._place(size)
        scale = np.array([width / size[0], height / size[1]] * 2)
        found: npt.NDArray[np.float64] = np.clip(boxes * scale, 0.0, np.array([width, height] * 2, np.float64))
        kept: npt.NDArray[np.float64] = found[(found[:, 2:] > found[:, :2]).all(1)]
        return kept

    @property
    def _filter(self) -> Image.Resampling:
        return Image.Resampling.BICUBIC if self.interpolation == "bicubic" else Image.Resampling.BILINEAR

    def _place(self, picture: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        width, height = picture
        short = min(width, height)
        return (self.crop * width // short, self.crop * height // short), (0, 0)

    def shown(self, picture: Image.Image, side: int) -> npt.NDArray[np.uint8]:
        """All of it at its own resolution, the shorter side at most `side` pixels: uint8 [h, w, 3]."""
        short = min(picture.size)
        scale = max(self.crop, min(side, short)) / short
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
