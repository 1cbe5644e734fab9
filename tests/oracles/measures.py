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


def logit_of(model: nn.Module, target: int) -> Value:
    """From one picture [C, *S] to the logit of a class."""

    def value(picture: np.ndarray) -> float:
        with torch.no_grad():
            return float(model(torch.from_numpy(picture)[None])[0, target])

    return value


def without(
    picture: np.ndarray, empty: np.ndarray, heatmap: np.ndarray, count: int, *, least_first: bool
) -> np.ndarray:
    """The picture without its first `count` pixels; all values of the heat map differ."""
    order = np.argsort(heatmap.ravel())
    order = order if least_first else order[::-1]
    changed = picture.reshape(len(picture), -1).copy()
    changed[:, order[:count]] = empty.reshape(len(empty), -1)[:, order[:count]]
    return changed.reshape(picture.shape)


def perturbation_area(value: Value, removed: list[np.ndarray]) -> float:
    """DeepMaps, appendix B: the mean fall of the score over x with 0, 1, ... P parts removed."""
    return float(np.mean([value(removed[0]) - value(each) for each in removed]))


def first_change(model: nn.Module, target: int, states: list[tuple[float, np.ndarray]]) -> float:
    """The share of the first state whose decision is another; 1 where there is none."""
    for share, picture in states:
        with torch.no_grad():
            if int(model(torch.from_numpy(picture)[None]).argmax()) != target:
                return share
    return 1.0


def top_pixels(heatmap: np.ndarray, mask: np.ndarray, wanted: int, draws: int = 0) -> float:
    """How many of the `wanted` largest pixels lie on the object, on average over all orders of equal values."""
    values = sorted(set(heatmap.ravel().tolist()), reverse=True)
    inside, left = 0.0, wanted
    for value in values:
        group = heatmap == value
        taken = min(left, int(group.sum()))
        inside += taken * float((group & mask).sum()) / float(group.sum())
        left -= taken
    return inside


def threshold_box(heatmap: np.ndarray, kept: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 around the pixels that are kept, the last ones excluded; zeros where there are none."""
    rows, columns = np.nonzero(kept)
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def box_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Of two boxes x0, y0, x1, y1."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def kept_pixels(scaled: np.ndarray, thresholding: str, threshold: float) -> np.ndarray:
    """Which pixels of a map in 0 .. 1 a threshold keeps (Thesis 5.4.4)."""
    if thresholding == "value":
        return scaled >= threshold
    if thresholding == "mean":
        return scaled >= threshold * scaled.mean()
    kept = np.zeros(scaled.shape, bool)
    for level in sorted(set(scaled.ravel().tolist()), reverse=True):
        kept = scaled >= level
        if scaled[kept].sum() >= threshold * scaled.sum() - 1e-12:
            break
    return kept
