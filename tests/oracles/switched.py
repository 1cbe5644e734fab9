"""Superpixels on and off, slowly: LIME's regression, and Shapley values by their definition."""

from __future__ import annotations

from itertools import permutations

import numpy as np


def switched(sample, labels, on, empty):
    """A sample [C, *S] with the pixels of superpixels that are off taken from `empty`."""
    made = sample.copy()
    for index in np.ndindex(labels.shape):
        if not on[labels[index]]:
            made[(slice(None), *index)] = empty[(slice(None), *index)]
    return made


def cosine_distance(row):
    """From all on; of nothing on 1."""
    ones = np.ones(len(row))
    norm = np.sqrt(row @ row) * np.sqrt(ones @ ones)
    return 1.0 - (row @ ones) / norm if norm > 0 else 1.0


def lime_weights(rows, kernel_width):
    """The `lime` package's kernel."""
    return np.array([np.sqrt(np.exp(-(cosine_distance(row) ** 2) / kernel_width**2)) for row in rows.astype(float)])


def ridge(rows, scores, weights, alpha):
    """Coefficients, intercept and R^2 from the normal equations; the intercept is not penalised."""
    columns = np.column_stack([rows.astype(float), np.ones(len(rows))])
    penalty = alpha * np.eye(columns.shape[1])
    penalty[-1, -1] = 0.0
    solution = np.linalg.solve(columns.T @ np.diag(weights) @ columns + penalty, columns.T @ (weights * scores))
    mean = (weights @ scores) / weights.sum()
    spread = weights @ (scores - mean) ** 2
    r2 = 1.0 - (weights @ (scores - columns @ solution) ** 2) / spread if np.ptp(scores) > 0 else 1.0
    return solution[:-1], solution[-1], r2


def shapley_values(value, count):
    """Of each player, what it adds to those before it, averaged over every order; `value` takes a tuple of bools."""
    seen = {}

    def of(on):
        key = tuple(bool(each) for each in on)
        if key not in seen:
            seen[key] = value(key)
        return seen[key]

    total = np.zeros(count)
    orders = list(permutations(range(count)))
    for order in orders:
        on = np.zeros(count, dtype=bool)
        for player in order:
            before = of(on)
            on[player] = True
            total[player] += of(on) - before
    return total / len(orders)
