"""Explainers whose units are superpixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from midgrain.explainer_base import Explainer
from midgrain.regions.gws import GWS
from midgrain.regions.swag import SWAG
from midgrain.regions.xrai import XRAI

__all__ = ["GWS", "REGIONS", "SWAG", "XRAI"]

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
    "gws": (GWS, {}, "gradient weighted superpixels: quickshift's, scored by summed guided gradient"),
    "xrai": (XRAI, {}, "XRAI: regions of several segmentations, ranked by their mean integrated gradients"),
}
