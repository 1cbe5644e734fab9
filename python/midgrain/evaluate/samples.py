"""One picture or clip of a data set, with what is known about it, and how it becomes a network's input."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from midgrain.clips import Clip, ClipPreprocess
from midgrain.evaluate.clip_samples import is_clip, prepare_clip
from midgrain.evaluate.truth import boxes_around, checked_boxes, checked_mask, inside_boxes
from midgrain.pictures import Preprocess, open_picture

__all__ = ["ClassNames", "Prepared", "PreprocessLike", "Sample", "prepare"]

#: A `Preprocess`, or any other callable from an RGB picture to floats [3, H, W] or [1, 3, H, W]; for videos a
#: `ClipPreprocess`, or any other from uint8 frames [T, H, W, 3] to floats [3, T, H, W] or [1, 3, T, H, W].
PreprocessLike: TypeAlias = Preprocess | ClipPreprocess | Callable[[Any], Tensor]


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture or clip.

    Attributes:
        id: its name in the results, unlike any other's of the data set.
        input: floats [C, H, W] or [C, T, H, W], normalised as the network expects; or what is still to be preprocessed:
            a picture (PIL, or the path of a file), a video (the path of a file or of a folder of frames, a
            `midgrain.clips.Clip`, or the frames that the network shall see, uint8 [T, H, W, 3] or [T, 3, H, W]).
        target: its class, by number or by name; None where it is not known.
        mask: the pixels of its object: bool or numbers (0: background), [H, W] or [T, H, W] of the input's size, of a
            picture of the picture's own size before preprocessing; or the path of such a picture. Of a video [H, W]
            for all frames or [F, H, W] for each of its frames, in its own pixels; or the path of a picture, or of a
            folder with a picture for each frame.
        boxes: of its objects, x0, y0, x1, y1 in the same pixels, the last ones excluded: [n, 4], of clips [n, T, 4]
            with NaN in frames that do not show the object. Of a video [n, 4] for all frames, [n, F, 4] for each of its
            frames, or a mapping from a frame's number to [n, 4].
        start: of a video file, the seconds from which on it is used; by default all of it.
        end: up to there.
        source_rate: frames per second of a folder of frames.
    """

    id: str
    input: Tensor | Image.Image | Clip | npt.NDArray[np.uint8] | str | os.PathLike[str]
    target: int | str | None = None
    mask: Tensor | npt.NDArray[Any] | str | os.PathLike[str] | None = None
    boxes: Tensor | npt.NDArray[Any] | Sequence[Any] | Mapping[Any, Any] | None = None
    start: float | None = None
    end: float | None = None
    source_rate: float | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """A sample as a network and the measures take it."""

    #: Floats [1, C, *S].
    x: Tensor
    #: Its class; None where it is not known.
    label: int | None
    #: Bool [1, *S]; None where neither mask nor boxes are known.
    mask: Tensor | None
    #: Float64 [n, 4], inside the picture, or [n, T, 4], NaN in frames without the object; None where neither boxes nor
    #: a mask are known.
    boxes: Tensor | None


class ClassNames:
    """Classes by name.

    Args:
        classes: names by class number, or a mapping from name to number; None where classes have no names.
    """

    def __init__(self, classes: Sequence[str] | Mapping[str, int] | None = None):
        self._numbers: dict[str, int | None] = {}
        pairs = classes.items() if isinstance(classes, Mapping) else [(n, i) for i, n in enumerate(classes or ())]
        for name, number in pairs:
            key = str(name).casefold()
            # Two classes of one name (ImageNet has two cranes) cannot be told apart by it.
            self._numbers[key] = None if key in self._numbers else int(number)

    def __contains__(self, name: str) -> bool:
        return name.casefold() in self._numbers

    def number(self, label: int | str) -> int:
        """The class that a label means.

        Raises:
            ValueError: no number and no class's name, or the name of two classes.
        """
        if not isinstance(label, str):
            return int(label)
        text = label.strip()
        if text.casefold() in self._numbers:
            number = self._numbers[text.casefold()]
            if number is None:
                raise ValueError(f"label: {text!r} is the name of more than one class; use its number")
            return number
        if text.isdecimal():
            return int(text)
        known = "" if self._numbers else ", and the classes have no names here"
        raise ValueError(f"label: expected a class's number or name, got {text!r}{known}")


