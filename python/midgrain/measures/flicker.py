"""Flicker: how much does a clip's explanation change from frame to frame beyond what moves in the clip?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor

from midgrain.measures.order import check_maps
from midgrain.ops.arrays import is_integral

__all__ = ["Flicker", "RegionConsistency", "flicker", "region_consistency"]


@dataclass(frozen=True, eq=False)
class Flicker:
    """How much each frame's heat differs from the frame's before it, float32 [B, T - 1] each; 0 where nothing does."""

    #: Mean absolute change of the heat, min-max normalised over the clip. A map of low contrast changes little.
    change: Tensor
    #: The same in units of the mean absolute difference of two pixels of one frame: 1 where a pixel says no more of
    #: itself in the next frame than any other pixel does.
    relative: Tensor
    #: 1 - Spearman's rank correlation, 0 .. 2: what is left where only the order of the pixels counts.
    rank: Tensor

    @property
    def value(self) -> Tensor:
        """The measure's number, `relative`, as the mean over a clip's pairs of frames, [B]; lower is steadier."""
        return self.relative.mean(1)


@dataclass(frozen=True, eq=False)
class RegionConsistency:
    """How far superpixels stay together from frame to frame, float32 [B, T - 1] each, in 0 .. 1; higher is steadier."""

    #: The share of pixels that go where most of their superpixel goes; the mean of both directions in time. What the
    #: superpixels are called does not matter.
    together: Tensor
    #: The share of pixels that keep their superpixel's number; says something of linked superpixels only.
    same: Tensor


def flicker(heatmap: Tensor, flow: Tensor | None = None, valid: Tensor | None = None) -> Flicker:
    """How much heat changes between one frame and the next, followed along the motion.

    The heat of a pixel p in frame t is compared with the heat at p + flow(p) in frame t + 1 (bilinear). Pixels that
    leave the picture do not count. A constant map does not flicker at all, so flicker says nothing without a measure
    of faithfulness beside it.

    Args:
        heatmap: finite [B, T, H, W], two frames or more.
        flow: where each pixel goes until the next frame, floats [B, T - 1, H, W, 2]: (to the right, down) in pixels;
            None where nothing moves.
        valid: bool [B, T - 1, H, W], the pixels that count; by default all. Occluded ones are best left out.

    Returns:
        `.change`, `.relative`, `.rank`, each [B, T - 1]. Pairs without a pixel that counts are 0.

    Raises:
        TypeError: arguments of another kind.
        ValueError: shapes that do not fit, one frame only, NaN or infinity.

    Source: the temporal warping error of Lai et al., "Learning blind video temporal consistency", ECCV 2018, of heat
    instead of colours.

    Example:
        >>> import torch, midgrain as mg
        >>> heatmap = torch.zeros(1, 2, 8, 8)
        >>> heatmap[0, 0, 2, 2] = heatmap[0, 1, 2, 3] = 1.0
        >>> flow = torch.zeros(1, 1, 8, 8, 2)
        >>> flow[..., 0] = 1.0
        >>> float(mg.measures.flicker(heatmap).value), float(mg.measures.flicker(heatmap, flow).value)
        (1.0, 0.0)
    """
    maps = _frames(check_maps(heatmap), "heatmap")
    moves, counted = _motion(maps, flow, valid)
    rows = []
    for sample in range(len(maps)):
        clip = maps[sample].detach().double().cpu().numpy()
        extent = float(clip.max() - clip.min())
        pairs = []
        for t in range(len(clip) - 1):
            here = counted[sample][t]
            there = _looked_up(clip[t + 1], moves[sample][t], here) if moves is not None else clip[t + 1][here]
            pairs.append(_compared(clip[t][here], there, extent))
        rows.append(pairs)
    change, relative, rank = torch.tensor(rows, dtype=torch.float32, device=maps.device).unbind(-1)
    return Flicker(change, relative, rank)


def region_consistency(segments: Tensor, flow: Tensor | None = None, valid: Tensor | None = None) -> RegionConsistency:
    """How far the superpixels of one frame are those of the next, followed along the motion.

    Args:
        segments: integer labels [B, T, H, W], two frames or more.
        flow: see `flicker`; rounded to whole pixels.
        valid: see `flicker`.

    Returns:
        `.together` and `.same`, each [B, T - 1]. Pairs without a pixel that counts are 1.

    Raises:
        TypeError, ValueError: see `flicker`.

    Example:
        >>> import torch, midgrain as mg
        >>> first = torch.tensor([[0, 0, 1, 1]] * 4)
        >>> renumbered = mg.measures.region_consistency(torch.stack([first, 1 - first])[None])
        >>> float(renumbered.together), float(renumbered.same)
        (1.0, 0.0)
    """
    if not isinstance(segments, Tensor):
        raise TypeError(f"segments: expected an integer tensor [B, T, H, W], got {type(segments).__name__}")
    if not is_integral(segments):
        raise TypeError(f"segments: expected integers, got dtype {segments.dtype}")
    labels = _frames(segments, "segments")
    moves, counted = _motion(labels, flow, valid)
    rows = []
    for sample in range(len(labels)):
        clip = labels[sample].detach().cpu().numpy()
        pairs = []
        for t in range(len(clip) - 1):
            here = counted[sample][t]
            there = clip[t + 1][here] if moves is None else clip[t + 1][_nearest(moves[sample][t], here)]
            pairs.append(_shared(clip[t][here], there))
        rows.append(pairs)
    together, same = torch.tensor(rows, dtype=torch.float32, device=labels.device).unbind(-1)
    return RegionConsistency(together, same)


_Array = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]


def _frames(values: Tensor, name: str) -> Tensor:
    if values.ndim != 4 or values.shape[1] < 2 or 0 in values.shape:
        raise ValueError(f"{name}: expected [B, T, H, W] of two frames or more, got shape {list(values.shape)}")
    return values


def _motion(values: Tensor, flow: object, valid: object) -> tuple[_Array | None, _Mask]:
    """The flow as an array or None, and which pixels count, bool [B, T - 1, H, W]."""
    batch, frames, height, width = values.shape
    shape = [batch, frames - 1, height, width]
    counted: _Mask = np.ones(shape, np.bool_)
    if valid is not None:
        if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
            got = valid.dtype if isinstance(valid, Tensor) else type(valid).__name__
            raise TypeError(f"valid: expected a bool tensor, got {got}")
        if list(valid.shape) != shape:
            raise ValueError(f"valid: expected shape {shape}, got {list(valid.shape)}")
        counted = valid.cpu().numpy()
    if flow is None:
        return None, counted
    if not isinstance(flow, Tensor) or not flow.is_floating_point():
        got = flow.dtype if isinstance(flow, Tensor) else type(flow).__name__
        raise TypeError(f"flow: expected a tensor of floats, got {got}")
    if list(flow.shape) != [*shape, 2]:
        raise ValueError(f"flow: expected shape {[*shape, 2]}, got {list(flow.shape)}")
    moves: _Array = flow.detach().double().cpu().numpy()
    if not np.isfinite(moves).all():
        raise ValueError("flow: expected finite values, got NaN or infinity")
    x, y = moves[..., 0] + np.arange(width), moves[..., 1] + np.arange(height)[:, None]
    return moves, counted & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def _looked_up(frame: _Array, moves: _Array, here: _Mask) -> _Array:
    """The values of the next frame where the pixels `here` go, bilinear."""
    rows, columns = np.nonzero(here)
    x, y = columns + moves[here][:, 0], rows + moves[here][:, 1]
    left, top = x.astype(np.int64), y.astype(np.int64)
    right, bottom = np.minimum(left + 1, frame.shape[1] - 1), np.minimum(top + 1, frame.shape[0] - 1)
    dx, dy = x - left, y - top
    above = frame[top, left] + dx * (frame[top, right] - frame[top, left])
    below = frame[bottom, left] + dx * (frame[bottom, right] - frame[bottom, left])
    found: _Array = above + dy * (below - above)
    return found


def _nearest(moves: _Array, here: _Mask) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    rows, columns = np.nonzero(here)
    shift = np.rint(moves[here]).astype(np.int64)
    height, width = here.shape
    return np.clip(rows + shift[:, 1], 0, height - 1), np.clip(columns + shift[:, 0], 0, width - 1)


def _compared(before: _Array, after: _Array, extent: float) -> tuple[float, float, float]:
    """Change, relative change and 1 - rank correlation of the heat of the same pixels in two frames."""
    if not before.size or extent == 0.0:
        return 0.0, 0.0, 0.0
    change = float(np.abs((after - before) / extent).mean())
    unlike = (_difference(before / extent) + _difference(after / extent)) / 2
    relative = change / unlike if unlike > 0.0 else float(change > 0.0)
    return change, relative, 1.0 - _rank_correlation(before, after)


def _difference(values: _Array) -> float:
    """The mean absolute difference of two different pixels (Gini's mean difference)."""
    n = len(values)
    if n < 2:
        return 0.0
    ordered = np.sort(values - values.min())
    return float(2.0 * (ordered * (2.0 * np.arange(n) - n + 1.0)).sum() / (n * (n - 1.0)))


def _rank_correlation(before: _Array, after: _Array) -> float:
    first, second = (rankdata(each) - (len(each) + 1) / 2 for each in (before, after))
    norms = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    if min(norms) == 0.0:
        return float(max(norms) == 0.0)  # Two constant frames have the same order, one and another have none in common.
    return float(np.clip(first @ second / (norms[0] * norms[1]), -1.0, 1.0))


def _shared(before: npt.NDArray[np.integer], after: npt.NDArray[np.integer]) -> tuple[float, float]:
    """How far two labelings of the same pixels go together, and have the same numbers."""
    if not before.size:
        return 1.0, 1.0
    (_, first), (_, second) = (np.unique(each, return_inverse=True) for each in (before, after))
    both, counts = np.unique(first * (int(second.max()) + 1) + second, return_counts=True)
    kept = []
    for owner in (both // (int(second.max()) + 1), both % (int(second.max()) + 1)):
        most = np.zeros(int(owner.max()) + 1, np.int64)
        np.maximum.at(most, owner, counts)
        kept.append(most.sum() / before.size)
    return float(np.mean(kept)), float((before == after).mean())
