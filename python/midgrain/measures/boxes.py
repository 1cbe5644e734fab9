"""Weak localisation: does a box around what a heat map highlights fit the object's box?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from midgrain.maps import min_max
from midgrain.measures.order import check_maps

__all__ = ["THRESHOLDINGS", "WeakLocalisation", "localisation_error", "weak_localisation"]

#: Name -> the thresholds that are swept (Thesis 5.4.4).
THRESHOLDINGS = {
    "value": tuple(step * 0.05 for step in range(20)),
    "mean": tuple(step * 0.5 for step in range(21)),
    "energy": tuple(step * 0.05 for step in range(20)),
}


@dataclass(frozen=True, eq=False)
class WeakLocalisation:
    """How well boxes around thresholded maps fit, for every threshold."""

    #: Intersection over union with the best fitting true box, of clips its mean over the frames; float32
    #: [B, thresholds].
    iou: Tensor
    #: Boxes around the thresholded maps, int64 [B, thresholds, 4], of clips [B, T, thresholds, 4]: x0, y0, x1, y1, the
    #: last ones excluded.
    boxes: Tensor
    #: The thresholds.
    thresholds: tuple[float, ...]


def weak_localisation(
    heatmap: Tensor, boxes: Tensor | Sequence[Tensor], thresholding: str = "value"
) -> WeakLocalisation:
    """Boxes around the thresholded heat map, compared with the object's.

    The map is rescaled to 0 .. 1 over its image or clip. A pixel counts when it is not below the threshold: of
    "value", t itself for t in 0, 0.05, ... 0.95; of "mean", t times the map's mean, t in 0, 0.5, ... 10; of "energy",
    the value down to which the largest pixels together hold the share t of the map's sum, t in 0, 0.05, ... 0.95. The
    box is the tightest one around all such pixels, in a clip for each frame; where none are left it is empty.

    Args:
        heatmap: finite [B, H, W], or a clip's [B, T, H, W].
        boxes: the true boxes x0, y0, x1, y1 in pixels from the left and the top, the last ones excluded (a picture of
            W pixels ends at x1 = W): a tensor [B, 4], of clips [B, T, 4], or for each sample one of [n, 4], of clips
            [n, T, 4], where there are several objects and the best fitting one counts. In a clip NaN stands for a frame
            that does not show the object; it does not count.
        thresholding: "value", "mean" or "energy".

    Returns:
        `.iou` [B, thresholds], `.boxes`, `.thresholds`; `localisation_error` makes one number of many images.

    Raises:
        TypeError, ValueError: an argument of another kind or shape; boxes that are empty or outside the image.

    Sources: Cao et al., "Look and think twice", 2015, and Fong and Vedaldi 2017 for the thresholds; T. Hartley's PhD
    thesis, 3.5.3 and 5.4.4.

    Example:
        >>> import torch, midgrain as mg
        >>> heatmap = torch.zeros(1, 10, 10)
        >>> heatmap[0, 2:6, 3:8] = 1.0
        >>> result = mg.measures.weak_localisation(heatmap, torch.tensor([[3, 2, 8, 6]]))
        >>> result.iou.amax(1), mg.measures.localisation_error(result.iou)
        (tensor([1.]), 0.0)
    """
    maps = check_maps(heatmap)
    if not isinstance(thresholding, str):
        raise TypeError(f"thresholding: expected one of {', '.join(THRESHOLDINGS)}, got {type(thresholding).__name__}")
    if thresholding not in THRESHOLDINGS:
        raise ValueError(f"thresholding: expected one of {', '.join(THRESHOLDINGS)}, got {thresholding!r}")
    truths = _checked(boxes, maps)
    thresholds = THRESHOLDINGS[thresholding]
    scaled = min_max(maps.double())
    found = _boxes(scaled, _levels(scaled, thresholding, thresholds))
    rows = [_best(own, truth) for own, truth in zip(found, truths, strict=True)]
    return WeakLocalisation(torch.stack(rows).float(), found, thresholds)


def localisation_error(iou: Tensor, overlap: float = 0.5) -> float:
    """The share of images whose box overlaps by no more than `overlap`, at the threshold where that is least.

    Args:
        iou: [images, thresholds], the rows of `weak_localisation(...).iou` of all images.
        overlap: 0.5 by convention.

    Returns:
        In 0 .. 1, lower is better.

    Raises:
        TypeError, ValueError: not [images, thresholds] with at least one of each.

    Example:
        >>> import torch, midgrain as mg
        >>> mg.measures.localisation_error(torch.tensor([[0.2, 0.6], [0.7, 0.8], [0.9, 0.4]]))
        0.3333333333333333
    """
    if not isinstance(iou, Tensor) or not iou.is_floating_point():
        raise TypeError("iou: expected a tensor of floats [images, thresholds]")
    if iou.ndim != 2 or 0 in iou.shape:
        raise ValueError(f"iou: expected shape [images, thresholds], got {list(iou.shape)}")
    return float((iou <= overlap).double().mean(0).min())


def _levels(scaled: Tensor, thresholding: str, thresholds: Sequence[float]) -> Tensor:
    """For each map of [B, *S] the value that each threshold stands for, [B, thresholds]."""
    swept = torch.tensor(thresholds, dtype=scaled.dtype, device=scaled.device)
    flat = scaled.flatten(1)
    if thresholding == "value":
        return swept.expand(len(flat), -1)
    if thresholding == "mean":
        return swept * flat.mean(1, keepdim=True)
    ordered = flat.sort(1, descending=True).values
    held = ordered.cumsum(1)
    # The first pixel with which the share is reached; sums that round must not ask for more than there is.
    wanted = (swept * held[:, -1:]).clamp(max=held[:, -1:])
    return ordered.gather(1, torch.searchsorted(held, wanted.contiguous()).clamp(max=flat.shape[1] - 1))


def _boxes(scaled: Tensor, levels: Tensor) -> Tensor:
    """The tightest boxes around the pixels not below each level, int64 [B, (T,) thresholds, 4]."""
    levels = levels.reshape(len(scaled), *[1] * (scaled.ndim - 3), -1, 1)
    edges = []
    for axis in (-2, -1):  # Columns, then rows: the largest value along the other axis.
        counted = scaled.amax(axis)[..., None, :] >= levels
        size = counted.shape[-1]
        first = counted.int().argmax(-1)
        last = size - counted.flip(-1).int().argmax(-1)
        some = counted.any(-1)
        edges.append((first.where(some, 0), last.where(some, 0)))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], -1)


def _best(found: Tensor, truths: Tensor) -> Tensor:
    """Per threshold the overlap with the best fitting of n true boxes, found [(T,) thresholds, 4]."""
    true = truths.double()[..., None, :]  # [n, (T,) 1, 4]
    mine = found.double()
    width, height = (
        (
            torch.minimum(mine[..., 2 + axis], true[..., 2 + axis]) - torch.maximum(mine[..., axis], true[..., axis])
        ).clamp_min(0.0)
        for axis in (0, 1)
    )
    inside = width * height
    iou = inside / (_area(mine) + _area(true) - inside)
    if iou.ndim == 3:
        iou = iou.nanmean(1)
    return iou.amax(0)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _checked(boxes: object, maps: Tensor) -> list[Tensor]:
    """Per sample [n, 4] or [n, T, 4]."""
    batch, frames, size = len(maps), list(maps.shape[1:-2]), maps.shape[-2:]
    if isinstance(boxes, Tensor):
        if list(boxes.shape) != [batch, *frames, 4]:
            raise ValueError(f"boxes: expected shape {[batch, *frames, 4]}, got {list(boxes.shape)}")
        each: list[Tensor] = [one[None] for one in boxes]
    elif isinstance(boxes, list | tuple) and all(isinstance(one, Tensor) for one in boxes):
        each = list(boxes)
        if len(each) != batch:
            raise ValueError(f"boxes: expected a tensor for each of {batch} samples, got {len(each)}")
    else:
        raise TypeError(f"boxes: expected a tensor or a list of tensors, got {type(boxes).__name__}")
    checked = []
    for number, one in enumerate(each):
        shape = list(one.shape)
        if one.is_complex() or one.dtype == torch.bool:
            raise TypeError(f"boxes: expected real numbers, got dtype {one.dtype}")
        if len(shape) != 2 + len(frames) or shape[0] == 0 or shape[1:] != [*frames, 4]:
            wanted = ", ".join(["n", *map(str, frames), "4"])
            raise ValueError(f"boxes: expected shape [{wanted}] for sample {number}, got {shape}")
        values = one.detach().double().to(maps.device)
        limits = values.new_tensor([size[1], size[0]])
        known = values.reshape(-1, 4)
        if frames:
            known = known[~known.isnan().all(-1)]
            if values.isnan().all(-1).all(-1).any():
                raise ValueError(f"boxes: expected one in at least one frame for sample {number}, got {one.tolist()}")
        if not torch.isfinite(known).all() or (known[:, :2] < 0).any() or (known[:, 2:] > limits).any():
            raise ValueError(
                f"boxes: expected x0, y0, x1, y1 inside an image of {size[1]} x {size[0]} for sample {number}, got "
                f"{one.tolist()}"
            )
        if (known[:, 2:] <= known[:, :2]).any():
            raise ValueError(f"boxes: expected x0 < x1 and y0 < y1 for sample {number}, got {one.tolist()}")
        checked.append(values)
    return checked
