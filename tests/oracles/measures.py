"""Measures of an explanation, step by step in NumPy; `rise_metric` is RISE's recipe with its own fixed choices."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

Value = Callable[[np.ndarray], float]


def softmax_of(model: nn.Module, target: int) -> Value:
    """From one picture [C, *S] to the probability of a class."""

    def value(picture: np.ndarray) -> float:
        with torch.no_grad():
            outputs = model(torch.from_numpy(picture)[None])
        return float(torch.softmax(outputs.double(), 1)[0, target])

    return value


def curve(value: Value, start: np.ndarray, finish: np.ndarray, heatmap: np.ndarray, steps: int) -> np.ndarray:
    """One sample's curve while its pixels turn from `start` to `finish`; whole groups of one value at a time.

    Between the states before and after a group, the value is taken to change in proportion to the pixels.
    """
    flat = heatmap.ravel()
    counts, values = [0], [value(start)]
    for level in sorted(set(flat.tolist()), reverse=True):
        picture = np.where(heatmap[None] >= level, finish, start)
        counts.append(int((flat >= level).sum()))
        values.append(value(picture))
    wanted = [(2 * step * flat.size + steps) // (2 * steps) for step in range(steps + 1)]
    return np.interp(wanted, counts, values)


def area(curve: np.ndarray) -> float:
    """Trapezium rule on [0, 1], one trapezium after the other."""
    width = 1.0 / (len(curve) - 1)
    return float(sum(width * (left + right) / 2 for left, right in itertools.pairwise(curve)))


def rise_blur(x: Tensor) -> Tensor:
    """RISE's substrate of insertion: an impulse filtered in a box of 11 x 11, convolved with zero padding."""
    box = np.zeros((11, 11))
    box[5, 5] = 1
    kernel = gaussian_filter(box, 5)
    channels = x.shape[1]
    weight = torch.zeros(channels, channels, 11, 11, dtype=x.dtype)
    for channel in range(channels):
        weight[channel, channel] = torch.from_numpy(kernel)
    return nn.functional.conv2d(x, weight, padding=5)


def rise_metric(model: nn.Module, x: Tensor, heatmap: np.ndarray, mode: str, step: int) -> tuple[np.ndarray, float]:
    """RISE's curve and area for one picture [1, C, H, W], `step` pixels at a time, for its predicted class.

    Source: the description of the causal metrics in Petsiuk et al. 2018 and the order of operations in their code.
    """
    probabilities = nn.Sequential(model, nn.Softmax(dim=1))
    with torch.no_grad():
        target = int(probabilities(x).argmax())
        empty = torch.zeros_like(x) if mode == "deletion" else rise_blur(x)
        picture, finish = (x.clone(), empty) if mode == "deletion" else (empty.clone(), x)
        pixels = heatmap.size
        order = np.flip(np.argsort(heatmap.reshape(1, pixels), axis=1), axis=-1)[0].copy()
        scores = []
        for index in range(-(-pixels // step) + 1):
            scores.append(float(probabilities(picture)[0, target]))
            coordinates = order[step * index : step * (index + 1)]
            picture.reshape(1, x.shape[1], pixels)[0, :, coordinates] = finish.reshape(1, x.shape[1], pixels)[
                0, :, coordinates
            ]
    found = np.array(scores)
    return found, float((found.sum() - found[0] / 2 - found[-1] / 2) / (len(found) - 1))


def pointing(heatmap: np.ndarray, mask: np.ndarray, tolerance: float) -> bool:
    """Of the pixels that share the maximum, are more than half within `tolerance` of a pixel of the object?"""
    objects = np.argwhere(mask)
    near = [
        min(np.hypot(*(place - pixel)) for pixel in objects) <= tolerance
        for place in np.argwhere(heatmap == heatmap.max())
    ]
    return sum(near) > len(near) / 2


def energy(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Positive values on the object over all positive values; 0 where there are none."""
    inside = total = 0.0
    for place in np.ndindex(heatmap.shape):
        if heatmap[place] > 0:
            total += float(heatmap[place])
            inside += float(heatmap[place]) if mask[place] else 0.0
    return inside / total if total else 0.0
