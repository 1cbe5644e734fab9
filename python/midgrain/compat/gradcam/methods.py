"""grad-cam's classes for the class activation maps that midgrain has by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from midgrain.compat.gradcam.base_cam import BaseCAM

__all__ = ["AblationCAM", "EigenCAM", "GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "ScoreCAM", "XGradCAM"]


class GradCAM(BaseCAM):
    """Grad-CAM.

    Example:
        >>> import torch
        >>> from midgrain.compat.gradcam import ClassifierOutputTarget, GradCAM
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> with GradCAM(model=model, target_layers=[model[0]]) as cam:
        ...     grayscale_cam = cam(torch.rand(1, 3, 32, 32), targets=[ClassifierOutputTarget(7)])
        >>> grayscale_cam.shape, grayscale_cam.dtype
        ((1, 32, 32), dtype('float32'))
    """

    method = "gradcam"


class GradCAMPlusPlus(BaseCAM):
    """Grad-CAM++, without grad-cam's 1e-6 in the denominator, which erases small gradients."""

    method = "gradcam++"


class XGradCAM(BaseCAM):
    """XGrad-CAM."""

    method = "xgradcam"


class LayerCAM(BaseCAM):
    """LayerCAM."""

    method = "layercam"


class HiResCAM(BaseCAM):
    """HiResCAM."""

    method = "hirescam"


class EigenCAM(BaseCAM):
    """Eigen-CAM; the sign, which a principal component has not, goes with the activations' sum."""

    method = "eigencam"
    uses_gradients = False


class ScoreCAM(BaseCAM):
    """Score-CAM, weighted as in grad-cam by the softmax of the scores over the channels."""

    method = "scorecam"
    options = {"weights": "channel-softmax"}  # noqa: RUF012 - annotated in the base class
    uses_gradients = False


class AblationCAM(BaseCAM):
    """Ablation-CAM: channels are set to 0, as defined (grad-cam subtracts 1e7 where a layer has negative values).

    Args:
        model: see `BaseCAM`.
        target_layers: see `BaseCAM`.
        reshape_transform: see `BaseCAM`.
        ablation_layer: None; no layer is put into the model, and where channels lie is found.
        batch_size: ablated copies at once.
        ratio_channels_to_ablate: 1.0; channels that are 0 everywhere cost nothing.

    Raises:
        ValueError: another `ablation_layer` or `ratio_channels_to_ablate`.
    """

    method = "ablationcam"
    uses_gradients = False

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module | str],
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
        ablation_layer: Any = None,
        batch_size: int | None = 32,
        ratio_channels_to_ablate: float = 1.0,
    ):
        super().__init__(model, target_layers, reshape_transform)
        if ablation_layer is not None and type(ablation_layer).__name__ not in ("AblationLayer", "AblationLayerVit"):
            kind = type(ablation_layer).__name__
            raise ValueError(f"ablation_layer: nothing is put into the model; expected None, got {kind}")
        if ratio_channels_to_ablate != 1.0:
            raise ValueError(f"ratio_channels_to_ablate: expected 1.0, got {ratio_channels_to_ablate}; use batch_size")
        self.batch_size = batch_size
        self.ablation_layer = ablation_layer
        self.ratio_channels_to_ablate = ratio_channels_to_ablate
