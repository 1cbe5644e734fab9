"""Methods from gradients by their written definitions, one sample, one step and one copy at a time.

Inputs are NumPy arrays [C, *S] of one sample; `gradient_of(x) -> [C, *S]` is the network's, which the tests hand in.
"""

from __future__ import annotations

import numpy as np


def steps(rule, n):
    """Places on the way from 0 to 1 and their weights."""
    if rule == "midpoint":
        return [((k + 0.5) / n, 1 / n) for k in range(n)]
    if rule == "trapezium":
        return [(k / (n - 1), (0.5 if k in (0, n - 1) else 1.0) / (n - 1)) for k in range(n)]
    # Gauss and Legendre: roots of Legendre's polynomial P_n; weights 2 / ((1 - r^2) P_n'(r)^2); halved for 0 .. 1.
    polynomial = np.polynomial.legendre.Legendre.basis(n)
    slope = polynomial.deriv()
    roots = np.sort(polynomial.roots().real)
    return [((root + 1) / 2, 1 / ((1 - root**2) * slope(root) ** 2)) for root in roots]


def integrated_gradients(x, start, gradient_of, rule, n):
    """[C, *S], with signs."""
    mean = sum(weight * gradient_of(start + place * (x - start)) for place, weight in steps(rule, n))
    return (x - start) * mean


CHANNELS = {
    "max-abs": lambda values: np.abs(values).max(0),
    "max": lambda values: values.max(0),
    "sum": lambda values: values.sum(0),
}
AVERAGES = {
    "mean": lambda values: np.mean(values, 0),
    "squared": lambda values: np.mean(np.square(values), 0),
    "variance": lambda values: np.var(values, 0),
}
