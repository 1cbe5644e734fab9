"""Options that are one number, or one per spatial axis."""

from __future__ import annotations

import numpy as np

from midgrain.ops.checks import check_int, check_int_per_axis

__all__ = ["AXES", "check_ints", "ints_of_axes"]

#: Names of an image's and of a clip's axes.
AXES = {2: ("rows", "columns"), 3: ("frames", "rows", "columns")}
_SEQUENCES = (list, tuple, np.ndarray)


def check_ints(value: object, name: str) -> int | tuple[int, ...]:
    """A positive int, or one for each axis of an image or clip; which of both is not known yet.

    Raises:
        TypeError: anything else than integers.
        ValueError: another number of them, one below 1.
    """
    if isinstance(value, _SEQUENCES) and np.ndim(value) == 1:
        if len(value) not in AXES:
            raise ValueError(f"{name}: expected an int, (rows, columns) or (frames, rows, columns), got {value!r}")
        return tuple(check_int_per_axis(value, name, len(value), 1))
    return check_int(value, name, 1)


def ints_of_axes(value: int | tuple[int, ...] | None, name: str, default: list[int]) -> list[int]:
    """One for each axis of an input; a single one is for rows and columns, a clip's frames keep their default.

    Raises:
        ValueError: one per axis of an image where the input is a clip, or the other way round.
    """
    if value is None:
        return default
    if isinstance(value, int):
        return [*default[:-2], value, value]
    return check_int_per_axis(value, name, len(default), 1)
