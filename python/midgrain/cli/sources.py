"""What is to be explained: photographs for networks that take pictures, videos for those that take clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["check_there", "find_sources", "unused"]


def check_there(paths: Sequence[Path]) -> None:
    """Raises FileNotFoundError at the first file or folder that does not exist."""
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"picture: there is no file or folder {str(path)!r}")


def find_sources(paths: Sequence[Path], model: str, *, clips: bool) -> list[Path]:
    """Files as given; folders replaced by what they hold, but a folder of pictures is one clip where those are wanted.

    Args:
        paths: files and folders that exist.
        model: the network's name, for messages.
        clips: whether it takes clips.

    Raises:
        ValueError: a folder without any, a video for a network that takes pictures, a picture for one that takes clips.
    """
    from midgrain.clips import VIDEO_SUFFIXES
    from midgrain.pictures import PICTURE_SUFFIXES, list_pictures

    for path in paths:
        suffix = path.suffix.lower()
        if not clips and suffix in VIDEO_SUFFIXES and not path.is_dir():
            raise ValueError(f"picture: {model} takes pictures, got the video {str(path)!r}; try --model demo-clip")
        if clips and suffix in PICTURE_SUFFIXES and not path.is_dir():
            raise ValueError(f"clip: {model} takes clips, got the picture {str(path)!r}")
    if not clips:
        return list_pictures([*paths])
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        files = sorted(file for file in path.iterdir() if file.is_file())
        videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
        if not videos and not any(file.suffix.lower() in PICTURE_SUFFIXES for file in files):
            raise ValueError(f"clip: the folder {str(path)!r} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))})")
        found += videos or [path]
    return found


def unused(stem: str, taken: set[str]) -> str:
    """A file's stem that is not taken yet, and now is: a.jpg and a.png must not overwrite each other's results."""
    free, number = stem, 2
    while free in taken:
        free, number = f"{stem}-{number}", number + 1
    taken.add(free)
    return free
