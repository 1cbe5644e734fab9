"""Kinetics-400's validation clips: class folders of video files."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

from midgrain.clips import VIDEO_SUFFIXES, open_clip
from midgrain.evaluate.datasets import Dataset, Entry
from midgrain.evaluate.layouts.places import as_dataset, check_videos_can_be_read, find_folder, root_of
from midgrain.evaluate.samples import Sample

__all__ = ["kinetics400"]

_NAME = "Kinetics-400"


def kinetics400(folder: Path, *, frames: int = 16) -> Dataset:
    """The frames in the middle of the videos of `val/`, each one as it comes, as the thesis takes them.

    The class is the folder's name, underscores for blanks or not; a network that knows its classes' names turns it into
    a number.

    Args:
        folder: holds `val/abseiling/*.mp4` and so on.
        frames: of a clip.

    Returns:
        The first video of every class, then the second and so on.

    Raises:
        FileNotFoundError: no `val/`.
        ModuleNotFoundError: PyAV is not installed.
        ValueError: no videos.
    """
    root = root_of(folder)
    check_videos_can_be_read()
    val = find_folder(root, ("val",), _NAME)
    inside = [
        [(label.name, video) for video in sorted(label.iterdir()) if video.suffix.lower() in VIDEO_SUFFIXES]
        for label in sorted(val.iterdir())
        if label.is_dir()
    ]
    entries = [
        Entry(f"{label}/{video.name}", functools.partial(_sample, label, video, frames))
        for label, video in (pair for one in itertools.zip_longest(*inside) for pair in one if pair is not None)
    ]
    what = f"videos in class folders ({', '.join(sorted(VIDEO_SUFFIXES))})"
    return as_dataset(entries, "kinetics400", val, located=False, what=what)


def _sample(label: str, video: Path, frames: int) -> Sample:
    return Sample(f"{label}/{video.name}", open_clip(video, frames), label.replace("_", " "))
