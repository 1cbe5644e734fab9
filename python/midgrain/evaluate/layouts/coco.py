"""COCO 2014's validation pictures: one sample for each picture and category that it shows."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from midgrain.evaluate.datasets import Dataset, Entry
from midgrain.evaluate.layouts.places import as_dataset, find_file, find_folder, root_of
from midgrain.evaluate.samples import Sample
from midgrain.measures import is_difficult

__all__ = ["coco", "coco_difficult"]

_NAME = "COCO 2014"
_FILE = "annotations/instances_val2014.json"


def coco(folder: Path) -> Dataset:
    """A sample "picture#category" for every category in every picture, its mask all objects of the category.

    Classes are the categories' ranks by their number in the file, 0 .. 79, as networks count them. Outlines are filled
    with Pillow, which counts the pixels on the line itself as inside; crowds are run-length codes.

    Args:
        folder: holds `val2014/*.jpg` and `annotations/instances_val2014.json`.

    Raises:
        FileNotFoundError: the part of the layout that is missing, by name.
        ValueError: a file that is not COCO's.
    """
    root = root_of(folder)
    pictures = find_folder(root, ("val2014",), _NAME)
    shown = _shown(find_file(root, (_FILE,), _NAME))
    entries = [Entry(one.id, functools.partial(_sample, one, pictures)) for one in shown]
    return as_dataset(entries, "coco2014", root, located=True, what=f"annotated pictures of {_NAME}")


def coco_difficult(folder: Path, ids: Collection[str]) -> set[str]:
    """Those of the samples that are in the pointing game's difficult subset, see `midgrain.measures.is_difficult`.

    Args:
        folder: see `coco`.
        ids: of samples.
    """
    shown = _shown(find_file(root_of(folder), (_FILE,), _NAME))
    categories: dict[str, int] = {}
    for one in shown:
        categories[one.picture] = categories.get(one.picture, 0) + 1
    found = set()
    for one in shown:
        if one.id in ids and categories[one.picture] > 1:
            mask = torch.from_numpy(_mask(one))[None]
            if bool(is_difficult(mask, torch.tensor([True]))):
                found.add(one.id)
    return found


@dataclass(frozen=True)
class _Shown:
    """One category in one picture."""

    id: str
    picture: str
    size: tuple[int, int]
    #: The category's rank.
    category: int
    #: COCO's "segmentation" of every object: lists of x, y, x, y, ... or a run-length code.
    outlines: Sequence[Any]


def _shown(path: Path) -> list[_Shown]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pictures = {one["id"]: one for one in content["images"]}
        ranks = {one: rank for rank, one in enumerate(sorted(one["id"] for one in content["categories"]))}
        outlines: dict[tuple[int, int], list[Any]] = {}
        for one in content["annotations"]:
            outlines.setdefault((one["image_id"], one["category_id"]), []).append(one["segmentation"])
        found = []
        for (picture, category), each in sorted(outlines.items()):
            about = pictures[picture]
            name = f"{Path(about['file_name']).stem}#{category}"
            size = (int(about["width"]), int(about["height"]))
            found.append(_Shown(name, about["file_name"], size, ranks[category], each))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"data: {str(path)!r} is no instances file of {_NAME} ({error!r})") from error
    return found


def _sample(one: _Shown, pictures: Path) -> Sample:
    return Sample(one.id, pictures / one.picture, one.category, mask=_mask(one))


def _mask(one: _Shown) -> npt.NDArray[np.bool_]:
    canvas = Image.new("1", one.size)
    pen = ImageDraw.Draw(canvas)
    crowds = np.zeros(one.size[::-1], bool)
    for outline in one.outlines:
        if isinstance(outline, Mapping):
            crowds |= _run_lengths(outline)
            continue
        for polygon in outline:
            if len(polygon) >= 6:
                pen.polygon([float(number) for number in polygon], fill=1, outline=1)
    return np.asarray(np.asarray(canvas) | crowds, bool)


def _run_lengths(code: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """COCO's uncompressed run-length code: pixels by columns, background first."""
    counts = code["counts"]
    if isinstance(counts, str | bytes):
        raise ValueError("mask: expected run lengths as a list, as in COCO's own files, got a compressed text")
    height, width = code["size"]
    inside = np.arange(len(counts)) % 2 == 1
    pixels: npt.NDArray[np.bool_] = np.repeat(inside, counts)
    if len(pixels) != height * width:
        raise ValueError(f"mask: expected run lengths of {height} x {width} pixels, got {len(pixels)}")
    return pixels.reshape(width, height).T
