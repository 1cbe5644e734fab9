"""One picture or clip of a data set, with what is known about it, and how it becomes a network's input."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from midgrain.pictures import Preprocess, open_picture

__all__ = ["ClassNames", "Prepared", "PreprocessLike", "Sample", "prepare", "read_mask"]

#: A `Preprocess`, or any other callable from an RGB picture to floats [3, H, W] or [1, 3, H, W].
PreprocessLike: TypeAlias = Preprocess | Callable[[Image.Image], Tensor]

# Modes of PIL whose pixels are numbers of objects, or levels.
_LEVELS = ("1", "L", "P", "I", "I;16")


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture or clip.

    Attributes:
        id: its name in the results, unlike any other's of the data set.
        input: floats [C, H, W] or [C, T, H, W], normalised as the network expects, or a picture (PIL, or the path of
            a file) that is still to be preprocessed.
        target: its class, by number or by name; None where it is not known.
        mask: the pixels of its object: bool or numbers (0: background), [H, W] or [T, H, W] of the input's size, of a
            picture of the picture's own size before preprocessing; or the path of such a picture.
        boxes: of its objects, x0, y0, x1, y1 in the same pixels, the last ones excluded: [n, 4], of clips [n, T, 4],
            where four NaNs say that a frame does not show the object.
    """

    id: str
    input: Tensor | Image.Image | str | os.PathLike[str]
    target: int | str | None = None
    mask: Tensor | npt.NDArray[Any] | str | os.PathLike[str] | None = None
    boxes: Tensor | npt.NDArray[Any] | Sequence[Any] | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """A sample as a network and the measures take it."""

    #: Floats [1, C, *S].
    x: Tensor
    #: Its class; None where it is not known.
    label: int | None
    #: Bool [1, *S]; None where neither mask nor boxes are known.
    mask: Tensor | None
    #: Float64 [n, 4] or [n, T, 4], inside the picture, NaN in frames without the object; None where neither boxes nor
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
        preprocess: for pictures.
        classes: to find named classes.

    Raises:
        TypeError, ValueError, OSError: a picture or mask that cannot be read, of other sizes than each other, an empty
            mask, boxes outside the picture, a picture without a `preprocess`, an unknown class.
    """
    if not isinstance(sample, Sample):
        raise TypeError(f"dataset: expected a Sample, got {type(sample).__name__}")
    label = None if sample.target is None else classes.number(sample.target)
    if isinstance(sample.input, Tensor):
        x = _batch_of_one(sample.input, "input")
        if not torch.isfinite(x).all():
            raise ValueError("input: expected finite values, got NaN or infinity")
        size = (x.shape[-1], x.shape[-2])
        mask = _mask(sample.mask, tuple(x.shape[2:]))
        boxes = _boxes(sample.boxes, size, x.shape[2] if x.ndim == 5 else None)
    else:
        x, mask, boxes = _of_picture(sample, preprocess)
    if mask is not None and not mask.any():
        raise ValueError("mask: no pixel of the object is in what the network sees")
    if mask is None and boxes is not None:
        mask = _inside(boxes, tuple(x.shape[2:]))
    elif boxes is None and mask is not None:
        boxes = _around(mask) if mask.ndim == 2 else np.stack([_around(frame)[0] for frame in mask])[None]
    return Prepared(
        x,
        label,
        None if mask is None else torch.from_numpy(np.ascontiguousarray(mask))[None],
        None if boxes is None else torch.from_numpy(boxes),
    )


def _of_picture(
    sample: Sample, preprocess: PreprocessLike | None
) -> tuple[Tensor, npt.NDArray[np.bool_] | None, npt.NDArray[np.float64] | None]:
    picture = sample.input.convert("RGB") if isinstance(sample.input, Image.Image) else None
    if picture is None:
        if not isinstance(sample.input, str | os.PathLike):
            raise TypeError(f"input: expected a tensor, a picture or a path, got {type(sample.input).__name__}")
        picture = open_picture(sample.input)
    if preprocess is None:
        raise ValueError("preprocess: expected one for pictures, got None; see midgrain.pictures.Preprocess")
    x = _batch_of_one(preprocess(picture), "preprocess")
    mask = _mask(sample.mask, (picture.height, picture.width))
    boxes = _boxes(sample.boxes, picture.size, None)
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


def _batch_of_one(tensor: object, name: str) -> Tensor:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        got = f"dtype {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"{name}: expected floats, normalised as the network expects, got {got}")
    x = tensor.detach()
    if x.ndim == 5 or (x.ndim == 4 and name == "preprocess"):
        if x.shape[0] != 1:
            raise ValueError(f"{name}: expected one picture or clip, got shape {list(x.shape)}")
    else:
        x = x[None]
    if x.ndim not in (4, 5) or 0 in x.shape:
        raise ValueError(f"{name}: expected [C, H, W] or [C, T, H, W] without empty axes, got {list(tensor.shape)}")
    return x


def _mask(mask: Any, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
    if mask is None:
        return None
    if isinstance(mask, str | os.PathLike):
        values = read_mask(Path(mask))
    elif isinstance(mask, Tensor | np.ndarray):
        values = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else mask
    else:
        raise TypeError(f"mask: expected a tensor, an array or a path, got {type(mask).__name__}")
    if values.dtype.kind not in "biuf":
        raise TypeError(f"mask: expected truth values or numbers, got dtype {values.dtype}")
    if values.shape != shape:
        raise ValueError(f"mask: expected shape {list(shape)}, one value per pixel, got {list(values.shape)}")
    found: npt.NDArray[Any] = np.not_equal(values, 0)
    if not found.any():
        raise ValueError("mask: expected an object, got background only")
    return np.asarray(found, bool)


def read_mask(path: Path) -> npt.NDArray[Any]:
    """A mask's picture as numbers [H, W], of one with a palette the indices; of a coloured one black is 0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture.
    """
    if not path.is_file():
        raise FileNotFoundError(f"mask: there is no file {str(path)!r}")
    try:
        with Image.open(path) as opened:
            if opened.mode in _LEVELS:
                return np.asarray(opened)
            # The greatest of the three, which is 0 for black alone.
            brightest: npt.NDArray[Any] = np.asarray(opened.convert("RGB")).max(-1)
            return brightest
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"mask: {str(path)!r} is not a picture that can be read ({error})") from error


def _boxes(boxes: Any, size: tuple[int, int], frames: int | None) -> npt.NDArray[np.float64] | None:
    """Checked, float64 [n, 4] or [n, T, 4]; `size` is (width, height)."""
    if boxes is None:
        return None
    try:
        values = np.asarray(boxes.detach().cpu() if isinstance(boxes, Tensor) else boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"boxes: expected numbers x0, y0, x1, y1 for each object, got {boxes!r}") from error
    wanted = ["n", 4] if frames is None else ["n", frames, 4]
    if values.ndim == len(wanted) - 1 and list(values.shape) == wanted[1:]:
        values = values[None]
    if values.ndim != len(wanted) or 0 in values.shape or list(values.shape[1:]) != wanted[1:]:
        raise ValueError(f"boxes: expected shape [{', '.join(map(str, wanted))}], got {list(values.shape)}")
    limits = np.array(size, np.float64)
    absent: npt.NDArray[np.bool_] = np.all(np.isnan(values), axis=-1)
    if frames is not None and absent.all(1).any():
        raise ValueError("boxes: expected a box in at least one frame for each object, got none")
    there = values if frames is None else values[~absent]
    if not np.isfinite(there).all() or (there[..., :2] < 0).any() or (there[..., 2:] > limits).any():
        raise ValueError(f"boxes: expected x0, y0, x1, y1 inside {size[0]} x {size[1]} pixels, got {values.tolist()}")
    if (values[..., 2:] <= values[..., :2]).any():
        raise ValueError(f"boxes: expected x0 < x1 and y0 < y1, got {values.tolist()}")
    return values


def _inside(boxes: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The pixels whose centre is in one of the boxes."""
    rows, columns = np.arange(shape[-2])[:, None] + 0.5, np.arange(shape[-1]) + 0.5
    x0, y0, x1, y1 = (boxes[..., side, None, None] for side in range(4))
    covered = np.asarray(((columns > x0) & (columns < x1) & (rows > y0) & (rows < y1)).any(0))
    if not covered.any():
        raise ValueError("boxes: smaller than a pixel of what the network sees")
    return covered


def _around(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    if not mask.any():
        return np.full((1, 4), np.nan)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float64)