def prepare(sample: Sample, preprocess: PreprocessLike | None, classes: ClassNames) -> Prepared:
    """Read a sample, preprocess it, and bring mask and boxes to the size of the input.

    Boxes stand in for a mask that is not there (their union), and the tightest box around a mask for missing boxes.

    Args:
        sample: the sample.
        preprocess: for pictures and videos.
        classes: to find named classes.

    Raises:
        TypeError, ValueError, OSError: a picture or mask that cannot be read, of other sizes than each other, an empty
            mask, boxes outside the picture, a picture without a `preprocess`, an unknown class.
    """
    if not isinstance(sample, Sample):
        raise TypeError(f"dataset: expected a Sample, got {type(sample).__name__}")
    label = None if sample.target is None else classes.number(sample.target)
    if isinstance(sample.input, Tensor) and (sample.input.ndim != 4 or sample.input.dtype != torch.uint8):
        x = _batch_of_one(sample.input, "input")
        if not torch.isfinite(x).all():
            raise ValueError("input: expected finite values, got NaN or infinity")
        size = (x.shape[-1], x.shape[-2])
        mask = checked_mask(sample.mask, tuple(x.shape[2:]))
        boxes = checked_boxes(sample.boxes, size, x.shape[2] if x.ndim == 5 else None)
    elif is_clip(sample.input, preprocess):
        clip = prepare_clip(
            sample.input,
            preprocess,
            sample.mask,
            sample.boxes,
            start=sample.start,
            end=sample.end,
            source_rate=sample.source_rate,
        )
        x, mask, boxes = _batch_of_one(clip.x, "preprocess", clips=True), clip.mask, clip.boxes
    else:
        x, mask, boxes = _of_picture(sample, preprocess)
    if mask is not None and not mask.any():
        raise ValueError("mask: no pixel of the object is in what the network sees")
    if mask is None and boxes is not None:
        mask = inside_boxes(boxes, tuple(x.shape[2:]))
    elif boxes is None and mask is not None:
        boxes = boxes_around(mask)
    return Prepared(
        x,
        label,
        None if mask is None else torch.from_numpy(np.ascontiguousarray(mask))[None],
        None if boxes is None else torch.from_numpy(boxes),
    )


def _of_picture(
    sample: Sample, preprocess: PreprocessLike | None
) -> tuple[Tensor, npt.NDArray[np.bool_] | None, npt.NDArray[np.float64] | None]:
    for name in ("start", "end", "source_rate"):
        if getattr(sample, name) is not None:
            raise ValueError(f"{name}: expected None for a picture, got {getattr(sample, name)}")
    picture = sample.input.convert("RGB") if isinstance(sample.input, Image.Image) else None
    if picture is None:
        if not isinstance(sample.input, str | os.PathLike):
            raise TypeError(f"input: expected a tensor, a picture or a path, got {type(sample.input).__name__}")
        picture = open_picture(sample.input)
    if preprocess is None:
        raise ValueError("preprocess: expected one for pictures, got None; see midgrain.pictures.Preprocess")
    assert not isinstance(preprocess, ClipPreprocess)  # Then it would have been refused as no clip.
    x = _batch_of_one(preprocess(picture), "preprocess")
    mask = checked_mask(sample.mask, (picture.height, picture.width))
    boxes = checked_boxes(sample.boxes, picture.size, None)
    if mask is None and boxes is None:
        return x, None, None
    if not isinstance(preprocess, Preprocess):
        raise ValueError(
            "preprocess: expected a midgrain.pictures.Preprocess for pictures with masks or boxes, so that these can "
            f"be cropped alike, got {type(preprocess).__name__}"
        )
    if mask is not None:
        stencil = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
        mask = np.asarray(preprocess.cropped(stencil)) >= 128
    if boxes is not None:
        boxes = preprocess.placed(boxes, picture.size)
        if not len(boxes):
            raise ValueError("boxes: none of them is in what the network sees")
    return x, mask, boxes


def _batch_of_one(tensor: object, name: str, *, clips: bool = False) -> Tensor:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        got = f"dtype {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"{name}: expected floats, normalised as the network expects, got {got}")
    x = tensor.detach()
    if x.ndim == 5 or (x.ndim == 4 and name == "preprocess" and not clips):
        if x.shape[0] != 1:
            raise ValueError(f"{name}: expected one picture or clip, got shape {list(x.shape)}")
    else:
        x = x[None]
    if x.ndim not in (4, 5) or 0 in x.shape:
        raise ValueError(f"{name}: expected [C, H, W] or [C, T, H, W] without empty axes, got {list(tensor.shape)}")
    return x
