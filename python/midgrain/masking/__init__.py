"""Explainers that look at the network from outside: they mask the input and see what becomes of the score."""

from __future__ import annotations

from collections.abc import Callable

from midgrain.explainer_base import Explainer
from midgrain.masking.sise import SISE

__all__ = ["MASKING", "SISE"]

#: Name -> (class, one line).
MASKING: dict[str, tuple[Callable[..., Explainer], str]] = {
    "sise": (SISE, "SISE: the input behind the feature maps of every convolutional block, fused"),
}
