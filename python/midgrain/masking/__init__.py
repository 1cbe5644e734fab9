"""Explainers that look at the network from outside: they mask the input and see what becomes of the score."""

from __future__ import annotations

from collections.abc import Callable

from midgrain.explainer_base import Explainer
from midgrain.masking.extremal import ExtremalPerturbation
from midgrain.masking.occlusion import Occlusion
from midgrain.masking.rise import RISE
from midgrain.masking.sise import SISE

__all__ = ["MASKING", "RISE", "SISE", "ExtremalPerturbation", "Occlusion"]

#: Name -> (class, one line).
MASKING: dict[str, tuple[Callable[..., Explainer], str]] = {
    "sise": (SISE, "SISE: the input behind the feature maps of every convolutional block, fused"),
    "rise": (RISE, "RISE: random soft masks, each weighted by what the network says behind it"),
    "occlusion": (Occlusion, "occlusion: how much the score falls behind a sliding square"),
    "extremal": (
        ExtremalPerturbation,
        "extremal perturbation: smooth masks of given areas that keep the score highest",
    ),
}
