"""Explanations for Quantus: `explain_func=quantus.explain` becomes `midgrain.compat.quantus.explain`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from midgrain.compat.absent import QUANTUS, not_offered
from midgrain.network.modules import model_device
from midgrain.registry import explainer

__all__ = ["explain", "explain_func"]

# What Quantus passes on to every function that explains.
_ELSEWHERE = ("xai_lib", "channel_first", "softmax")
# Quantus's names of methods, and midgrain's.
_NAMES = {
    **{"Gradient": "vanilla", "Saliency": "vanilla", "InputXGradient": "input-x-gradient", "Occlusion": "occlusion"},
    **{"IntegratedGradients": "integrated-gradients", "Lime": "lime", "KernelShap": "kernel-shap"},
    **{"LayerGradCam": "gradcam", "GuidedGradCam": "guided-gradcam", "Control Var. Sobel Filter": "sobel"},
    **{"Control Var. Constant": "constant", "Control Var. Random Uniform": "noise"},
}


def explain_func(
    model: Any,
    inputs: npt.NDArray[Any],
    targets: npt.NDArray[Any] | None = None,
    *,
    method: str = "swag-ig",
    device: Any = None,
    **options: Any,
) -> npt.NDArray[np.float32]:
    """Heat maps as Quantus wants them.

    Args:
        model: the network.
        inputs: [B, C, H, W] or [B, C, T, H, W], normalised as the network expects.
        targets: a class per sample; None explains each sample's best class.
        method: one of `midgrain.methods()`.
        device: where the network is; by default where its parameters are.
        **options: of the method; what Quantus adds ("xai_lib", "channel_first", "softmax") is not looked at.

    Returns:
        float32 [B, 1, H, W] or [B, 1, T, H, W]. A map of negative values only is shifted to begin at 0: Quantus refuses
        it otherwise.

    Raises:
        TypeError, ValueError: see `midgrain.explainer`.

    Example:
        >>> import numpy as np, torch
        >>> from midgrain.compat.quantus import explain_func
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> explain_func(model, np.ones((2, 3, 16, 16), np.float32), np.array([3, 7]), method="gradcam").shape
        (2, 1, 16, 16)
    """
    if method in _NAMES:
        raise ValueError(f"method: expected a name of midgrain's, got {method!r}; use {_NAMES[method]!r}")
    options = {name: value for name, value in options.items() if name not in _ELSEWHERE}
    # Metrics that perturb inputs hand on NumPy's float64.
    x = torch.as_tensor(np.asarray(inputs)).to(device or model_device(model) or "cpu", _dtype(model))
    classes = None if targets is None else torch.as_tensor(np.asarray(targets)).reshape(-1).long().to(x.device)
    heatmap = explainer(method, model, **options)(x, classes).heatmap
    flat = heatmap.flatten(1)
    below = torch.where(flat.amax(1) < 0, flat.amin(1), 0.0).reshape(-1, *[1] * (heatmap.ndim - 1))
    return (heatmap - below)[:, None].float().cpu().numpy()


def _dtype(model: Any) -> torch.dtype:
    """Of the model's first weights."""
    weights = model.parameters() if isinstance(model, torch.nn.Module) else ()
    return next((each.dtype for each in weights if each.is_floating_point()), torch.float32)


#: Quantus's name: `from quantus import explain` becomes `from midgrain.compat.quantus import explain`.
explain = explain_func

__getattr__ = not_offered(__name__, "Quantus", {}, QUANTUS)
