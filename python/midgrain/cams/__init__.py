"""Class activation maps. `make_cam` turns a name into one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from midgrain.cams.ablation import AblationCAM
from midgrain.cams.activation import EigenCAM, ReluActivation, SaliencyTubes
from midgrain.cams.base import CAM
from midgrain.cams.deepmaps import DeepMaps
from midgrain.cams.gradient import ActGradCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from midgrain.cams.guided import GuidedActGradCAM, GuidedGradCAM
from midgrain.cams.jitter import JitterCAM
from midgrain.cams.score_cam import ScoreCAM
from midgrain.scorers import SCORERS, Scorer, ScorerFunction, make_scorer

__all__ = ["CAM", "CAMS", "make_cam", "make_map_scorer"]

#: Name -> (class, one line).
CAMS: dict[str, tuple[Callable[..., CAM], str]] = {
    "gradcam": (GradCAM, "Grad-CAM: channels weighted by their mean gradient"),
    "gradcam++": (GradCAMPlusPlus, "Grad-CAM++: by their weighted positive gradients"),
    "xgradcam": (XGradCAM, "XGrad-CAM: by their gradient where they are active"),
    "act-gradcam": (ActGradCAM, "Act-Grad-CAM (Grad-AMap-CAM): by their mean activation times gradient"),
    "layercam": (LayerCAM, "LayerCAM: activations times positive gradients, position by position"),
    "hirescam": (HiResCAM, "HiResCAM: activations times gradients, position by position"),
    "jittercam": (JitterCAM, "Jitter-CAM: Grad-CAM of overlapping patches, at twice the resolution"),
    "ablationcam": (AblationCAM, "Ablation-CAM: by the share of the score that is lost without them"),
    "scorecam": (ScoreCAM, "Score-CAM: by the score of the input seen through them; one pass per channel"),
    "guided-gradcam": (GuidedGradCAM, "guided backpropagation times Grad-CAM"),
    "guided-act-gradcam": (GuidedActGradCAM, "guided backpropagation times Act-Grad-CAM"),
    "deepmaps": (DeepMaps, "DeepMaps: activations times gradients of all layers, each rescaled, added up"),
    "eigencam": (EigenCAM, "Eigen-CAM: first principal component of the activations, blind to the class"),
    "relu-activation": (ReluActivation, "sum of the positive activations, blind to the class"),
    "saliency-tubes": (SaliencyTubes, "Saliency Tubes: channels weighted by the linear layer's weights"),
}


def make_cam(name: str, **options: Any) -> CAM:
    """A class activation map from its name.

    Raises:
        TypeError: options that it does not have.
        ValueError: an unknown name, or options out of range.

    Example:
        >>> import torch
        >>> from midgrain.cams import make_cam
        >>> from midgrain.driver import preserved
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> x = torch.rand(2, 3, 16, 16)
        >>> with preserved(model, x):
        ...     made = make_cam("layercam").layer_maps(model, x, target=3)
        >>> made.maps[0].shape
        torch.Size([2, 14, 14])
    """
    if name not in CAMS:
        raise ValueError(f"name: expected one of {', '.join(CAMS)}, got {name!r}")
    factory = CAMS[name][0]
    parameters = inspect.signature(factory).parameters
    unknown = options.keys() - parameters.keys()
    if unknown and "options" not in parameters:
        raise TypeError(f"{name!r} has no option {', '.join(sorted(unknown))}")
    return factory(**options)


def make_map_scorer(
    scorer: str | Scorer | ScorerFunction,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **options: Any,
) -> Scorer:
    """A scorer from the name of a class activation map or of a pixel scorer, or from a callable, see `make_scorer`.

    Args:
        scorer: a name or a callable.
        mean: normalisation of the input, for the scorers that need to know it.
        std: likewise.
        **options: of the scorer that the name means.

    Raises:
        TypeError, ValueError: see `make_scorer` and `make_cam`.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> mg.SWAG(model, scorer=mg.scorer("layercam", layer="1"))(torch.rand(1, 3, 32, 32)).heatmap.shape
        torch.Size([1, 32, 32])
    """
    if isinstance(scorer, str) and scorer in CAMS:
        return make_cam(scorer, **options)
    if isinstance(scorer, str) and scorer in SCORERS and mean is not None:
        parameters = inspect.signature(SCORERS[scorer][0]).parameters
        options |= {"mean": mean, "std": std} if "mean" in parameters else {}
    return make_scorer(scorer, **options)
