"""Data sets as lists of samples: folders, CSV files, torchvision's data sets, sequences and iterators."""

from __future__ import annotations

import csv
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from midgrain.clips import VIDEO_SUFFIXES, Clip
from midgrain.evaluate.samples import ClassNames, Sample
from midgrain.evaluate.truth import read_mask
from midgrain.files import encodable
from midgrain.pictures import PICTURE_SUFFIXES

__all__ = ["Dataset", "Entry", "read_dataset"]

_COLUMNS = ("path", "id", "label", "mask", "mask_value", "boxes", "start", "end", "source_rate")
_SECONDS = ("start", "end", "source_rate")
_SUFFIXES = {"pictures": PICTURE_SUFFIXES, "videos": VIDEO_SUFFIXES}


@dataclass(frozen=True)
class Entry:
    """A sample that has not been read yet."""

    id: str
    #: Reads it; may raise anything where the sample is broken.
    read: Callable[[], Sample]

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", encodable(self.id))


@dataclass(frozen=True)
class Dataset:
    """Samples in their order, and what the results' folder notes of where they come from."""

    entries: Iterable[Entry]
    #: How many there are; None where only reading them all would tell.
    length: int | None
    #: JSON; results of one data set are not mixed with those of another.
    description: dict[str, Any] = field(default_factory=dict)
    #: Whether samples can have masks or boxes at all.
    located: bool = True
    #: What the entries' readers have in common, where it is large; other processes get it once, not with every entry.
    shared: Any = None


def read_dataset(dataset: Any, classes: ClassNames) -> Dataset:
    """What a data set holds; pictures are only read when their turn comes.

    Args:
        dataset: a folder of pictures or of videos; a folder of such folders, one for each class, named by the classes'
            names or numbers; a CSV file with a column "path" (a picture, a video or a folder of frames) and any of
            "id", "label", "mask" (a path), "mask_value" (which of the mask's numbers is the object, by default all but
            0), "boxes" ("x0 y0 x1 y1; ...", or JSON), and for videos "start" and "end" in seconds and "source_rate" of
            folders of frames, paths relative to the file; a data set in torchvision's manner with `len()` and
            `dataset[i]` that gives (picture, frames or tensor, class) or (frames, sound, class); a sequence or an
            iterator of such tuples, of `Sample`, or of inputs without a class.
        classes: the names of classes.

    Raises:
        TypeError, ValueError, OSError: none of these, a folder without pictures, class folders without a class, a CSV
            file without paths.
    """
    if isinstance(dataset, Dataset):
        return dataset
    if isinstance(dataset, str | os.PathLike):
        path = Path(dataset)
        if not path.exists():
            raise FileNotFoundError(f"dataset: there is no file or folder {str(path)!r}")
        if path.is_dir():
            return _folder(path, classes)
        if path.suffix.lower() == ".csv":
            return _csv(path)
        raise ValueError(f"dataset: expected a folder or a .csv file, got {str(path)!r}")
    if isinstance(dataset, DataLoader):
        raise TypeError("dataset: expected single samples, got a DataLoader, which makes batches; pass its .dataset")
    if isinstance(dataset, Tensor | Sample | Mapping | Image.Image):
        raise TypeError(f"dataset: expected several samples, got {type(dataset).__name__}")
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return _indexed(dataset)
    if isinstance(dataset, Iterable):
        return Dataset(_iterated(dataset), None, {"kind": "iterator"})
    raise TypeError(
        f"dataset: expected a folder, a CSV file, a torchvision data set or samples, got {type(dataset).__name__}"
    )


def _files(folder: Path) -> dict[str, list[Path]]:
    """A folder's pictures and videos."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return {
        kind: found
        for kind, suffixes in _SUFFIXES.items()
        if (found := [path for path in files if path.suffix.lower() in suffixes])
    }


def _one_kind(folders: Mapping[Path, Mapping[str, list[Path]]], path: Path) -> str | None:
    """What all these folders hold, None where there is none.

    Raises:
        ValueError: both pictures and videos.
    """
    examples = {kind: files[0] for found in folders.values() for kind, files in found.items()}
    if len(examples) > 1:
        raise ValueError(
            f"dataset: expected pictures or videos, {str(path)!r} holds both ({examples['pictures'].relative_to(path)} "
            f"and {examples['videos'].relative_to(path)})"
        )
    return next(iter(examples), None)


def _folder(path: Path, classes: ClassNames) -> Dataset:
    description = {"kind": "folder", "path": str(path.resolve())}
    folders = {path: _files(path)}
    for folder in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")):
        folders[folder] = _files(folder)
    kind = _one_kind(folders, path)
    if kind is None:
        raise ValueError(
            f"dataset: the folder {str(path)!r} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))}) or videos "
            f"({', '.join(sorted(VIDEO_SUFFIXES))}), nor do the folders in it"
        )
    own = folders.pop(path).get(kind, [])
    inside = {folder: found[kind] for folder, found in folders.items() if found}
    if own and inside:
        raise ValueError(
            f"dataset: expected {kind} or class folders, {str(path)!r} holds both ({own[0].name} and "
            f"{next(iter(inside)).name}/)"
        )
    if own:
        entries = [_entry(Sample(_shown(file.name), file)) for file in own]
        return Dataset(entries, len(entries), description, located=False)
    unknown = [folder.name for folder in inside if folder.name not in classes and not folder.name.isdecimal()]
    if unknown:
        raise ValueError(
            f"dataset: expected class folders named by the classes' numbers or names, got {', '.join(unknown[:5])}"
            f"{', ...' if len(unknown) > 5 else ''}; pass classes=, a mapping from the folders' names to classes"
        )
    # The first of every class, then the second: the first so many samples are of all classes.
    rounds = itertools.zip_longest(*([(folder, file) for file in each] for folder, each in inside.items()))
    entries = [
        _entry(Sample(_shown(f"{folder.name}/{file.name}"), file, folder.name))
        for folder, file in (pair for one in rounds for pair in one if pair is not None)
    ]
    return Dataset(entries, len(entries), description, located=False)


def _shown(name: str) -> str:
    """A file's name as a text that can be stored: Linux allows any bytes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _csv(path: Path) -> Dataset:
    content = path.read_bytes()
    description = {"kind": "csv", "path": str(path.resolve()), "sha256": hashlib.sha256(content).hexdigest()}
    try:
        lines = content.decode("utf-8-sig").splitlines(keepends=True)
        reader = csv.DictReader(lines, strict=True)
        names = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = names
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"dataset: {str(path)!r} is no CSV file in UTF-8 ({error})") from error
    if "path" not in names:
        raise ValueError(f"dataset: expected a column 'path' in {str(path)!r}, got {', '.join(names) or 'none'}")
    if not rows:
        raise ValueError(f"dataset: {str(path)!r} has no rows")
    present = frozenset(names) & frozenset(_COLUMNS)
    seen: dict[str, int] = {}
    entries = []
    for row in rows:
        name = (row.get("id") or row["path"] or "").strip() or "(no path)"
        seen[name] = seen.get(name, 0) + 1
        # Several objects of one picture have a row each.
        name = name if seen[name] == 1 else f"{name}#{seen[name]}"
        texts = {key: (row[key] or "").strip() for key in present}
        entries.append(Entry(name, functools.partial(_csv_sample, name, texts, path.parent)))
    return Dataset(entries, len(entries), description, located=bool(present & {"mask", "boxes"}))


