"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

__all__ = ["check_writable_folder", "encodable", "write_whole"]


def encodable(text: str) -> str:
    """A text that UTF-8 can hold; bytes of a file's name that are no UTF-8 become a backslash and a code."""
    return text.encode("utf-8", "backslashreplace").decode()


def check_writable_folder(folder: Path, name: str) -> None:
    """See that files can be written into a folder that may not exist yet, before any work is done. Makes nothing.

    Raises:
        ValueError: something else has this name, or stands where a folder should.
        PermissionError: it cannot be written to.
    """
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ValueError(f"{name}: expected a folder, but {str(nearest)!r} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"{name}: {str(nearest)!r} cannot be written to")


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write through a temporary file beside `path`, which gets its name only when complete."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:32]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
