"""The order in which a heat map has pixels removed, fair to pixels of one value.

A superpixel's pixels all have its score, and a class activation map is zero over large parts. Any order among such
pixels would be the measure's own invention: raster order favours the top of the picture, a random one covers regions
with noise, which networks take badly. So pixels of one value go together; what a curve has between the two ends of such
a group is a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from midgrain.ops.checks import check_int

__all__ = ["Schedule", "check_maps", "check_order", "schedule"]


@dataclass(frozen=True)
class Schedule:
    """Which pixels go at which step, and between which states a step lies.

    With `n = rank[b].argsort()`, the state of count c has the pixels of rank 0 .. c - 1 removed.
    """

    #: int32 [B, N]: how many pixels are removed before this one.
    rank: Tensor
    #: int64 [B, steps + 1]: the last state that is not past the step and splits no group.
    below: Tensor
    #: int64 [B, steps + 1]: the first state that is not before the step and splits no group.
    above: Tensor
    #: float32 [B, steps + 1] in 0 .. 1: where the step lies between the two.
    share: Tensor


def schedule(
    maps: Tensor,
    steps: int,
    ties: str = "together",
    seed: int = 0,
    *,
    pixels: int | None = None,
    least_first: bool = False,
) -> Schedule:
    """The order of each map's pixels, greatest value first, and its division into steps.

    Args:
        maps: finite [B, *S].
        steps: after step k of these, k N / steps of the N pixels are gone, rounded to whole pixels.
        ties: "together" or "random", see `midgrain.measures.deletion`.
        seed: of the random order.
        pixels: how many are gone at the end; None means all N, which then stand in place of N above.
        least_first: the least value first.

    Raises:
        TypeError, ValueError: `steps` outside 1 .. pixels; another `ties`, `seed`.
    """
    flat = maps.flatten(1)
    n = flat.shape[1]
    last_count = n if pixels is None else pixels
    steps = check_int(steps, "steps", 1, last_count)
    seed = check_int(seed, "seed", 0, 2**63 - 1)
    if not isinstance(ties, str):
        raise TypeError(f"ties: expected 'together' or 'random', got {type(ties).__name__}")
    if ties not in ("together", "random"):
        raise ValueError(f"ties: expected 'together' or 'random', got {ties!r}")
    device = flat.device
    if ties == "random":
        shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(device)
        order = shuffled[_sorted(flat[:, shuffled], not least_first)]
    else:
        order = _sorted(flat, not least_first)
    positions = torch.arange(n + 1, device=device)
    rank = torch.empty(flat.shape, dtype=torch.int32, device=device)
    rank.scatter_(1, order, positions[:n].to(torch.int32).expand_as(order))

    wanted = (torch.arange(steps + 1, device=device) * last_count + steps // 2) // steps
    if ties == "random":
        whole = wanted.expand(len(flat), -1)
        return Schedule(rank, whole, whole, torch.zeros(whole.shape, device=device))
    values = flat.gather(1, order)
    begins = torch.ones(len(flat), n + 1, dtype=torch.bool, device=device)
    begins[:, 1:n] = values[:, 1:] != values[:, :-1]
    last = torch.where(begins, positions, 0).cummax(1).values
    following = torch.where(begins, positions, n).flip(1).cummin(1).values.flip(1)
    below, above = last[:, wanted], following[:, wanted]
    share = (wanted - below).float() / (above - below).clamp_min(1).float()
    return Schedule(rank, below, above, share)


def _sorted(flat: Tensor, descending: bool) -> Tensor:
    """Indices that sort each row of [B, N], equal values in their order."""
    if flat.device.type != "cpu" or flat.dtype != torch.float32:
        return flat.sort(dim=1, descending=descending, stable=True).indices
    # Rows of 32-bit integers are sorted by radix, six times as fast. As integers floats have the same order, once the
    # negative ones are turned round; adding 0 makes -0 and 0 one value.
    bits = (flat + 0.0).view(torch.int32)
    keys = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return torch.stack([row.sort(stable=True).indices for row in (~keys if descending else keys)])


def check_order(order: str, allowed: tuple[str, str] = ("morf", "lerf")) -> str:
    """Raises unless it is one of the two: most or least relevant first."""
    if not isinstance(order, str):
        raise TypeError(f"order: expected {allowed[0]!r} or {allowed[1]!r}, got {type(order).__name__}")
    if order not in allowed:
        raise ValueError(f"order: expected {allowed[0]!r} or {allowed[1]!r}, got {order!r}")
    return order


def check_maps(heatmap: object, expected: tuple[int, ...] | None = None, name: str = "heatmap") -> Tensor:
    """A heat map [B, H, W] or [B, T, H, W] of finite real numbers, detached.

    Args:
        heatmap: the tensor.
        expected: the shape it must have; None where nothing else says it.
        name: of the argument.

    Raises:
        TypeError: no torch tensor, or one of truth values or complex numbers.
        ValueError: another shape, an empty axis, NaN or infinity.
    """
    if not isinstance(heatmap, Tensor):
        raise TypeError(f"{name}: expected a torch tensor [B, H, W] or [B, T, H, W], got {type(heatmap).__name__}")
    if heatmap.is_complex() or heatmap.dtype == torch.bool:
        raise TypeError(f"{name}: expected real numbers, got dtype {heatmap.dtype}")
    shape = list(heatmap.shape)
    if expected is not None and shape != list(expected):
        raise ValueError(f"{name}: expected shape {list(expected)}, one value per pixel of x, got {shape}")
    if heatmap.ndim not in (3, 4) or 0 in shape:
        raise ValueError(f"{name}: expected [B, H, W] or [B, T, H, W] without empty axes, got shape {shape}")
    finite = torch.isfinite(heatmap).flatten(1).all(1)
    if not finite.all():
        bad = (~finite).nonzero()[:, 0].tolist()
        raise ValueError(f"{name}: expected finite values, got NaN or infinity in sample(s) {bad}")
    return heatmap.detach()
