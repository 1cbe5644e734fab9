"""Does a heat map lie on the object?"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from midgrain.measures.order import check_maps
from midgrain.ops.checks import check_positive, check_share

__all__ = ["bbox_score", "energy_pointing_game", "is_difficult", "mask_iou", "pointing_game"]


def pointing_game(heatmap: Tensor, mask: Tensor, tolerance: float = 15) -> Tensor:
    """The pointing game: is the heat map's maximum on the object, or near it?

    Of several pixels that share the maximum (a superpixel's) more than half must be near the object. So neither
    raster order nor one lucky pixel decides, and a constant map hits only what fills most of the picture.

    Args:
        heatmap: finite [B, H, W]; a clip's [B, T, H, W] is judged frame by frame.
        mask: bool, the same shape: the object's pixels, at least one in every image or frame.
        tolerance: how far from the object, in pixels between centres, a maximum may lie; 0 wants it on the object.

    Returns:
        Hits, bool [B]; for clips [B, T].

    Raises:
        TypeError: no tensors, a mask that is not bool, a tolerance that is no number.
        ValueError: shapes that differ, an empty axis, NaN or infinity, an image or frame without an object, a
            negative tolerance.

    Source: Zhang et al., "Top-down neural attention by excitation backprop", 2018, with its tolerance of 15 pixels.

    Example:
        >>> import torch, midgrain as mg
        >>> heatmap = torch.zeros(1, 40, 40)
        >>> heatmap[0, 10, 10] = 1.0
        >>> mask = torch.zeros(1, 40, 40, dtype=torch.bool)
        >>> mask[0, 10, 20:30] = True
        >>> mg.measures.pointing_game(heatmap, mask), mg.measures.pointing_game(heatmap, mask, tolerance=9)
        (tensor([True]), tensor([False]))
    """
    heatmap, mask = _checked(heatmap, mask)
    tolerance = check_positive(tolerance, "tolerance", zero=True)
    frames = heatmap.reshape(-1, *heatmap.shape[-2:])
    objects = mask.reshape(frames.shape).cpu().numpy()
    hits = []
    for frame, pixels in zip(frames, objects, strict=True):
        distances = distance_transform_edt(~pixels)
        at_maximum = (frame == frame.max()).cpu().numpy()
        hits.append(bool(np.mean(distances[at_maximum] <= tolerance) > 0.5))
    return torch.tensor(hits, device=heatmap.device).reshape(heatmap.shape[:-2])


def energy_pointing_game(heatmap: Tensor, mask: Tensor) -> Tensor:
    """The energy-based pointing game: the share of the heat map that lies on the object, sum(S in G) / sum(S).

    Negative values count as zero: they speak against the class, wherever they lie. A map without any positive value
    has no energy on the object, so it gets 0.

    Args:
        heatmap: finite [B, H, W]; a clip's [B, T, H, W] is judged frame by frame.
        mask: bool, the same shape: the object's pixels, at least one in every image or frame.

    Returns:
        Shares in 0 .. 1, float32 [B]; for clips [B, T].

    Raises:
        TypeError: no tensors, a mask that is not bool.
        ValueError: shapes that differ, an empty axis, NaN or infinity, an image or frame without an object.

    Source: Wang et al., "Score-CAM", 2020, with a mask where they have a box (as SISE, 2021, reports both).

    Example:
        >>> import torch, midgrain as mg
        >>> heatmap = torch.tensor([[[3.0, 1.0], [-5.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [True, False]]])
        >>> mg.measures.energy_pointing_game(heatmap, mask)
        tensor([0.7500])
    """
    heatmap, mask = _checked(heatmap, mask)
    frames = heatmap.reshape(-1, heatmap.shape[-2] * heatmap.shape[-1])
    # In units of each frame's largest value, so that no sum overflows or vanishes.
    frames = frames if frames.dtype == torch.float64 else frames.float()
    peak = frames.amax(1, keepdim=True)
    energy = (frames / torch.where(peak > 0, peak, 1.0)).clamp_min(0.0).float()
    inside = (energy * mask.reshape(frames.shape)).sum(1)
    total = energy.sum(1)
    return torch.where(total > 0, inside / total.clamp_min(1.0), 0.0).reshape(heatmap.shape[:-2])


def mask_iou(heatmap: Tensor, mask: Tensor, share: float = 0.2) -> Tensor:
    """Intersection over union of the most important pixels with the object; its mean over images is SISE's mIoU.

    Pixels of one value that only some are wanted of count in part, all alike.

    Args:
        heatmap: finite [B, H, W]; a clip's [B, T, H, W] is judged frame by frame.
        mask: bool, the same shape: the object's pixels, at least one in every image or frame.
        share: how much of the pixels counts as important, above 0 and up to 1.

    Returns:
        Overlaps in 0 .. 1, float32 [B]; for clips [B, T].

    Raises:
        TypeError, ValueError: see `pointing_game`; a share out of range.

    Source: SISE (Sattarzadeh et al. 2021).

    Example:
        >>> import torch, midgrain as mg
        >>> heatmap = torch.tensor([[[3.0, 1.0], [-5.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [True, False]]])
        >>> mg.measures.mask_iou(heatmap, mask, share=0.5)
        tensor([0.3333])
    """
    share = check_share(share, "share")
    heatmap, mask = _checked(heatmap, mask)
    size = heatmap.shape[-2] * heatmap.shape[-1]
    wanted = torch.full(heatmap.shape[:-2], max(1, round(share * size)), device=heatmap.device)
    inside = _of_the_top(heatmap, mask, wanted)
    return (inside / (wanted + mask.flatten(-2).sum(-1) - inside)).float()


def bbox_score(heatmap: Tensor, mask: Tensor) -> Tensor:
    """Of the N most important pixels, N the size of the object, the share that lies on it (Bbox).

    Pixels of one value that only some are wanted of count in part, all alike.

    Args:
        heatmap: finite [B, H, W]; a clip's [B, T, H, W] is judged frame by frame.
        mask: bool, the same shape: the object's pixels or its box's, at least one in every image or frame.

    Returns:
        Shares in 0 .. 1, float32 [B]; for clips [B, T].

    Raises:
        TypeError, ValueError: see `pointing_game`.

    Source: Schulz et al., "Restricting the flow", 2020; SISE, 2021.

    Example:
        >>> import torch, midgrain as mg
        >>> heatmap = torch.tensor([[[3.0, 1.0], [-5.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [True, False]]])
        >>> mg.measures.bbox_score(heatmap, mask)
        tensor([0.5000])
    """
    heatmap, mask = _checked(heatmap, mask)
    wanted = mask.flatten(-2).sum(-1)
    return (_of_the_top(heatmap, mask, wanted) / wanted).float()


def is_difficult(mask: Tensor, others: Tensor) -> Tensor:
    """Which images belong to the pointing game's difficult subset.

    Those whose object covers less than a quarter of the image and that show another class too.

    Args:
        mask: bool [B, H, W], the object's pixels.
        others: bool [B], whether the image shows an object of another class.

    Returns:
        Bool [B].

    Raises:
        TypeError, ValueError: tensors of other kinds or shapes.

    Source: Zhang et al., "Top-down neural attention by excitation backprop", 2018; Thesis 5.4.4.

    Example:
        >>> import torch, midgrain as mg
        >>> mask = torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> mask[:, 0, :2] = True
        >>> mg.measures.is_difficult(mask, torch.tensor([True, False]))
        tensor([ True, False])
    """
    for name, value, ndim in (("mask", mask, 3), ("others", others, 1)):
        if not isinstance(value, Tensor) or value.dtype != torch.bool:
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{name}: expected a bool tensor, got {got}")
        if value.ndim != ndim or 0 in value.shape:
            raise ValueError(f"{name}: expected {ndim} axes, none of them empty, got shape {list(value.shape)}")
    if len(mask) != len(others):
        raise ValueError(f"others: expected one for each of {len(mask)} images, got {len(others)}")
    return (mask.flatten(1).double().mean(1) < 0.25).to(others.device) & others


def _of_the_top(heatmap: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
    """How many of each frame's `wanted` largest pixels lie on the object, float64 of the shape of `wanted`."""
    values, on_object = heatmap.flatten(-2), mask.flatten(-2)
    frames = zip(values.flatten(0, -2), wanted.flatten().tolist(), strict=True)
    least = torch.stack([frame.kthvalue(len(frame) - count + 1).values for frame, count in frames])
    least = least.reshape(wanted.shape)[..., None]
    above, level = values > least, values == least
    # Of the pixels at the last value so many are wanted as are left.
    part = (wanted - above.sum(-1)).double() / level.sum(-1)
    return (above & on_object).sum(-1) + part * (level & on_object).sum(-1)


def _checked(heatmap: object, mask: object) -> tuple[Tensor, Tensor]:
    maps = check_maps(heatmap)
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask: expected a bool torch tensor of the heat map's shape, got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected dtype torch.bool, got {mask.dtype}; write mask > 0, say")
    if mask.shape != maps.shape:
        raise ValueError(f"mask: expected the heat map's shape {list(maps.shape)}, got {list(mask.shape)}")
    empty = ~mask.flatten(-2).any(-1)
    if empty.any():
        raise ValueError(
            "mask: expected an object in every image or frame, got none at "
            f"{[index if len(index) > 1 else index[0] for index in empty.nonzero().tolist()]}; leave these out"
        )
    return maps, mask.to(maps.device)
