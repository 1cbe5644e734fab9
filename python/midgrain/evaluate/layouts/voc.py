"""PASCAL VOC 2007's test pictures: one sample for each picture and class that it shows."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from midgrain.evaluate.datasets import Dataset, Entry
from midgrain.evaluate.layouts.places import as_dataset, find_file, find_folder, lines_of, root_of
from midgrain.evaluate.samples import Sample
from midgrain.evaluate.truth import read_mask

__all__ = ["VOC_CLASSES", "voc07"]

#: In the order in which networks count them.
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_NAME = "VOC 2007"
_PLACES = ("VOC2007", "VOCdevkit/VOC2007", ".")


def voc07(folder: Path, *, masks: bool = False) -> Dataset:
    """A sample "picture#class" for every class in every picture of the test set.

    Objects that the annotations call difficult are left out, and with them classes that have no others.

    Args:
        folder: holds `VOC2007/` with `JPEGImages/`, `Annotations/` and `ImageSets/Main/test.txt`; with `masks` also
            `SegmentationClass/` and `ImageSets/Segmentation/test.txt`.
        masks: the pixels of the class are its mask, for the few pictures that have them; otherwise its boxes.

    Raises:
        FileNotFoundError: the part of the layout that is missing, by name.
        ValueError: no picture, annotations that cannot be read.
    """
    root = root_of(folder)
    base = next((root / place for place in _PLACES if (root / place / "Annotations").is_dir()), root / _PLACES[0])
    pictures = find_folder(base, ("JPEGImages",), _NAME)
    annotations = find_folder(base, ("Annotations",), _NAME)
    listing = find_file(base, (f"ImageSets/{'Segmentation' if masks else 'Main'}/test.txt",), f"{_NAME}'s test set")
    segmentation = find_folder(base, ("SegmentationClass",), f"{_NAME}'s masks") if masks else None
    entries = []
    for name in (line.split()[0] for line in lines_of(listing)):
        for label, boxes in _objects(annotations / f"{name}.xml").items():
            read = functools.partial(_sample, pictures / f"{name}.jpg", label, boxes, segmentation)
            entries.append(Entry(f"{name}#{label}", read))
    kind = "voc07-masks" if masks else "voc07"
    return as_dataset(entries, kind, root, located=True, what=f"annotated pictures of {_NAME}")


def _objects(path: Path) -> Mapping[str, list[list[float]]]:
    """Class -> boxes."""
    if not path.is_file():
        raise FileNotFoundError(f"data: {_NAME}'s test set needs the file {str(path)!r}, which is missing")
    found: dict[str, list[list[float]]] = {}
    try:
        for thing in ElementTree.parse(path).iter("object"):
            label = thing.findtext("name", "")
            if label not in VOC_CLASSES:
                raise ValueError(f"expected a class of {_NAME}, got {label!r}")
            corners = [float(thing.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
            if thing.findtext("difficult", "0").strip() != "1":
                # Pixels are counted from 1, and the last ones belong to the box.
                found.setdefault(label, []).append([corners[0] - 1, corners[1] - 1, corners[2], corners[3]])
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"data: {str(path)!r} is no annotation of {_NAME} ({error})") from error
    return found


def _sample(picture: Path, label: str, boxes: Sequence[Sequence[float]], segmentation: Path | None) -> Sample:
    name, number = f"{picture.stem}#{label}", VOC_CLASSES.index(label)
    if segmentation is None:
        return Sample(name, picture, number, boxes=boxes)
    mask = np.equal(read_mask(segmentation / f"{picture.stem}.png"), number + 1)
    return Sample(name, picture, number, mask=mask)
