"""Superpixel pooling in exact arithmetic: Python integers for the fixed point, float64 for what comes after."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import median

import numpy as np


def pool(values, labels, n, reduce):
    """Values and labels of one plane, any shape -> float64 [n]."""
    values = [float(v) for v in np.ravel(values)]
    labels = [int(label) for label in np.ravel(labels)]
    exponent = magnitude_exponent(values)
    regions = [[] for _ in range(n)]
    for value, label in zip(values, labels, strict=True):
        regions[label].append(value)
    if reduce in ("var", "std"):
        return np.array(_spread(regions, reduce, exponent, len(values)))
    return np.array([_reduce(region, reduce, exponent, len(values)) for region in regions])


def magnitude_exponent(values):
    """The least exponent with every magnitude below 2 to its power; -1000 at least, 0 for zeros."""
    largest = max(abs(v) for v in values)
    return max(math.frexp(largest)[1], -1000) if largest else 0


def _spread(regions, reduce, exponent, pixels):
    deviations = []
    for region in regions:
        scaled = [math.ldexp(v, -exponent) for v in region]
        mean = _exact_sum(scaled, pixels) / len(region) if region else 0.0
        deviations.append([v - mean for v in scaled])
    spread = magnitude_exponent([d for region in deviations for d in region])
    results = []
    for region in deviations:
        if not region:
            results.append(math.nan)
            continue
        scaled = [math.ldexp(d, -spread) for d in region]
        variance = _exact_sum([d * d for d in scaled], pixels) / len(region)
        if reduce == "var":
            results.append(_ldexp(variance, 2 * (exponent + spread)))
        else:
            results.append(_ldexp(math.sqrt(variance), exponent + spread))
    return results


def _reduce(region, reduce, exponent, pixels):
    scaled = [math.ldexp(v, -exponent) for v in region]
    match reduce:
        case "sum":
            return _ldexp(_exact_sum(scaled, pixels), exponent)
        case "abs-sum" | "l1":
            return _ldexp(_exact_sum([abs(v) for v in scaled], pixels), exponent)
        case "l2":
            return _ldexp(math.sqrt(_exact_sum([v * v for v in scaled], pixels)), exponent)
    if not region:
        return math.nan
    match reduce:
        case "mean":
            return _ldexp(_exact_sum(scaled, pixels) / len(region), exponent)
        case "max":
            return max(region)
        case "min":
            return min(region)
        case "median":
            # Halves: the sum of the middle two may be beyond float64.
            return 2 * median([v / 2 for v in region])
    raise ValueError(reduce)


def _exact_sum(terms, pixels):
    """Each term rounded once to a multiple of the unit, then summed without error."""
    unit = Fraction(1, 2 ** (62 - (pixels - 1).bit_length()))
    return float(sum(round(Fraction(term) / unit) for term in terms) * unit)


def _ldexp(x, exponent):
    try:
        return math.ldexp(x, exponent)
    except OverflowError:
        return math.copysign(math.inf, x)
