"""Gradient-augmented SLIC, twice: the all-integer definition and the float64 textbook.

Both take features [C, Z, Y, X] of one item. The integer twin must give the kernel's labels bit for bit;
the textbook shares the grid, the 2 s window and the tie rules, but knows no rounding.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numba
import numpy as np

NARROW_BUDGET = 2**27 - 2**18
WIDE_BUDGET = 2**50
NARROW_MIN_UNITS = 64
WIDE_MAX_UNITS = 4096
MAX_POSITION = 2**30


@dataclass(frozen=True)
class Plan:
    """The geometry that follows from shape, weights and ranges alone."""

    counts: tuple[int, int, int]
    step: float
    units: int
    narrow: bool


def make_plan(dims, n_segments, spacing, spreads) -> Plan:
    """Grid counts, step s and fixed-point units per step; spreads = (high - low) / weight per channel."""
    extents = [n * s for n, s in zip(dims, spacing, strict=True)]
    active = [a for a in range(3) if dims[a] > 1]
    step = max(spacing)
    while active:
        step = math.prod(extents[a] for a in active) / n_segments
        if len(active) == 2:
            step = math.sqrt(step)
        elif len(active) == 3:
            step = _cube_root(step)
        thin = [a for a in active if extents[a] < step]
        if not thin:
            break
        active.remove(min(thin, key=lambda a: extents[a]))
    choices = []
    for a in range(3):
        if a not in active:
            choices.append((1,))
            continue
        low = min(max(math.floor(extents[a] / step), 1), dims[a])
        choices.append((low, min(low + 1, dims[a])))
    counts = min(itertools.product(*choices), key=lambda c: abs(math.prod(c) - n_segments))

    total = sum(r * r for r in spreads) + 12.0
    units = math.floor(math.sqrt(NARROW_BUDGET / total))
    narrow = units >= NARROW_MIN_UNITS
    if not narrow:
        units = min(WIDE_MAX_UNITS, math.floor(math.sqrt(WIDE_BUDGET / total)))
        if units < 1:
            raise ValueError("weights too small")
    for a in range(3):
        reach = dims[a] * spacing[a] / step
        units = min(units, math.floor(MAX_POSITION / reach))
    return Plan(tuple(counts), step, units, narrow)


def _cube_root(x: float) -> float:
    """Newton's iteration from above: the same bits wherever doubles are IEEE."""
    y = max(x, 1.0)
    while True:
        z = y - (y * y * y - x) / (3.0 * y * y)
        if not z < y:
            return y
        y = z


def quantise(features, ranges, weights, units):
    """float32 features [C, ...] -> integers: clamp, centre on the range, scale, round half to even."""
    out = np.empty(features.shape, np.int32)
    for c in range(features.shape[0]):
        low, high = np.float32(ranges[c][0]), np.float32(ranges[c][1])
        middle = np.float32(0.5) * low + np.float32(0.5) * high
        scale = np.float32(units / weights[c])
        value = np.clip(features[c], low, high)
        out[c] = np.rint((value - middle) * scale).astype(np.int32)
    return out


def positions(dims, spacing, step, units):
    """Integer coordinate of every pixel along each axis."""
    return [np.array([round(i * (units * spacing[a] / step)) for i in range(dims[a])], np.int64) for a in range(3)]


@numba.njit(cache=True)
def _floor_div_half_up(total, n):
    return (2 * total + n) // (2 * n)


@numba.njit(cache=True)
def _initial_cells(shape, counts):
    labels = np.empty(shape, np.int32)
    for z in range(shape[0]):
        for y in range(shape[1]):
            for x in range(shape[2]):
                cz = z * counts[0] // shape[0]
                cy = y * counts[1] // shape[1]
                cx = x * counts[2] // shape[2]
                labels[z, y, x] = (cz * counts[1] + cy) * counts[2] + cx
    return labels


@numba.njit(cache=True)
def _integer_rounds(q, pz, py, px, counts, window, iterations):
    n_channels = q.shape[0]
    shape = q.shape[1:]
    labels = _initial_cells(shape, counts)
    k = counts[0] * counts[1] * counts[2]
    centre = np.zeros((k, 3 + n_channels), np.int64)
    for round_ in range(iterations + 1):
        if round_ > 0:
            for z in range(shape[0]):
                for y in range(shape[1]):
                    for x in range(shape[2]):
                        best = np.int64(2**62)
                        for i in range(k):
                            dz, dy, dx = pz[z] - centre[i, 0], py[y] - centre[i, 1], px[x] - centre[i, 2]
                            if abs(dz) > window or abs(dy) > window or abs(dx) > window:
                                continue
                            d = dz * dz + dy * dy + dx * dx
                            for c in range(n_channels):
                                t = q[c, z, y, x] - centre[i, 3 + c]
                                d += t * t
                            if d < best:
                                best = d
                                labels[z, y, x] = i
        if round_ == iterations:
            break
        total = np.zeros((k, 3 + n_channels), np.int64)
        members = np.zeros(k, np.int64)
        for z in range(shape[0]):
            for y in range(shape[1]):
                for x in range(shape[2]):
                    i = labels[z, y, x]
                    members[i] += 1
                    total[i, 0] += pz[z]
                    total[i, 1] += py[y]
                    total[i, 2] += px[x]
                    for c in range(n_channels):
                        total[i, 3 + c] += q[c, z, y, x]
        for i in range(k):
            if members[i] > 0:
                for c in range(3 + n_channels):
                    centre[i, c] = _floor_div_half_up(total[i, c], members[i])
    return labels


