"""What stands where pixels are removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from midgrain.normalisation import Normalisation
from midgrain.ops.checks import check_int
from midgrain.randomness import seeded_by_content

__all__ = ["BASELINES", "Baseline", "make_baseline"]

#: A number, "mean", "blur", "noise", "median", "black", "white", a tensor that broadcasts to x, or a callable from x to
#: one.
Baseline: TypeAlias = float | str | Tensor | Callable[[Tensor], Tensor]

_NUMBERS = (float, int, np.floating, np.integer)
# RISE's blur (Petsiuk et al. 2018, `evaluation.py` and the notebook that calls it).
_BLUR_SIZE, _BLUR_SIGMA = 11, 5.0


def make_baseline(baseline: Baseline, x: Tensor, seed: int = 0, normalisation: Normalisation | None = None) -> Tensor:
    """The baseline as a tensor of x's shape and dtype.

    Args:
        baseline: see `Baseline` and `midgrain.measures.deletion`.
        x: [B, C, *S].
        seed: of "noise".
        normalisation: of x; without it there are no "black" and "white".

    Raises:
        TypeError: none of these kinds, or a callable that returns no tensor.
        ValueError: an unknown name, NaN or infinity, a shape that does not broadcast to x's.
    """
    seed = check_int(seed, "seed", 0, 2**63 - 1)
    if isinstance(baseline, str):
        if baseline in BASELINES:
            return BASELINES[baseline](x, seed)
        if normalisation is not None and baseline in _GREYS:
            return normalisation.grey(x, _GREYS[baseline])
        names = [*BASELINES, *(_GREYS if normalisation is not None else [])]
        raise ValueError(f"baseline: expected a number, {', '.join(names)} or a tensor, got {baseline!r}")
    value: object = baseline
    if isinstance(value, _NUMBERS) and not isinstance(value, bool):
        value = torch.tensor(float(value), dtype=torch.float64)
    elif callable(value) and not isinstance(value, Tensor):
        # A copy: what the callable does to its input is not done to the caller's.
        value = value(x.clone())
    if not isinstance(value, Tensor):
        what = "the callable to return a tensor" if callable(baseline) else "a number, a name, a tensor or a callable"
        raise TypeError(f"baseline: expected {what}, got {type(value).__name__}")
    if value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"baseline: expected real numbers, got dtype {value.dtype}")
    value = value.detach().to(device=x.device, dtype=x.dtype)
    if not torch.isfinite(value).all():
        raise ValueError(f"baseline: expected values that are finite in {x.dtype}, got NaN or infinity")
    try:
        return value.expand(x.shape).contiguous()
    except RuntimeError:
        raise ValueError(
            f"baseline: expected a shape that broadcasts to x's {list(x.shape)}, got {list(value.shape)}"
        ) from None


def _mean(x: Tensor, _: int) -> Tensor:
    """Each sample's own mean colour."""
    return x.flatten(2).mean(2).reshape(*x.shape[:2], *[1] * (x.ndim - 2)).expand(x.shape).contiguous()


def _median(x: Tensor, _: int) -> Tensor:
    """Each sample's own median of every channel (GWS); of an even number of pixels the mean of the middle two."""
    ordered = x.flatten(2).sort(2).values
    last = ordered.shape[2] - 1
    middle = 0.5 * ordered[:, :, last // 2] + 0.5 * ordered[:, :, (last + 1) // 2]
    return middle.reshape(*x.shape[:2], *[1] * (x.ndim - 2)).expand(x.shape).contiguous()


def _noise(x: Tensor, seed: int) -> Tensor:
    """Standard normal noise, the same for the same sample in any batch."""
    drawn = [torch.randn(sample.shape, generator=seeded_by_content(sample, seed)) for sample in x.float().cpu()]
    return torch.stack(drawn).to(device=x.device, dtype=x.dtype)


def _blur(x: Tensor, _: int) -> Tensor:
    """RISE's blur, frame by frame: 11 x 11, sigma 5, the normalised input continued with zeros."""
    # RISE filters an impulse in a box of 11: what falls outside the box is reflected into it.
    impulse = torch.zeros(_BLUR_SIZE, dtype=torch.float64)
    impulse[_BLUR_SIZE // 2] = 1.0
    line = torch.from_numpy(gaussian_filter1d(impulse.numpy(), _BLUR_SIGMA)).to(device=x.device, dtype=x.dtype)
    frames = x.movedim(1, -3).reshape(-1, 1, *x.shape[-2:])
    with torch.autocast(x.device.type, enabled=False):
        blurred = F.conv2d(frames, line[None, None, :, None], padding=(_BLUR_SIZE // 2, 0))
        blurred = F.conv2d(blurred, line[None, None, None, :], padding=(0, _BLUR_SIZE // 2))
    return blurred.reshape(x.movedim(1, -3).shape).movedim(-3, 1).contiguous()


#: Name -> from x and a seed to the baseline.
BASELINES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mean": _mean,
    "blur": _blur,
    "noise": _noise,
    "median": _median,
}
_GREYS = {"black": 0.0, "white": 1.0}
