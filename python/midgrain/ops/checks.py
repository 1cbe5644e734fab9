"""Argument checks shared by the public functions: each raises one clear sentence."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "check_bool",
    "check_compactness",
    "check_finite",
    "check_finite_numbers",
    "check_int",
    "check_int_per_axis",
    "check_positive",
    "check_ranges",
    "check_real_dtype",
    "check_sequence",
    "check_spacing",
]

# Below this, space has long ceased to matter and fixed point would be too coarse for the colours.
_MIN_COMPACTNESS = 1e-4
_FLOAT32_MAX = float(np.finfo(np.float32).max)
# As tuples: torch.compile cannot follow `A | B` in isinstance in every torch release.
_BOOLS = (bool, np.bool_)
_SEQUENCES = (list, tuple, np.ndarray)


def check_bool(value: object, name: str) -> bool:
    """True or False, and no number."""
    if not isinstance(value, _BOOLS):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    return bool(value)


def check_int(value: object, name: str, low: int, high: int | None = None) -> int:
    """An integer in low .. high."""
    if isinstance(value, _BOOLS) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    number = int(value)
    if number < low or (high is not None and number > high):
        allowed = f"{low} or more" if high is None else f"{low} .. {high}"
        raise ValueError(f"{name}: expected {allowed}, got {number}")
    return number


def _check_real(value: object, name: str) -> float:
    if isinstance(value, _BOOLS) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:  # an int beyond all floats
        return math.inf


def check_positive(value: object, name: str, *, zero: bool = False) -> float:
    """A positive finite number; zero too where `zero` says so."""
    number = _check_real(value, name)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name}: expected a {'non-negative' if zero else 'positive'} finite number, got {value}")
    return number


def check_share(value: object, name: str) -> float:
    """A share: above 0, up to 1."""
    number = _check_real(value, name)
    if not 0.0 < number <= 1.0:
        raise ValueError(f"{name}: expected above 0 and up to 1, got {value}")
    return number


def check_compactness(value: object, name: str) -> float:
    """A weight of colours or gradients against space that fixed point can follow."""
    compactness = check_positive(value, name)
    if compactness < _MIN_COMPACTNESS:
        raise ValueError(f"{name}: expected {_MIN_COMPACTNESS:g} or more, got {value}")
    return compactness


def check_sequence(value: object, name: str, length: int, entry: str) -> Sequence[Any] | npt.NDArray[Any]:
    """A list, tuple or NumPy array of `length` entries; `entry` says in words what there is one of."""
    if not isinstance(value, _SEQUENCES) or (isinstance(value, np.ndarray) and value.ndim == 0):
        raise TypeError(f"{name}: expected one {entry} ({length}), got {type(value).__name__}")
    if len(value) != length:
        raise ValueError(f"{name}: expected one {entry} ({length}), got {len(value)}")
    return value


def check_finite_numbers(value: object, name: str, length: int, default: float) -> list[float]:
    """`length` numbers that float32 holds; None stands for that many times the default."""
    if value is None:
        return [default] * length
    entries = [_check_real(entry, name) for entry in check_sequence(value, name, length, "number per channel")]
    if not all(-_FLOAT32_MAX <= number <= _FLOAT32_MAX for number in entries):
        raise ValueError(f"{name}: expected finite numbers, got {entries}")
    return entries


def check_int_per_axis(value: object, name: str, axes: int, low: int, high: int | None = None) -> list[int]:
    """An integer in low .. high for each spatial axis; a single one stands for all of them."""
    if isinstance(value, numbers.Integral):
        return [check_int(value, name, low, high)] * axes
    return [check_int(entry, name, low, high) for entry in check_sequence(value, name, axes, "int per spatial axis")]


def check_ranges(ranges: object, channels: int) -> list[float]:
    """(low, high) per channel, finite in float32 and in order; flattened."""
    bounds: list[float] = []
    for pair in check_sequence(ranges, "ranges", channels, "(low, high) per channel"):
        low, high = (_check_real(bound, "ranges") for bound in check_sequence(pair, "ranges", 2, "bound for each end"))
        if not -_FLOAT32_MAX <= low <= high <= _FLOAT32_MAX:
            raise ValueError(f"ranges: expected finite low <= high, got ({low:g}, {high:g})")
        bounds += [low, high]
    return bounds


def check_spacing(spacing: object, axes: int) -> tuple[float, float, float]:
    """Pixel spacing for the kernels' z, y, x; an image gets 1 along z."""
    if spacing is None:
        return (1.0, 1.0, 1.0)
    entries = check_sequence(spacing, "spacing", axes, "number per spatial axis")
    values = [check_positive(value, "spacing") for value in entries]
    z, y, x = [1.0] * (3 - axes) + values
    return (z, y, x)


def check_real_dtype(array: npt.NDArray[Any], name: str) -> None:
    """Bool, integer or floating point; complex, text and objects are refused."""
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")


def check_finite(array: npt.NDArray[Any], name: str) -> None:
    """No NaN, no infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