def _csv_sample(name: str, texts: Mapping[str, str], folder: Path) -> Sample:
    for key in ("path", "label"):
        if not texts.get(key, "filled"):
            raise ValueError(f"{key}: expected one in every row, got none")
    mask = texts.get("mask")
    boxes = texts.get("boxes")
    return Sample(
        name,
        folder / texts["path"],
        texts.get("label"),
        _mask(folder / mask, texts.get("mask_value")) if mask else None,
        _boxes(boxes) if boxes else None,
        *(_seconds(name, texts.get(name)) for name in _SECONDS),
    )


def _seconds(name: str, text: str | None) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{name}: expected a number, got {text!r}") from error


def _mask(path: Path, value: str | None) -> Path | npt.NDArray[np.bool_]:
    if not value:
        return path
    if not value.isdecimal():
        raise ValueError(f"mask_value: expected a number, got {value!r}")
    if path.is_dir():
        raise ValueError(f"mask_value: expected the picture of a mask, got the folder {path.name!r}")
    found: npt.NDArray[np.bool_] = np.equal(read_mask(path), int(value))
    if not found.any():
        raise ValueError(f"mask_value: {value} is nowhere in {path.name!r}")
    return found


def _boxes(text: str) -> Any:
    try:
        if text.startswith(("[", "{")):
            return json.loads(text)
        return [[float(number) for number in box.replace(",", " ").split()] for box in text.split(";") if box.strip()]
    except ValueError as error:
        raise ValueError(f"boxes: expected 'x0 y0 x1 y1; ...' or JSON, got {text!r}") from error


def _indexed(dataset: Any) -> Dataset:
    length = len(dataset)
    if length == 0:
        raise ValueError("dataset: expected at least one sample, got none")
    description = {"kind": f"{type(dataset).__module__}.{type(dataset).__qualname__}", "length": length}
    if isinstance(dataset, list | tuple):
        entries = [*_iterated(dataset)]
    else:
        entries = [Entry(f"{index:06d}", functools.partial(_item, dataset, index)) for index in range(length)]
    names = {entry.id for entry in entries}
    if len(names) < length:
        twice = next(entry.id for index, entry in enumerate(entries) if entry.id in {e.id for e in entries[:index]})
        raise ValueError(f"dataset: expected every id once, got {twice!r} twice")
    return Dataset(entries, length, description, shared=None if isinstance(dataset, list | tuple) else dataset)


def _item(dataset: Any, index: int) -> Sample:
    return _as_sample(dataset[index], f"{index:06d}")


def _iterated(items: Iterable[Any]) -> Iterator[Entry]:
    for index, item in enumerate(items):
        name = item.id if isinstance(item, Sample) else f"{index:06d}"
        yield Entry(str(name), functools.partial(_as_sample, item, f"{index:06d}"))


def _entry(sample: Sample) -> Entry:
    return Entry(sample.id, functools.partial(_as_sample, sample, sample.id))


def _as_sample(item: Any, name: str) -> Sample:
    if isinstance(item, Sample):
        return item
    if isinstance(item, Tensor | np.ndarray | Image.Image | Clip | str | os.PathLike):
        return Sample(name, item)
    if isinstance(item, Sequence) and len(item) in (2, 3):
        # Of three, the second is a video's sound.
        return Sample(name, item[0], _label(item[-1]))
    raise TypeError(f"dataset: expected a Sample or (picture or tensor, class), got {type(item).__name__}")


def _label(label: Any) -> int | str | None:
    if label is None or isinstance(label, str):
        return label
    if isinstance(label, bool):
        raise TypeError("label: expected a class's number, got a bool")
    try:
        number = torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"label: expected a class's number or name, got {type(label).__name__}") from error
    if number.ndim or number.is_floating_point() or number.dtype == torch.bool:
        raise TypeError(f"label: expected a class's number, got {label!r}")
    return int(number)
