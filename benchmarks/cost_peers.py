"""The other libraries' ways to explain one photograph, each with the budget that midgrain gets."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import midgrain as mg

MEAN, STD = 0.45, 0.225
#: (network, its input [1, 3, H, W], the class, the budget) -> the explanation; what it returns is not looked at.
Call = Callable[[nn.Module, Tensor, int, Mapping[str, Any]], Any]


def last_layer(model: nn.Module) -> nn.Module:
    """The last spatial layer of torchvision's ResNets and MobileNets."""
    for name in ("layer4", "features"):
        if hasattr(model, name):
            return getattr(model, name)
    raise ValueError(f"model: expected a ResNet or MobileNet, got {type(model).__name__}")


def segments(x: Tensor) -> Tensor:
    """50 superpixels of the picture behind x, int64 [1, 1, H, W]."""
    return torch.from_numpy(mg.slic(picture_of(x), n_segments=50).astype(np.int64))[None, None]


def picture_of(x: Tensor) -> np.ndarray:
    """Floats [H, W, 3] in 0 .. 1."""
    return (x[0].movedim(0, -1) * STD + MEAN).clamp(0, 1).double().numpy()


def input_of(pictures: Any) -> Tensor:
    """Pictures [B, H, W, 3] in 0 .. 1 as the network's input."""
    return ((torch.as_tensor(np.asarray(pictures)).movedim(-1, 1) - MEAN) / STD).float().contiguous()


def _grad_cam(kind: str) -> Call:
    def call(model: nn.Module, x: Tensor, target: int, budget: Mapping[str, Any]) -> Any:
        import pytorch_grad_cam as library
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        with getattr(library, kind)(model, [last_layer(model)]) as cam, contextlib.redirect_stderr(io.StringIO()):
            return cam(x, [ClassifierOutputTarget(target)])

    return call


def _captum(kind: str, **options: Any) -> Call:
    def call(model: nn.Module, x: Tensor, target: int, budget: Mapping[str, Any]) -> Any:
        import captum.attr as library

        return getattr(library, kind)(model).attribute(x, target=target, **options)

    return call


def _captum_of_layer(kind: str) -> Call:
    def call(model: nn.Module, x: Tensor, target: int, budget: Mapping[str, Any]) -> Any:
        import captum.attr as library

        return getattr(library, kind)(model, last_layer(model)).attribute(x, target)

    return call


def _captum_integrated(model: nn.Module, x: Tensor, target: int, budget: Mapping[str, Any]) -> Any:
    from captum.attr import IntegratedGradients

    black = torch.full_like(x, -MEAN / STD)
    steps = budget["n_steps"]
    return IntegratedGradients(model).attribute(x, black, target=target, n_steps=steps, internal_batch_size=4)


def _captum_smooth(model: nn.Module, x: Tensor, target: int, budget: Mapping[str, Any]) -> Any:
    from captum.attr import NoiseTunnel, Saliency

    noise = 0.15 * float(x.max() - x.min())
    tunnel = NoiseTunnel(Saliency(model))
    return tunnel.attribute(x, nt_samples=budget["n_samples"], nt_samples_batch_size=4, stdevs=noise, target=target)


def _captum_occlusion(model: nn.Module, x: Tensor, target: int, budget: Mapping[str, Any]) -> Any:
    from captum.attr import Occlusion

    window, stride = budget["window"], budget["stride"]
    return Occlusion(model).attribute(
        x,
        sliding_window_shapes=(3, window, window),
        strides=(3, stride, stride),
        target=target,
        perturbations_per_eval=4,
    )


def _captum_regions(kind: str) -> Call:
    def call(model: nn.Module, x: Tensor, target: int, budget: Mapping[str, Any]) -> Any:
        import captum.attr as library

        return getattr(library, kind)(model).attribute(
            x, target=target, feature_mask=segments(x), n_samples=budget["n_samples"], perturbations_per_eval=4
        )

    return call


