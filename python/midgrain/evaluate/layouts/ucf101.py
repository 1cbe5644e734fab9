"""UCF101's videos with the boxes of 24 classes: one sample for each window of 16 frames."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain.clips import open_clip
from midgrain.evaluate.datasets import Dataset, Entry
from midgrain.evaluate.layouts.matlab import read_matlab
from midgrain.evaluate.layouts.places import (
    as_dataset,
    check_videos_can_be_read,
    find_file,
    find_folder,
    lines_of,
    root_of,
)
from midgrain.evaluate.samples import Sample

__all__ = ["ucf101"]

_NAME = "UCF101"
_VIDEOS = ("UCF-101", "UCF101")
_ANNOTATIONS = ("finalAnnots.mat", "corrected-UCF101-Annots/finalAnnots.mat")
_LISTS = ("testlist01.txt", "ucfTrainTestlist/testlist01.txt", "corrected-UCF101-Annots/testlist01.txt")
_CLASSES = ("classInd.txt", "ucfTrainTestlist/classInd.txt")


def ucf101(folder: Path, *, frames: int = 16, stride: int = 8) -> Dataset:
    """Windows of the first test list's videos that show one action, which has a box in every frame of the window.

    The boxes are those of the corrected annotations (Singh et al. 2017), github.com/gurkirt/corrected-UCF101-Annots;
    of its files the one for MATLAB is read, which can hold nothing but numbers and texts.

    Args:
        folder: holds `UCF-101/Basketball/*.avi` and so on, `finalAnnots.mat` and `testlist01.txt` (there, or in
            `ucfTrainTestlist/`); with `classInd.txt` classes are its numbers, less 1, otherwise they are named.
        frames: of a window.
        stride: from one window's first frame to the next one's.

    Raises:
        FileNotFoundError: the part of the layout that is missing, by name.
        ModuleNotFoundError: PyAV is not installed.
        ValueError: no such windows, a file that cannot be read.
    """
    root = root_of(folder)
    check_videos_can_be_read()
    videos = find_folder(root, _VIDEOS, f"{_NAME}'s videos")
    annotated = _annotated(find_file(root, _ANNOTATIONS, f"{_NAME}'s boxes"))
    listing = lines_of(find_file(root, _LISTS, f"{_NAME}'s test list"))
    numbers = _class_numbers(root)
    entries = []
    for name in (line.split()[0].removesuffix(".avi") for line in listing):
        label = name.partition("/")[0]
        for window in _windows(annotated.get(name, []), frames, stride):
            read = functools.partial(_sample, videos / f"{name}.avi", name, numbers.get(label, label), window)
            entries.append(Entry(_id(name, window), read))
    what = f"windows of {frames} frames with boxes"
    return as_dataset(entries, "ucf101", root, located=True, what=what)


@dataclass(frozen=True)
class _Tube:
    """An action's boxes, one for each frame from `first` on."""

    #: Counted from 0.
    first: int
    #: x0, y0, x1, y1, the last ones excluded, [n, 4].
    boxes: npt.NDArray[np.float64]


def _annotated(path: Path) -> dict[str, list[_Tube]]:
    """Video, as "Basketball/v_Basketball_g01_c01", -> its actions."""
    try:
        videos = read_matlab(path, "annot", simplify_cells=True)
        videos = [videos] if isinstance(videos, Mapping) else videos
        return {str(video["name"]): [_tube(tube) for tube in _listed(video["tubes"])] for video in videos}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"data: {str(path)!r} holds no annotations of {_NAME} ({error})") from error


def _listed(tubes: Any) -> list[Any]:
    """SciPy gives one tube alone, several in a list, none as an empty array."""
    return [tubes] if isinstance(tubes, Mapping) else list(tubes)


def _tube(tube: Mapping[str, Any]) -> _Tube:
    corners = np.asarray(tube["boxes"], np.float64).reshape(-1, 4)
    # Pixels and frames are counted from 1.
    low = np.maximum(corners[:, :2] - 1.0, 0.0)
    return _Tube(int(tube["sf"]) - 1, np.concatenate([low, low + corners[:, 2:]], 1))


def _windows(tubes: list[_Tube], frames: int, stride: int) -> Iterator[_Tube]:
    """Of a video with one action the windows that lie in it, which begin at multiples of the stride."""
    if len(tubes) != 1:
        return
    tube = tubes[0]
    for first in range(0, tube.first + len(tube.boxes) - frames + 1, stride):
        if first >= tube.first:
            yield _Tube(first, tube.boxes[first - tube.first :][:frames])


def _class_numbers(root: Path) -> dict[str, int]:
    path = next((root / place for place in _CLASSES if (root / place).is_file()), None)
    if path is None:
        return {}
    try:
        return {name: int(number) - 1 for number, name in (line.split() for line in lines_of(path))}
    except ValueError as error:
        raise ValueError(f"data: {str(path)!r} is no list of classes ({error})") from error


def _id(name: str, window: _Tube) -> str:
    return f"{name}#{window.first}"


def _sample(video: Path, name: str, label: int | str, window: _Tube) -> Sample:
    clip = open_clip(video, len(window.boxes), position=window.first, short="refuse")
    boxes = {window.first + index: [box] for index, box in enumerate(window.boxes.tolist())}
    return Sample(_id(name, window), clip, label, boxes=boxes)
