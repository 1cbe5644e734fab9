"""Class activation maps by their written definitions, one channel and one position at a time.

Activations and gradients are NumPy arrays [K, h, w] or [K, t, h, w] of one sample; networks are functions that the
tests hand in.
"""

from __future__ import annotations

import numpy as np


def gradcam(activation, gradient):
    return sum(gradient.flat) / gradient.size


def gradcam_plus_plus(activation, gradient):
    """Shares w = g^2 / (2 g^2 + sum(A) g^3), 0 where the denominator is 0."""
    weight, total = 0.0, sum(activation.flat)
    for g in gradient.flat:
        denominator = 2 * g**2 + total * g**3
        if denominator != 0:
            weight += g**2 / denominator * max(g, 0.0)
    return weight


def xgradcam(activation, gradient):
    total = sum(activation.flat)
    if total == 0:
        return 0.0
    return sum(a / total * g for a, g in zip(activation.flat, gradient.flat, strict=True))


def act_gradcam(activation, gradient):
    return sum(a * g for a, g in zip(activation.flat, gradient.flat, strict=True)) / activation.size


WEIGHTS = {"gradcam": gradcam, "gradcam++": gradcam_plus_plus, "xgradcam": xgradcam, "act-gradcam": act_gradcam}
ELEMENTWISE = {"layercam": lambda a, g: max(g, 0.0) * a, "hirescam": lambda a, g: g * a}


def gradient_cam(name, activations, gradients, temporal="clip", relu=True):
    """[*m]; with temporal="frame" every step of the map has weights of its own."""
    cam = np.zeros(activations.shape[1:])
    for activation, gradient in zip(activations, gradients, strict=True):
        if name in ELEMENTWISE:
            for place in np.ndindex(cam.shape):
                cam[place] += ELEMENTWISE[name](activation[place], gradient[place])
        elif activation.ndim == 3 and temporal == "frame":
            for t in range(len(activation)):
                cam[t] += WEIGHTS[name](activation[t], gradient[t]) * activation[t]
        else:
            cam += WEIGHTS[name](activation, gradient) * activation
    return np.maximum(cam, 0.0) if relu else cam


def relu_activation(activations):
    return sum(np.maximum(activation, 0.0) for activation in activations)


def eigencam(activations):
    """The first principal component's scores, by a singular value decomposition; they go with the channels' sum."""
    observations = np.stack([activation.ravel() for activation in activations], 1)
    centred = observations - observations.mean(0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    scores = left[:, 0] * singular[0]
    if np.dot(scores, centred.sum(1)) < 0:
        scores = -scores
    return scores.reshape(activations.shape[1:])


def weighted(weights, activations, relu=True):
    cam = sum(weight * activation for weight, activation in zip(weights, activations, strict=True))
    return np.maximum(cam, 0.0) if relu else cam


def ablation_weights(activations, score_of, divide_by="score"):
    """`score_of(activations) -> float` is the rest of the network."""
    score = score_of(activations)
    weights = []
    for k in range(len(activations)):
        ablated = activations.copy()
        ablated[k] = 0.0
        weights.append(score - score_of(ablated))
    divisor = abs(score) if divide_by == "magnitude" else score
    return np.array(weights) / (divisor if divisor != 0 else 1.0)


def score_weights(x, activations, logits_of, target, weights="softmax", n_channels=None):
    """For x [C, *S]; `logits_of(x) -> [classes]` is the network."""
    order = sorted(range(len(activations)), key=lambda k: -activations[k].max())
    chosen = order[: len(order) if n_channels is None else n_channels]
    found = np.zeros(len(activations))
    for k in chosen:
        logits = logits_of(x * resize(min_max(activations[k]), x.shape[1:]))
        found[k] = softmax(logits)[target] if weights == "softmax" else logits[target]
    if weights == "channel-softmax":
        found[chosen] = softmax(found[chosen])
    return found


def softmax(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def min_max(values):
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def resize(values, size):
    """Linear interpolation along every axis in turn, cells' centres at .5; beyond the outermost centres constant."""
    for axis, wanted in enumerate(size):
        have = values.shape[axis]
        places = np.clip((np.arange(wanted) + 0.5) * have / wanted - 0.5, 0, have - 1)
        below = np.minimum(np.floor(places).astype(int), max(have - 2, 0))
        share = (places - below).reshape([-1 if each == axis else 1 for each in range(values.ndim)])
        above = np.minimum(below + 1, have - 1)
        values = (1 - share) * values.take(below, axis) + share * values.take(above, axis)
    return values


def fused(maps, size):
    """Several maps resized, each rescaled to 0 .. 1, and averaged."""
    return sum(min_max(resize(each, size)) for each in maps) / len(maps)
