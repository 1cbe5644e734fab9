"""Files of MATLAB, whose reader has errors of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scipy.io import loadmat

__all__ = ["read_matlab"]


def read_matlab(path: Path, variable: str, **options: Any) -> Any:
    """One variable of a file, by SciPy's reader, which runs nothing that is in it.

    Args:
        path: of the file.
        variable: its name.
        **options: of `scipy.io.loadmat`.

    Raises:
        ValueError: no such file or variable.
    """
    try:
        return loadmat(path, **options)[variable]
    except KeyError as error:
        raise ValueError(f"there is no variable {variable!r}") from error
    except Exception as error:  # SciPy's MatReadError is none of Python's, zlib's and NumPy's come through.
        raise ValueError(f"{error}") from error
