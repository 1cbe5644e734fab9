"""Moving digits in clips: where and when the digit is seen is known.

A digit moves along a straight line over a still photograph and is there in some of the frames only.
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
from midgrain.evaluate.synthetic.pictures import MEAN, STD, cut, drawn
from midgrain.evaluate.synthetic.sources import digits

__all__ = ["CLIP_SIDE", "CLIP_SIZES", "FRAMES", "DigitClips", "held_out_clips", "paste_moving"]

FRAMES, CLIP_SIDE = 8, 48
CLIP_SIZES = (20, 32)
# A digit is there in at least so many frames.
_SHORTEST = 3


@dataclass(frozen=True)
class DigitClips:
    """Clips with one digit each."""

    #: uint8 [n, T, side, side, 3].
    clips: npt.NDArray[np.uint8]
    #: bool [n, T, side, side]: at least half covered by the digit's strokes; nothing in frames without it.
    masks: npt.NDArray[np.bool_]
    #: int64 [n], the digit.
    labels: npt.NDArray[np.int64]
    #: int64 [n], which photograph.
    scenes: npt.NDArray[np.int64]
    #: int64 [n, 2]: the first frame with the digit, and the first one without it again.
    spans: npt.NDArray[np.int64]

    @property
    def inputs(self) -> Tensor:
        """As the network expects them, float32 [n, 3, T, side, side]."""
        return (torch.from_numpy(self.clips).movedim(-1, 1).float() / 255 - MEAN) / STD

    def samples(self) -> list[Sample]:
        """For `midgrain.evaluate`, with the digit's mask in every frame."""
        inputs = self.inputs
        return [
            Sample(f"clip-{index:05d}", inputs[index], int(label), self.masks[index])
            for index, label in enumerate(self.labels)
        ]


def paste_moving(
    shapes: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    photos: Sequence[Image.Image],
    seed: int,
    frames: int = FRAMES,
    side: int = CLIP_SIDE,
    sizes: tuple[int, int] = CLIP_SIZES,
) -> DigitClips:
    """Every digit once, on its way over a part of a photograph.

    Args:
        shapes: digits, uint8 [n, 28, 28].
        labels: int64 [n].
        photos: backgrounds.
        seed: of all that is drawn.
        frames: T, 3 or more.
        side: of a frame.
        sizes: least and greatest height of a digit.
    """
    random = np.random.default_rng(seed)
    clips = np.empty((len(shapes), frames, side, side, 3), np.uint8)
    masks = np.zeros((len(shapes), frames, side, side), bool)
    scenes = random.integers(len(photos), size=len(shapes))
    spans = np.empty((len(shapes), 2), np.int64)
    for index, shape in enumerate(shapes):
        scene = cut(photos[scenes[index]], random, side)
        size = int(random.integers(sizes[0], sizes[1] + 1))
        cover = drawn(shape, size)[..., None]
        shown = int(random.integers(_SHORTEST, frames + 1))
        first = int(random.integers(frames - shown + 1))
        spans[index] = first, first + shown
        start, end = random.integers(side - size + 1, size=(2, 2))
        colour = random.uniform(190, 255, 3) if scene.mean() < 128 else random.uniform(0, 65, 3)
        clips[index] = np.rint(scene.clip(0, 255)).astype(np.uint8)
        for frame in range(first, first + shown):
            y, x = np.rint(start + (end - start) * (frame - first) / (shown - 1)).astype(int)
            window = (slice(y, y + size), slice(x, x + size))
            canvas = scene[window] * (1 - cover) + colour * cover
            clips[index, frame][window] = np.rint(canvas.clip(0, 255)).astype(np.uint8)
            masks[index, frame][window] = cover[..., 0] >= 0.5
    return DigitClips(clips, masks, labels, scenes, spans)


def held_out_clips(photos: Sequence[Image.Image], limit: int | None = None) -> DigitClips:
    """Digits that the network was not trained with, each once."""
    shapes, labels = digits()[1]
    return paste_moving(shapes[:limit], labels[:limit], photos, seed=0)
