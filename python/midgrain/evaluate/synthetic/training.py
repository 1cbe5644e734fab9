"""Small plain ReLU networks for the synthetic data, trained in minutes, always to the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from midgrain import measures
from midgrain.evaluate.synthetic.clips import CLIP_SIDE, CLIP_SIZES, FRAMES, paste_moving
from midgrain.evaluate.synthetic.pictures import SIDE, SIZES, DigitPictures, paste
from midgrain.evaluate.synthetic.sources import digits
from midgrain.registry import explainer as make_explainer

__all__ = ["clip_network", "contrast", "network", "predicted", "train", "train_clips", "trained"]

# Side of the pictures, size of the digits, epochs: on the whole picture at once the network would not begin to learn.
_STAGES = ((48, (32, 48), 5), (72, (24, 56), 3), (SIDE, SIZES, 5))
_SCENE_STAGES = ((SIDE, SIZES, 4),)
_CLIP_STAGES = ((32, (24, 32), 4), (CLIP_SIDE, CLIP_SIZES, 4))
_BATCH = 50
_Stages = Sequence[tuple[int, tuple[int, int], int]]
# From digits, their labels, a seed, a side and sizes to inputs and classes.
_Make = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64], int, int, tuple[int, int]], tuple[Tensor, Tensor]]


def network(classes: int = 10) -> nn.Sequential:
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
        nn.Linear(128, classes),
    )


def clip_network(classes: int = 10) -> nn.Sequential:
    """Four convolutions with ReLUs, in space and time (8 frames of 48 pixels become 4 x 6 x 6), mean, linear layer."""

    def block(inside: int, outside: int, size: tuple[int, int, int], stride: tuple[int, int, int]) -> list[nn.Module]:
        padding = (size[0] // 2, size[1] // 2, size[2] // 2)
        return [nn.Conv3d(inside, outside, size, stride, padding, bias=False), nn.BatchNorm3d(outside), nn.ReLU()]

    return nn.Sequential(
        *block(3, 16, (1, 5, 5), (1, 2, 2)),
        *block(16, 32, (3, 3, 3), (2, 2, 2)),
        *block(32, 64, (3, 3, 3), (1, 2, 2)),
        *block(64, 128, (3, 3, 3), (1, 1, 1)),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(128, classes),
    )


def train(
    photos: Sequence[Image.Image],
    limit: int | None = None,
    classes: str = "digits",
    build: Callable[[int], nn.Sequential] = network,
) -> nn.Sequential:
    """A network that names the digits, or the scenes, of `paste`; each epoch has every digit at a new place.

    The same on every run with as many threads.

    Args:
        photos: backgrounds.
        limit: train with so many digits only.
        classes: "digits" or "scenes".
        build: from the number of classes to a network with new weights, for pictures of any size.

    Raises:
        ValueError: neither of these.
    """
    if classes not in ("digits", "scenes"):
        raise ValueError(f"classes: expected 'digits' or 'scenes', got {classes!r}")

    def make(
        shapes: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], seed: int, side: int, sizes: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        data = paste(shapes, labels, photos, seed, side, sizes)
        return data.inputs, torch.from_numpy(data.classes(classes))

    if classes == "digits":
        return _train(lambda: build(10), make, _STAGES, limit)
    return _train(lambda: build(len(photos)), make, _SCENE_STAGES, limit)


def train_clips(photos: Sequence[Image.Image], limit: int | None = None) -> nn.Sequential:
    """A network that names the moving digits of `paste_moving`, likewise."""

    def make(
        shapes: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], seed: int, side: int, sizes: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        data = paste_moving(shapes, labels, photos, seed, FRAMES, side, sizes)
        return data.inputs, torch.from_numpy(data.labels)

    return _train(clip_network, make, _CLIP_STAGES, limit)


def trained(weights: Path | None, photos: Sequence[Image.Image], classes: str = "digits") -> nn.Sequential:
    """The trained network, from the file where there is one, otherwise written to it."""
    if weights is not None and weights.exists():
        model = network(10 if classes == "digits" else len(photos))
        model.load_state_dict(torch.load(weights, weights_only=True))
        return model.eval()
    model = train(photos, classes=classes)
    if weights is not None:
        torch.save(model.state_dict(), weights)
    return model


@torch.no_grad()
def predicted(model: nn.Module, inputs: Tensor) -> Tensor:
    """The most likely classes, int64 [n]."""
    return torch.cat([model(some).argmax(1) for some in inputs.split(_BATCH)])


def contrast(
    method: str, objects: nn.Module, scenes: nn.Module, data: DigitPictures, *, batch_size: int = 16, **options: object
) -> Tensor:
    """BAM's model contrast score of a method, for every picture.

    Args:
        method: a name of `midgrain.methods()`.
        objects: the network that names digits; each picture's digit is explained.
        scenes: the network that names scenes; each picture's scene is explained.
        data: the pictures.
        batch_size: pictures at once.
        **options: of the method.

    Returns:
        Mean of the first network's map on the digit less the second's, both rescaled to 0 .. 1; float32 [n]. Higher
        is better.
    """
    explain_object, explain_scene = (make_explainer(method, model, **options) for model in (objects, scenes))
    inputs, masks = data.inputs, torch.from_numpy(data.masks)
    digit_classes, scene_classes = torch.from_numpy(data.labels), torch.from_numpy(data.scenes)
    found = []
    for rows in torch.arange(len(inputs)).split(batch_size):
        first = explain_object(inputs[rows], digit_classes[rows]).heatmap
        second = explain_scene(inputs[rows], scene_classes[rows]).heatmap
        found.append(measures.model_contrast(first, second, masks[rows]))
    return torch.cat(found)


def _train(build: Callable[[], nn.Sequential], make: _Make, stages: _Stages, limit: int | None) -> nn.Sequential:
    (shapes, labels), _ = digits()
    shapes, labels = shapes[:limit], labels[:limit]
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would reseed GPUs as well, and leave them so.
        model = build()
    epochs = [(side, sizes) for side, sizes, count in stages for _ in range(count)]
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = len(epochs) * -(-len(labels) // _BATCH)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for epoch, (side, sizes) in enumerate(epochs):
        inputs, targets = make(shapes, labels, epoch + 1, side, sizes)
        for rows in _batches(len(targets), random):
            optimiser.zero_grad()
            loss = F.cross_entropy(model(inputs[rows]), targets[rows])
            loss.backward()
            optimiser.step()
            rates.step()
    return model.eval()


def _batches(n: int, random: torch.Generator) -> Iterator[Tensor]:
    """Indices of 0 .. n - 1 in a random order."""
    yield from torch.randperm(n, generator=random).split(_BATCH)
