"""Digits on photographs: what makes the class lies on the digit, and where it lies is known to the pixel.

MNIST's digits are drawn 24 to 64 pixels high at random places of photographs of half their contrast, in a random
colour, light on dark or dark on light. The digit is the object, the photograph the scene: a network for each makes a
set in the manner of Yang and Kim, "Benchmarking attribution methods with relative feature importance", 2019 (BAM).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from midgrain.evaluate.samples import Sample
from midgrain.evaluate.synthetic.sources import digits

__all__ = ["MEAN", "SIDE", "SIZES", "STD", "DigitPictures", "cut", "drawn", "held_out", "paste"]

SIDE = 112
SIZES = (24, 64)
MEAN, STD = 0.45, 0.25
# Of the photographs, so that the digits stand out.
_CONTRAST = 0.5


@dataclass(frozen=True)
class DigitPictures:
    """Pictures with one digit each."""

    #: uint8 [n, side, side, 3].
    pictures: npt.NDArray[np.uint8]
    #: bool [n, side, side]: at least half covered by the digit's strokes.
    masks: npt.NDArray[np.bool_]
    #: int64 [n], the digit.
    labels: npt.NDArray[np.int64]
    #: int64 [n], which photograph.
    scenes: npt.NDArray[np.int64]

    @property
    def inputs(self) -> Tensor:
        """As the networks expect them, float32 [n, 3, side, side]."""
        return (torch.from_numpy(self.pictures).movedim(-1, 1).float() / 255 - MEAN) / STD

    @property
    def boxes(self) -> npt.NDArray[np.int64]:
        """The tightest boxes around the masks, x0, y0, x1, y1, the last ones excluded: [n, 4]."""
        found = []
        for mask in self.masks:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            found.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        return np.array(found, np.int64).reshape(-1, 4)

    def samples(self, classes: str = "digits") -> list[Sample]:
        """For `midgrain.evaluate`, with mask and box of the digit.

        Args:
            classes: "digits" or "scenes": what the class is.

        Raises:
            ValueError: neither.
        """
        inputs, boxes = self.inputs, self.boxes
        return [
            Sample(f"digit-{index:05d}", inputs[index], int(label), self.masks[index], boxes[index][None])
            for index, label in enumerate(self.classes(classes))
        ]

    def classes(self, classes: str) -> npt.NDArray[np.int64]:
        """The class of every picture, int64 [n]: "digits" or "scenes"."""
        if classes not in ("digits", "scenes"):
            raise ValueError(f"classes: expected 'digits' or 'scenes', got {classes!r}")
        return self.labels if classes == "digits" else self.scenes


def paste(
    shapes: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    photos: Sequence[Image.Image],
    seed: int,
    side: int = SIDE,
    sizes: tuple[int, int] = SIZES,
) -> DigitPictures:
    """Every digit once, on a part of a photograph at a place of its own.

    Args:
        shapes: digits, uint8 [n, 28, 28].
        labels: int64 [n].
        photos: backgrounds.
        seed: of all that is drawn.
        side: of the pictures.
        sizes: least and greatest height of a digit.
    """
    random = np.random.default_rng(seed)
    pictures = np.empty((len(shapes), side, side, 3), np.uint8)
    masks = np.zeros((len(shapes), side, side), bool)
    scenes = random.integers(len(photos), size=len(shapes))
    for index, shape in enumerate(shapes):
        scene = cut(photos[scenes[index]], random, side)
        size = int(random.integers(sizes[0], sizes[1] + 1))
        cover = drawn(shape, size)
        y, x = random.integers(side - size + 1, size=2)
        window = (slice(y, y + size), slice(x, x + size))
        # Light on dark, dark on light: no digit is lost in the scene.
        colour = random.uniform(190, 255, 3) if scene[window].mean() < 128 else random.uniform(0, 65, 3)
        canvas = scene.copy()
        canvas[window] = scene[window] * (1 - cover[..., None]) + colour * cover[..., None]
        pictures[index] = np.rint(canvas.clip(0, 255)).astype(np.uint8)
        masks[index][window] = cover >= 0.5
    return DigitPictures(pictures, masks, labels, scenes)


def held_out(photos: Sequence[Image.Image], limit: int | None = None) -> DigitPictures:
    """Digits that no network here was trained with, each once."""
    shapes, labels = digits()[1]
    return paste(shapes[:limit], labels[:limit], photos, seed=0)


def cut(photo: Image.Image, random: np.random.Generator, side: int) -> npt.NDArray[np.float32]:
    """A random square part of a photograph at half its contrast, float32 [side, side, 3]."""
    part = random.uniform(0.3, 0.9) * min(photo.size)
    left, top = random.uniform(0, photo.width - part), random.uniform(0, photo.height - part)
    box = (left, top, left + part, top + part)
    scene = np.asarray(photo.resize((side, side), Image.Resampling.BILINEAR, box=box), np.float32)
    faded: npt.NDArray[np.float32] = scene.mean() + _CONTRAST * (scene - scene.mean())
    return faded


def drawn(shape: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.float32]:
    """How far a digit of this size covers each pixel, float32 [size, size] in 0 .. 1."""
    return np.asarray(Image.fromarray(shape).resize((size, size), Image.Resampling.BICUBIC), np.float32) / np.float32(
        255
    )
