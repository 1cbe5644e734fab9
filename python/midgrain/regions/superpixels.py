"""Which superpixels a region explainer works on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from midgrain import ops
from midgrain.ops.arrays import kernel_device
from midgrain.ops.checks import check_compactness, check_int, check_positive
from midgrain.regions.segmentations import SEGMENTATIONS

__all__ = [
    "Pictures",
    "Segmentation",
    "SlicOptions",
    "SuperpixelChoice",
    "Superpixels",
    "threads_after_network",
]

#: "image", "gradient", "image+gradient"; "quickshift", "felzenszwalb"; labels [*S] or [B, *S]; or a callable from
#: one picture, uint8 RGB [H, W, 3] or [T, H, W, 3], to integer labels.
SuperpixelChoice: TypeAlias = str | Tensor | np.ndarray[Any, Any] | Callable[[Any], Any]

_SOURCES = ("image", "gradient", "image+gradient")
_OTHER_NAMES = {"slic-i": "image", "slic-g": "gradient", "slic-ig": "image+gradient"}
# Thesis defaults: 3.6.7 for images of 224 x 224, 4.4 for clips of 16 x 112 x 112.
_DEFAULT_COUNT = {2: 300, 3: 120}
# Pixels of a batch from which on more than one thread pays after a network.
_PIXELS_FOR_THREADS = 1 << 20
# Small pictures get fewer superpixels by default, so that each has some pixels to average over.
_MIN_DEFAULT_PIXELS = 16


def threads_after_network(pixels: int) -> int | None:
    """The `num_threads` of a kernel that works on so many pixels just after a network.

    For some milliseconds after its last operation torch's own threads keep the other cores busy waiting for the next
    one: two threads then take 2 to 4 times as long as one for a picture.
    """
    return 1 if pixels < _PIXELS_FOR_THREADS else None


@dataclass(frozen=True)
class Segmentation:
    """Superpixels of a batch."""

    #: int32 [B, *S], 0 .. counts - 1 per sample.
    labels: Tensor
    #: int32 [B].
    counts: Tensor
    #: The counts are no larger; known without looking at them. None where it is not.
    limit: int | None = None


@dataclass(frozen=True)
class Pictures:
    """What a network's input shows, in the two forms in which superpixels are made from it."""

    #: The input itself, floats [B, 3 or 1, *S]: x * std + mean is RGB in 0 .. 1.
    x: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    #: float32 [B, 3, *S] in 0 .. 1.
    rgb: Tensor


@dataclass(frozen=True)
class SlicOptions:
    """How gradient-augmented SLIC is run; see `midgrain.slic` for each."""

    n_segments: int | None = None
    compactness: float = 20.0
    gradient_compactness: float = 9.0
    max_num_iter: int = 10
    spacing: Sequence[float] | None = None
    min_size_factor: float = 0.5
    #: Superpixels where `n_segments` is None and the input is large enough; None means SWAG's.
    default_count: int | None = None

    def __post_init__(self) -> None:
        if self.n_segments is not None:
            check_int(self.n_segments, "n_segments", 1)
        check_compactness(self.compactness, "compactness")
        check_compactness(self.gradient_compactness, "gradient_compactness")
        check_int(self.max_num_iter, "max_num_iter", 1)
        check_positive(self.min_size_factor, "min_size_factor", zero=True)


