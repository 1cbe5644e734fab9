"""grad-cam's guided backpropagation, without exchanging the model's layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from midgrain import driver
from midgrain.compat.gradcam.refused import WithoutParts
from midgrain.network.modules import model_device
from midgrain.scorers.guided import GuidedReLUs

__all__ = ["GuidedBackpropReLUModel"]


class GuidedBackpropReLUModel(WithoutParts):
    """Guided backpropagation of one input.

    Functional, reused and in-place ReLUs and ReLU6 count too, and no module is exchanged, also while it runs.

    Args:
        model: the network.
        device: moves the model there, as in grad-cam; None leaves it where it is.

    Example:
        >>> import torch
        >>> from midgrain.compat.gradcam import GuidedBackpropReLUModel
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> GuidedBackpropReLUModel(model)(torch.rand(1, 3, 16, 16), target_category=3).shape
        (16, 16, 3)
    """

    def __init__(self, model: nn.Module, device: Any = None):
        driver.check_model(model)
        self.model = model if device is None else model.to(device)
        self.device = model_device(model) or torch.device("cpu")

    def forward(self, input_img: Tensor) -> Any:
        """The model's outputs."""
        return self.model(input_img)

    def __call__(self, input_img: Tensor, target_category: int | None = None) -> npt.NDArray[np.float32]:
        """The signed gradient of the first sample, [H, W, C] (of a clip [T, H, W, C]).

        Args:
            input_img: floats [1, C, H, W] or [1, C, T, H, W].
            target_category: None is the best class.

        Raises:
            TypeError, ValueError: bad input, more than one sample, no ReLU on the way.
        """
        x = driver.check_input(input_img).to(self.device)
        if len(x) != 1:
            raise ValueError(
                f"input_img: expected one sample, got {len(x)}; mg.explainer('guided', model) takes batches"
            )
        relus = GuidedReLUs()
        with driver.preserved(self.model, x):
            result = driver.input_gradient(self.model, x, target_category, relus.guide)
        relus.check_any("GuidedBackpropReLUModel")
        assert result.gradient is not None
        return result.gradient[0].movedim(0, -1).float().cpu().numpy()
