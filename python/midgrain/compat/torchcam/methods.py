"""torchcam's extractors, and some of midgrain's own with the same call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from midgrain.compat.absent import TORCHCAM, not_offered
from midgrain.compat.torchcam.core import Extractor
from midgrain.network.modules import find_module

__all__ = ["CAM", "AblationCAM", "GradCAM", "GradCAMpp", "HiResCAM", "JitterCAM", "LayerCAM", "ScoreCAM", "XGradCAM"]


class GradCAM(Extractor):
    """Grad-CAM.

    Example:
        >>> import torch
        >>> from midgrain.compat.torchcam.methods import GradCAM
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> with GradCAM(model, "0") as extractor:
        ...     out = model(torch.rand(1, 3, 16, 16))
        ...     (cam,) = extractor(out.squeeze(0).argmax().item(), out)
        >>> cam.shape
        torch.Size([1, 14, 14])
    """

    method = "gradcam"


class GradCAMpp(Extractor):
    """Grad-CAM++."""

    method = "gradcam++"


class XGradCAM(Extractor):
    """XGrad-CAM."""

    method = "xgradcam"


class LayerCAM(Extractor):
    """LayerCAM; maps are stretched by tanh(2 x) before they are fused (eq. 9 of its paper)."""

    method = "layercam"

    @staticmethod
    def scaled(cam: Tensor) -> Tensor:
        """tanh(2 x)."""
        return torch.tanh(2.0 * cam)


class HiResCAM(Extractor):
    """HiResCAM (not in torchcam)."""

    method = "hirescam"


class AblationCAM(Extractor):
    """Ablation-CAM (not in torchcam)."""

    method = "ablationcam"


class JitterCAM(Extractor):
    """Jitter-CAM (not in torchcam): Grad-CAM at twice the resolution. Options: see `midgrain.cams.jitter.JitterCAM`."""

    method = "jittercam"


class ScoreCAM(Extractor):
    """Score-CAM, weighted by the softmax of the scores over the channels.

    Args:
        model: see `Extractor`.
        target_layer: see `Extractor`.
        batch_size: masked inputs at once.
        input_shape: see `Extractor`.
        **kwargs: see `Extractor`.
    """

    method = "scorecam"
    options = {"weights": "channel-softmax"}  # noqa: RUF012 - annotated in the base class

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module | str | list[nn.Module | str] | None = None,
        batch_size: int = 32,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ):
        super().__init__(model, target_layer, input_shape, **{"batch_size": batch_size, **kwargs})


class CAM(Extractor):
    """The first class activation map: channels weighted by the only linear layer, signs kept.

    Args:
        model: see `Extractor`.
        target_layer: see `Extractor`.
        fc_layer: None, or the network's only linear layer.
        input_shape: see `Extractor`.
        **kwargs: see `Extractor`.

    Raises:
        ValueError: several layers, another `fc_layer`.
    """

    method = "saliency-tubes"

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module | str | list[nn.Module | str] | None = None,
        fc_layer: nn.Module | str | None = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Callable[..., Any],
    ):
        super().__init__(model, target_layer, input_shape, **kwargs)  # type: ignore[arg-type]
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if fc_layer is not None and (len(linear) != 1 or find_module(model, fc_layer) is not linear[0]):
            self.remove_hooks()
            raise ValueError(f"fc_layer: expected the network's only linear layer, it has {len(linear)}")


__getattr__ = not_offered(__name__, "torchcam", TORCHCAM)
