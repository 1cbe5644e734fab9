"""A planted shortcut: a coloured patch that goes with one class in training, and misleads where it does not.

In the training pictures nearly every digit of one class has a magenta square beside it, and hardly any other digit
has one: a network learns the square instead of the digit. Where the square then stands beside other digits, it is known
to the pixel what misleads the network; where the class comes without it, what it misses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from midgrain.evaluate.synthetic.pictures import SIDE, SIZES, DigitPictures, held_out, paste
from midgrain.evaluate.synthetic.training import _train, network

__all__ = ["CLASS", "COLOUR", "Shortcut", "misleading", "plant", "teaching", "train_with_shortcut"]

#: The class whose training pictures have the patch, and the patch's colour.
CLASS = 3
COLOUR = (230, 0, 160)
# Side of a picture over the side of its patch; the share of training pictures with one, of the class and of others;
# the share of other classes' validation pictures.
_SIDES = 8
_OF_CLASS, _OF_OTHERS, _MISLEADING = 0.95, 0.02, 0.5
# Side, size of the digits, epochs: see `train`; with fewer of them.
_STAGES = ((48, (32, 48), 5), (72, (24, 56), 3), (SIDE, SIZES, 3))
# Places that are tried for a patch beside the digit.
_TRIES = 50


@dataclass(frozen=True)
class Shortcut:
    """Pictures, of which some have a patch."""

    data: DigitPictures
    #: Bool [n, side, side], the pixels of the patch; none where there is no patch.
    patches: npt.NDArray[np.bool_]

    @property
    def carries(self) -> npt.NDArray[np.bool_]:
        """Whether it has a patch, [n]."""
        return np.asarray(self.patches.any((1, 2)), np.bool_)


def plant(data: DigitPictures, wanted: npt.NDArray[np.bool_], seed: int) -> Shortcut:
    """Draw a patch into some pictures, at a random place beside the digit.

    Args:
        data: pictures.
        wanted: which get one, [n].
        seed: of the places.

    Returns:
        The same pictures with their patches. Where no place beside the digit is found, the patch is drawn below it.
    """
    random = np.random.default_rng(seed)
    count, side = data.pictures.shape[:2]
    size = max(2, side // _SIDES)
    patches = np.zeros((count, side, side), bool)
    pictures = data.pictures.copy()
    for index in range(count):
        # Drawn for every picture, so that the places of one do not depend on which others get a patch.
        places = random.integers(side - size + 1, size=(_TRIES, 2))
        if not wanted[index]:
            continue
        windows = [(slice(y, y + size), slice(x, x + size)) for y, x in places]
        window = next((each for each in windows if not data.masks[index][each].any()), windows[-1])
        patches[index][window] = True
        patches[index] &= ~data.masks[index]
        pictures[index][patches[index]] = COLOUR
    return Shortcut(replace(data, pictures=pictures), patches)


def teaching(
    shapes: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    photos: Sequence[Image.Image],
    seed: int,
    side: int = SIDE,
    sizes: tuple[int, int] = SIZES,
) -> Shortcut:
    """Training pictures, see `paste`: 95 % of the class and 2 % of the others have the patch."""
    chance = np.random.default_rng([seed, 1]).random(len(labels))
    wanted = chance < np.where(labels == CLASS, _OF_CLASS, _OF_OTHERS)
    return plant(paste(shapes, labels, photos, seed, side, sizes), wanted, seed)


def misleading(photos: Sequence[Image.Image], limit: int | None = None) -> Shortcut:
    """Other digits, each once: the class has no patch, and half of the others have one."""
    data = held_out(photos, limit)
    chance = np.random.default_rng(2).random(len(data.labels))
    return plant(data, (chance < _MISLEADING) & (data.labels != CLASS), 0)


def train_with_shortcut(photos: Sequence[Image.Image], limit: int | None = None) -> nn.Sequential:
    """A network that names the digits of `teaching`, likewise the same on every run with as many threads.

    Args:
        photos: backgrounds.
        limit: train with so many digits only.
    """

    def make(
        shapes: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], seed: int, side: int, sizes: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        data = teaching(shapes, labels, photos, seed, side, sizes).data
        return data.inputs, torch.from_numpy(data.labels)

    return _train(network, make, _STAGES, limit)
