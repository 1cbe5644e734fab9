"""How sure is a mean over photographs?"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap
from torch import Tensor

from midgrain.ops.checks import check_int

__all__ = ["Interval", "bootstrap_interval"]


@dataclass(frozen=True)
class Interval:
    """A mean and the interval it lies in with the confidence asked for."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def bootstrap_interval(
    values: Any,
    *,
    units: Iterable[Hashable] | None = None,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The bootstrap confidence interval of a mean, bias-corrected and accelerated (BCa).

    To compare two methods, pass the differences of their scores on the same photographs: the interval is then a
    paired one, and a method is shown to differ where it does not hold 0.

    Args:
        values: finite numbers or truth values, [n] with n of 2 or more: a sequence, an array or a tensor.
        units: what each value belongs to, where several are not independent (crops of one photograph, say): values of
            one unit are averaged first, and units are drawn, not values.
        confidence: between 0 and 1.
        n_resamples: 100 or more.
        seed: of the drawing.

    Raises:
        TypeError, ValueError: anything else; fewer than two values or units.

    Source: Efron, "Better bootstrap confidence intervals", 1987, as `scipy.stats.bootstrap` has it.

    Example:
        >>> import midgrain as mg
        >>> interval = mg.measures.bootstrap_interval([0.1, 0.3, 0.2, 0.4, 0.2])
        >>> print(f"{interval.mean:.2f}, {interval.low:.1f} .. {interval.high:.1f}")
        0.24, 0.2 .. 0.3
    """
    numbers = _numbers(values)
    seed = check_int(seed, "seed", 0, 2**63 - 1)
    n_resamples = check_int(n_resamples, "n_resamples", 100)
    if isinstance(confidence, bool) or not isinstance(confidence, float):
        raise TypeError(f"confidence: expected a float, got {type(confidence).__name__}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    if units is not None:
        numbers = _means_of_units(numbers, list(units))
    if len(numbers) < 2:
        raise ValueError(f"{'values' if units is None else 'units'}: expected at least two, got {len(numbers)}")
    mean = float(numbers.mean())
    if np.ptp(numbers) == 0.0:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (numbers,),
        np.mean,
        confidence_level=confidence,
        n_resamples=n_resamples,
        batch=max(1, 2**20 // len(numbers)),
        method="BCa",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def _numbers(values: Any) -> npt.NDArray[np.float64]:
    array = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"values: expected real numbers, got dtype {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"values: expected one number per photograph [n], got shape {list(array.shape)}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError("values: expected finite numbers, got NaN or infinity")
    return array


def _means_of_units(numbers: npt.NDArray[np.float64], units: Sequence[Hashable]) -> npt.NDArray[np.float64]:
    if len(units) != len(numbers):
        raise ValueError(f"units: expected one per value ({len(numbers)}), got {len(units)}")
    groups: dict[Hashable, list[float]] = {}
    for unit, number in zip(units, numbers.tolist(), strict=True):
        groups.setdefault(unit, []).append(number)
    return np.array([np.mean(group) for group in groups.values()])
