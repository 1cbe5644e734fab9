"""Filter measures and the filter removal curve, written out from the thesis (6.2), slowly."""

from __future__ import annotations

import numpy as np

__all__ = ["measure", "removal"]


def measure(name: str, activations: np.ndarray, gradients: np.ndarray, loss_gradients: np.ndarray) -> np.ndarray:
    """One sample's scores [K] from activations, d logit / d activations, d loss / d activations, each [K, *m]."""
    scores = np.zeros(len(activations))
    for k in range(len(activations)):
        a, g, dl = (each[k].ravel() for each in (activations, gradients, loss_gradients))
        if name == "grad-amap":
            scores[k] = sum(x * y for x, y in zip(a, g, strict=True)) / len(a)
        elif name == "gradcam":
            scores[k] = sum(g) / len(g)
        elif name == "gradcam++":
            for y in g:
                below = 2 * y**2 + sum(a) * y**3
                scores[k] += (y**2 / below if below != 0 else 0.0) * max(y, 0.0)
        elif name == "xgradcam":
            scores[k] = sum(x / sum(a) * y for x, y in zip(a, g, strict=True)) if sum(a) != 0 else 0.0
        elif name == "l1":
            scores[k] = sum(abs(x) for x in a)
        elif name == "taylor":
            scores[k] = abs(sum(x * y for x, y in zip(a, dl, strict=True)) / len(a))
        elif name == "taylor-class":
            scores[k] = abs(sum(x * y for x, y in zip(a, g, strict=True)) / len(a))
        else:
            raise ValueError(name)
    return scores


def removal(outputs_of, scores: np.ndarray, classes, step: int, least: bool = False):
    """Correct and probability [B, steps + 1], the counts, normalised accuracy and its area.

    Args:
        outputs_of: (sample, set of filters set to 0) -> logits [classes].
        scores: [B, K].
        classes: [B].
        step: filters at a time.
        least: least important first.
    """
    filters = scores.shape[1]
    counts = [*range(0, filters, step), filters]
    correct, probability = [], []
    for sample, target in enumerate(classes):
        order = sorted(range(filters), key=lambda k: scores[sample, k] if least else -scores[sample, k])
        right, probable = [], []
        for count in counts:
            logits = np.asarray(outputs_of(sample, set(order[:count])), dtype=np.float64)
            right.append(int(np.argmax(logits)) == target)
            weights = np.exp(logits - logits.max())
            probable.append(weights[target] / weights.sum())
        correct.append(right)
        probability.append(probable)
    accuracy = np.mean(np.array(correct, dtype=np.float64), axis=0)
    normalised = accuracy / accuracy[0]
    area = 0.0
    for i in range(len(counts) - 1):
        area += (normalised[i] + normalised[i + 1]) / 2 * (counts[i + 1] - counts[i]) / filters
    return np.array(correct), np.array(probability), counts, normalised, area
