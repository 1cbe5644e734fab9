"""Small seeded networks and inputs that several tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import midgrain as mg

#: All methods but one that needs a network ending in a linear layer over its channels' means.
METHODS = tuple(name for name in mg.methods() if name != "saliency-tubes")
#: Name -> options that make a method of many passes quick; what its own defaults do, its own tests say.
FAST_OPTIONS: dict[str, dict[str, Any]] = {
    "integrated-gradients": {"n_steps": 5},
    "xrai": {"scorer": "vanilla", "superpixels": "image"},
    "smoothgrad": {"n_samples": 3},
    "rise": {"n_samples": 20},
    "occlusion": {"stride": 2, "window": 4},
    **{name: {"n_samples": 12} for name in ("lime", "lime-i", "lime-ig", "lime-g", "lime-prior", "kernel-shap")},
    "extremal": {"n_iterations": 2, "areas": 0.2},
}
#: Methods that run the network more often than once.
MANY_PASSES = frozenset(FAST_OPTIONS)
CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
SPATIAL = {2: (24, 32), 3: (4, 12, 16)}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """For files that import it: nets this small only wait for their threads, long where other work keeps them busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def quick_explainer(name: str, model: Any, **options: Any) -> Any:
    """`mg.explainer` with options that make it quick."""
    return mg.explainer(name, model, **(FAST_OPTIONS.get(name, {}) | options))


def seeded(build: Callable[[], Any], seed: int = 0) -> Any:
    """What `build` makes from this seed; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def tiny_net(dims: int = 2, channels: int = 3, classes: int = 5, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Two convolutions, a batch norm, dropout and two ReLUs (one in place), in evaluation mode."""

    def build() -> nn.Module:
        net = nn.Sequential(
            CONV[dims](channels, 8, 3, padding=1),
            NORM[dims](8),
            nn.ReLU(),
            CONV[dims](8, 8, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            POOL[dims](2),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(8 * 2**dims, classes),
        )
        net[1].running_mean.normal_()
        net[1].running_var.uniform_(0.5, 2.0)
        return net.to(dtype).eval()

    return seeded(build)


def batch_for(
    dims: int = 2,
    batch: int = 2,
    *,
    channels: int = 3,
    size: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 1,
) -> Tensor:
    """Images [B, C, 24, 32] or clips [B, C, 4, 12, 16]: a smooth random field with a little noise."""
    size = size or SPATIAL[dims]

    def build() -> Tensor:
        coarse = torch.randn(batch, channels, *(max(2, n // 4) for n in size), dtype=torch.float64)
        smooth = nn.functional.interpolate(coarse, size, mode="trilinear" if dims == 3 else "bilinear")
        return smooth + 0.05 * torch.randn(smooth.shape, dtype=torch.float64)

    return seeded(build, seed).to(dtype)


def relative_deviation(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected magnitude; everything in float64."""
    actual, expected = actual.double(), expected.double()
    return float((actual - expected).abs().max() / expected.abs().max())


def check_maps(actual: Tensor, expected: Any, tolerance: float = 1e-5) -> None:
    """The same maps as an oracle's, and not blank."""
    wanted = torch.tensor(np.array(expected))
    assert wanted.abs().max() > 0
    assert actual.shape == wanted.shape
    assert relative_deviation(actual, wanted) < tolerance
