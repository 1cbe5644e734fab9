"""Methods from gradients by their written definitions, one sample, one step and one copy at a time.

Inputs are NumPy arrays [C, *S] of one sample; `gradient_of(x) -> [C, *S]` is the network's, which the tests hand in.
"""

from __future__ import annotations

import numpy as np

from oracles.cams import min_max, resize


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


def psi(attribution, size):
    """|.| of [*m] rescaled to 0 .. 1 and resized (DeepMaps eq. 5); all equal gives 0."""
    return resize(min_max(np.abs(attribution)), size)


def fullgrad(x, gradient, layers, rescale):
    """[*S] for x [C, *S], its gradient, and per layer its biases' attributions [K, *m] or [K]."""
    size = x.shape[1:]
    own = x * gradient
    if rescale == "channel":
        total = psi(own.sum(0), size)
        for attributions in layers:
            if attributions.ndim > 1:  # A single number is as large as itself: rescaled, it is 0.
                total = total + sum(psi(channel, size) for channel in attributions)
        return total
    total = np.zeros(size)
    for attributions in (own, *layers):
        rescaled = min_max(np.abs(attributions))
        total = total + (sum(resize(each, size) for each in rescaled) if rescaled.ndim > 1 else rescaled.sum())
    return total


def deepmaps(layers, size):
    """[*S] from activations and gradients [K, *m] of each layer (DeepMaps eq. 6 and 8)."""
    return sum(psi(sum(a * g for a, g in zip(*layer, strict=True)), size) for layer in layers)