class Superpixels:
    """Makes superpixels from pictures and gradient maps, in the way chosen once."""

    def __init__(self, choice: SuperpixelChoice, options: SlicOptions):
        if isinstance(choice, str):
            choice = _OTHER_NAMES.get(choice, choice)
            if choice not in _SOURCES and choice not in SEGMENTATIONS:
                known = ", ".join([*_SOURCES, *SEGMENTATIONS])
                raise ValueError(f"superpixels: expected one of {known}, got {choice!r}")
        elif not isinstance(choice, Tensor | np.ndarray) and not callable(choice):
            raise TypeError(f"superpixels: expected a name, labels or a callable, got {type(choice).__name__}")
        self.choice = choice
        self.options = options

    @property
    def uses_image(self) -> bool:
        """Is the picture needed?"""
        return callable(self.choice) or (isinstance(self.choice, str) and self.choice != "gradient")

    @property
    def uses_gradient(self) -> bool:
        """Are pixel scores needed?"""
        return isinstance(self.choice, str) and "gradient" in self.choice

    def make(self, x: Tensor, pictures: Pictures | None, gradient: Tensor | None) -> Segmentation:
        """Superpixels of a batch.

        Args:
            x: the input [B, C, *S].
            pictures: None where the input is no picture.
            gradient: [B, *S], the pixel scores; None where there are none, see `uses_gradient`.
        """
        if self.uses_image and pictures is None:
            raise ValueError(
                "superpixels: the input is no grey or colour picture (1 or 3 channels), so it has only "
                "superpixels='gradient', or labels that you give"
            )
        choice = self.choice
        if isinstance(choice, Tensor | np.ndarray):
            return _given(choice, x)
        if isinstance(choice, str) and choice in _SOURCES:
            return self._slic(x, pictures, gradient)
        assert pictures is not None
        if isinstance(choice, str):
            if x.ndim == 5:
                raise ValueError(f"superpixels: {choice!r} is of images; of clips use 'image', or your own labels")
            return _called(SEGMENTATIONS[choice], pictures.rgb)
        return _called(choice, pictures.rgb)

    def _slic(self, x: Tensor, pictures: Pictures | None, gradient: Tensor | None) -> Segmentation:
        assert isinstance(self.choice, str)
        options = self.options
        device = kernel_device(x)
        images: dict[str, Any] = {"images": None}
        if "image" in self.choice:
            assert pictures is not None
            if pictures.x.shape[1] == 3:
                images = {"images": pictures.x.to(device), "mean": pictures.mean, "std": pictures.std}
            else:
                images = {"images": pictures.rgb.to(device)}
        n_segments = self._count(x)
        labels, counts = ops.slic_pictures(
            **images,
            gradient=gradient.to(device) if self.uses_gradient and gradient is not None else None,
            n_segments=n_segments,
            compactness=options.compactness,
            gradient_compactness=options.gradient_compactness,
            max_num_iter=options.max_num_iter,
            spacing=options.spacing,
            min_size_factor=options.min_size_factor,
            num_threads=threads_after_network(x[:, 0].numel()),
        )
        limit = ops.max_superpixels(math.prod(x.shape[2:]), n_segments, options.min_size_factor)
        return Segmentation(labels, counts, limit)

    def _count(self, x: Tensor) -> int:
        spatial = x.shape[2:]
        pixels = math.prod(spatial)
        if self.options.n_segments is not None:
            return check_int(self.options.n_segments, "n_segments", 1, pixels)
        usual = self.options.default_count or _DEFAULT_COUNT[len(spatial)]
        return max(1, min(usual, pixels // _MIN_DEFAULT_PIXELS))


def _contiguous_labels(labels: Any, spatial: tuple[int, ...], origin: str) -> np.ndarray[Any, Any]:
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise TypeError(f"superpixels: expected integer labels {origin}, got dtype {array.dtype}")
    if array.shape != spatial:
        raise ValueError(f"superpixels: expected labels of shape {list(spatial)} {origin}, got {list(array.shape)}")
    # Labels may start anywhere and leave gaps; regions are numbered 0 .. n-1.
    _, inverse = np.unique(array, return_inverse=True)
    return inverse.reshape(spatial).astype(np.int32)


def _given(labels: Any, x: Tensor) -> Segmentation:
    batch, spatial = x.shape[0], tuple(x.shape[2:])
    if tuple(labels.shape) == spatial:
        rows = [_contiguous_labels(labels, spatial, "as given")] * batch
    elif tuple(labels.shape) == (batch, *spatial):
        rows = [_contiguous_labels(item, spatial, "as given") for item in labels]
    else:
        raise ValueError(
            f"superpixels: expected labels of shape {list(spatial)} or {[batch, *spatial]}, got {list(labels.shape)}"
        )
    return _segmentation(rows)


def _called(function: Callable[[Any], Any], rgb: Tensor) -> Segmentation:
    pictures = (rgb.movedim(1, -1) * 255.0).round().to(torch.uint8).cpu().numpy()
    spatial = pictures.shape[1:-1]
    return _segmentation([_contiguous_labels(function(item), spatial, "from the callable") for item in pictures])


def _segmentation(rows: list[np.ndarray[Any, Any]]) -> Segmentation:
    labels = torch.from_numpy(np.stack(rows))
    counts = torch.tensor([int(row.max()) + 1 for row in rows], dtype=torch.int32)
    return Segmentation(labels, counts)