@numba.njit(cache=True)
def _float_rounds(f, steps, counts, iterations):
    n_channels = f.shape[0]
    shape = f.shape[1:]
    labels = _initial_cells(shape, counts)
    k = counts[0] * counts[1] * counts[2]
    centre = np.zeros((k, 3 + n_channels))
    for round_ in range(iterations + 1):
        if round_ > 0:
            for z in range(shape[0]):
                for y in range(shape[1]):
                    for x in range(shape[2]):
                        best = np.inf
                        for i in range(k):
                            dz = z * steps[0] - centre[i, 0]
                            dy = y * steps[1] - centre[i, 1]
                            dx = x * steps[2] - centre[i, 2]
                            if abs(dz) > 2.0 or abs(dy) > 2.0 or abs(dx) > 2.0:
                                continue
                            d = dz * dz + dy * dy + dx * dx
                            for c in range(n_channels):
                                t = f[c, z, y, x] - centre[i, 3 + c]
                                d += t * t
                            if d < best:
                                best = d
                                labels[z, y, x] = i
        if round_ == iterations:
            break
        total = np.zeros((k, 3 + n_channels))
        members = np.zeros(k)
        for z in range(shape[0]):
            for y in range(shape[1]):
                for x in range(shape[2]):
                    i = labels[z, y, x]
                    members[i] += 1
                    total[i, 0] += z * steps[0]
                    total[i, 1] += y * steps[1]
                    total[i, 2] += x * steps[2]
                    for c in range(n_channels):
                        total[i, 3 + c] += f[c, z, y, x]
        for i in range(k):
            if members[i] > 0:
                centre[i] = total[i] / members[i]
    return labels


def _spreads(features, weights, ranges):
    if ranges is None:
        ranges = [(float(c.min()), float(c.max())) for c in features]
    spreads = [
        (float(np.float32(high)) - float(np.float32(low))) / w for (low, high), w in zip(ranges, weights, strict=True)
    ]
    return ranges, spreads


def slic_integer(features, weights, n_segments, max_num_iter=10, spacing=(1.0, 1.0, 1.0), ranges=None):
    """Raw labels (before connectivity) of the all-integer definition, int32 [Z, Y, X]."""
    features = np.asarray(features, np.float32)
    dims = features.shape[1:]
    ranges, spreads = _spreads(features, weights, ranges)
    plan = make_plan(dims, n_segments, spacing, spreads)
    q = quantise(features, ranges, weights, plan.units)
    pz, py, px = positions(dims, spacing, plan.step, plan.units)
    return _integer_rounds(q, pz, py, px, plan.counts, 2 * plan.units, max_num_iter)


def slic_textbook(features, weights, n_segments, max_num_iter=10, spacing=(1.0, 1.0, 1.0)):
    """Raw labels of the same algorithm in float64 without rounding anywhere, int32 [Z, Y, X]."""
    dims = features.shape[1:]
    _, spreads = _spreads(features, weights, None)
    plan = make_plan(dims, n_segments, spacing, spreads)
    f = np.stack([np.asarray(c, np.float64) / w for c, w in zip(features, weights, strict=True)])
    steps = tuple(s / plan.step for s in spacing)
    return _float_rounds(f, steps, plan.counts, max_num_iter)


def objective(features, labels, weights, step, spacing=(1.0, 1.0, 1.0)):
    """Sum over pixels of D'^2 to the mean of their region (Thesis eq. 3.5), float64."""
    f = [np.asarray(c, np.float64) / w for c, w in zip(features, weights, strict=True)]
    grid = np.meshgrid(*[np.arange(n) * s / step for n, s in zip(labels.shape, spacing, strict=True)], indexing="ij")
    flat = labels.ravel()
    members = np.bincount(flat)
    total = 0.0
    for channel in [*f, *grid]:
        v = channel.ravel()
        mean = np.bincount(flat, v) / np.maximum(members, 1)
        total += float(((v - mean[flat]) ** 2).sum())
    return total
