"""Argument checks shared by the public functions: each raises one clear sentence."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["check_finite", "check_int", "check_positive", "check_real_dtype", "check_spacing"]


def check_int(value: object, name: str, low: int, high: int | None = None) -> int:
    """An integer in low .. high."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    number = int(value)
    if number < low or (high is not None and number > high):
        allowed = f"{low} or more" if high is None else f"{low} .. {high}"
        raise ValueError(f"{name}: expected {allowed}, got {number}")
    return number


def check_positive(value: object, name: str, *, zero: bool = False) -> float:
    """A positive finite number; zero too where `zero` says so."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    number = float(value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name}: expected a {'non-negative' if zero else 'positive'} finite number, got {value}")
    return number


def check_spacing(spacing: Sequence[float] | None, axes: int) -> tuple[float, float, float]:
    """Pixel spacing for the kernels' z, y, x; an image gets 1 along z."""
    if spacing is None:
        return (1.0, 1.0, 1.0)
    if isinstance(spacing, str) or not isinstance(spacing, Sequence | np.ndarray):
        raise TypeError(f"spacing: expected {axes} numbers, got {type(spacing).__name__}")
    if len(spacing) != axes:
        raise ValueError(f"spacing: expected {axes} numbers (one per spatial axis), got {len(spacing)}")
    values = [check_positive(value, "spacing") for value in spacing]
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