def _lime(model: nn.Module, x: Tensor, target: int, budget: Mapping[str, Any]) -> Any:
    from lime.lime_image import LimeImageExplainer

    def classify(pictures: Any) -> np.ndarray:
        with torch.no_grad():
            return model(input_of(pictures)).softmax(1).double().numpy()

    with contextlib.redirect_stderr(io.StringIO()):
        return LimeImageExplainer(random_state=0).explain_instance(
            picture_of(x), classify, labels=(target,), top_labels=None, num_samples=budget["n_samples"], batch_size=4
        )


def _gradients(model: nn.Module) -> Callable[..., dict[str, np.ndarray]]:
    """The network as the `saliency` package calls it."""
    from saliency.core import INPUT_OUTPUT_GRADIENTS

    def call(pictures: Any, call_model_args: Any, expected_keys: Any = None) -> dict[str, np.ndarray]:
        leaf = input_of(pictures).requires_grad_(True)
        (gradient,) = torch.autograd.grad(model(leaf)[:, call_model_args["target"]].sum(), leaf)
        return {INPUT_OUTPUT_GRADIENTS: gradient.movedim(1, -1).numpy()}

    return call


def _saliency_integrated(model: nn.Module, x: Tensor, target: int, budget: Mapping[str, Any]) -> Any:
    from saliency.core import IntegratedGradients

    picture, arguments = picture_of(x), {"target": target}
    steps = budget["n_steps"]
    return IntegratedGradients().GetMask(picture, _gradients(model), arguments, x_steps=steps, batch_size=4)


def _saliency_smooth(model: nn.Module, x: Tensor, target: int, budget: Mapping[str, Any]) -> Any:
    from saliency.core import GradientSaliency

    picture, arguments = picture_of(x), {"target": target}
    return GradientSaliency().GetSmoothedMask(picture, _gradients(model), arguments, nsamples=budget["n_samples"])


def _saliency_xrai(model: nn.Module, x: Tensor, target: int, budget: Mapping[str, Any]) -> Any:
    from saliency.core import XRAI, XRAIParameters

    parameters = XRAIParameters(steps=budget["n_steps"])
    arguments = {"target": target}
    return XRAI().GetMask(picture_of(x), _gradients(model), arguments, extra_parameters=parameters, batch_size=4)


#: Method -> library -> how it is called there.
PEERS: dict[str, dict[str, Call]] = {
    "vanilla": {"captum": _captum("Saliency")},
    "input-x-gradient": {"captum": _captum("InputXGradient")},
    "guided": {"captum": _captum("GuidedBackprop")},
    "guided-gradcam": {"captum": _captum_of_layer("GuidedGradCam")},
    "gradcam": {"grad-cam": _grad_cam("GradCAM"), "captum": _captum_of_layer("LayerGradCam")},
    "gradcam++": {"grad-cam": _grad_cam("GradCAMPlusPlus")},
    "xgradcam": {"grad-cam": _grad_cam("XGradCAM")},
    "layercam": {"grad-cam": _grad_cam("LayerCAM")},
    "hirescam": {"grad-cam": _grad_cam("HiResCAM")},
    "eigencam": {"grad-cam": _grad_cam("EigenCAM")},
    "fullgrad": {"grad-cam": _grad_cam("FullGrad")},
    "ablationcam": {"grad-cam": _grad_cam("AblationCAM")},
    "integrated-gradients": {"captum": _captum_integrated, "saliency": _saliency_integrated},
    "smoothgrad": {"captum": _captum_smooth, "saliency": _saliency_smooth},
    "occlusion": {"captum": _captum_occlusion},
    "lime": {"lime": _lime},
    "lime-i": {"captum": _captum_regions("Lime")},
    "kernel-shap": {"captum": _captum_regions("KernelShap")},
    "xrai": {"saliency": _saliency_xrai},
}
#: Minutes a call.
SLOW = {("ablationcam", "grad-cam")}
_MODULES = {"grad-cam": "pytorch_grad_cam"}


def installed(library: str) -> bool:
    """Can it be imported?"""
    return importlib.util.find_spec(_MODULES.get(library, library)) is not None
