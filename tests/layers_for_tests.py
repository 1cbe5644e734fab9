"""Networks by name, and the layers found in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from midgrain import driver
from midgrain.cams import CAM
from midgrain.network.capture import capture


def found(model: nn.Module, x: Tensor, target: Any = None) -> tuple[str, tuple[int, ...]]:
    """The layer that is found, and the shape of its maps."""
    with driver.preserved(model, x):
        sites = CAM().sites(model, x, target)
        return sites[0].name, tuple(capture(model, x, target, sites, backward=False).activations[0].shape[1:])


class Custom(nn.Module):
    def __init__(self, function: Callable[[nn.Module, Tensor], Any], **modules: nn.Module):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)
