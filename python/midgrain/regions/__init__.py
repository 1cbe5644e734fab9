"""Explainers whose units are superpixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from midgrain.explainer_base import Explainer
from midgrain.regions.gws import GWS
from midgrain.regions.kernel_shap import KernelSHAP
from midgrain.regions.lime import LIME
from midgrain.regions.lime_prior import LIMEPrior
from midgrain.regions.swag import SWAG
from midgrain.regions.xrai import XRAI

__all__ = ["GWS", "LIME", "REGIONS", "SWAG", "XRAI", "KernelSHAP", "LIMEPrior"]

#: Name -> (class, options that the name fixes, one line).
REGIONS: dict[str, tuple[Callable[..., Explainer], Mapping[str, Any], str]] = {
    "swag-i": (
        SWAG,
        {"superpixels": "image"},
        "SWAG: superpixels from the picture, scored by mean guided gradient",
    ),
    "swag-ig": (
        SWAG,
        {"superpixels": "image+gradient"},
        "SWAG: superpixels from picture and gradient, scored by mean guided gradient",
    ),
    "swag-g": (
        SWAG,
        {"superpixels": "gradient"},
        "SWAG: superpixels from the gradient, scored by mean guided gradient",
    ),
    "lime": (LIME, {}, "LIME: linear model of the class's probability with quickshift superpixels on and off"),
    "lime-i": (LIME, {"superpixels": "image"}, "LIME with SLIC superpixels from the picture"),
    "lime-ig": (LIME, {"superpixels": "image+gradient"}, "LIME with superpixels from picture and gradient"),
    "lime-g": (LIME, {"superpixels": "gradient"}, "LIME with superpixels from the gradient"),
    "lime-prior": (LIMEPrior, {}, "LIME of few passes: each copy tells where in the picture its score comes from"),
    "kernel-shap": (KernelSHAP, {}, "Kernel SHAP: Shapley values of superpixels"),
    "gws": (GWS, {}, "gradient weighted superpixels: quickshift's, scored by summed guided gradient"),
    "xrai": (XRAI, {}, "XRAI: regions of several segmentations, ranked by their mean integrated gradients"),
}
