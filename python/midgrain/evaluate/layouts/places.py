"""Where the parts of a data set lie in a folder, and errors that name the part that is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from midgrain.evaluate.datasets import Dataset, Entry

__all__ = ["as_dataset", "check_videos_can_be_read", "find_file", "find_folder", "lines_of", "root_of"]


def root_of(folder: Path) -> Path:
    """The folder that a user named.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is a file.
    """
    if not folder.exists():
        raise FileNotFoundError(f"data: there is no folder {str(folder)!r}")
    if not folder.is_dir():
        raise ValueError(f"data: expected a folder, but {str(folder)!r} is a file")
    return folder


def find_folder(root: Path, places: Sequence[str], layout: str) -> Path:
    """The first of the places below the root that is a folder.

    Raises:
        FileNotFoundError: none of them is.
    """
    for place in places:
        if (root / place).is_dir():
            return root / place
    raise FileNotFoundError(
        f"data: {layout} needs the folder {_either(places, '/')} in {str(root)!r}, which is missing"
    )


def find_file(root: Path, places: Sequence[str], layout: str) -> Path:
    """The first of the places below the root that is a file.

    Raises:
        FileNotFoundError: none of them is.
    """
    for place in places:
        if (root / place).is_file():
            return root / place
    raise FileNotFoundError(f"data: {layout} needs the file {_either(places)} in {str(root)!r}, which is missing")


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that hold something.

    Raises:
        ValueError: it is no text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"data: {str(path)!r} is no text in UTF-8 ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def check_videos_can_be_read() -> None:
    """Before the first of thousands of videos fails.

    Raises:
        ModuleNotFoundError: PyAV is not installed.
    """
    if importlib.util.find_spec("av") is None:
        raise ModuleNotFoundError(
            "data: the package av is not installed, which reads videos; pip install 'midgrain[video]'"
        )


def as_dataset(entries: Sequence[Entry], kind: str, root: Path, *, located: bool, what: str) -> Dataset:
    """The entries as a data set.

    Raises:
        ValueError: there are none.
    """
    if not entries:
        raise ValueError(f"data: expected {what} in {str(root)!r}, found none")
    return Dataset(list(entries), len(entries), {"kind": kind, "path": str(root.resolve())}, located)


def _either(places: Sequence[str], ending: str = "") -> str:
    return " or ".join(repr(f"{place}{ending}") for place in places)
