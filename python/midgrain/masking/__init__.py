"""Explainers that look at the network from outside: they mask the input and see what becomes of the score."""

from __future__ import annotations

from collections.abc import Callable

from midgrain.explainer_base import Explainer

__all__ = ["MASKING"]

#: Name -> (class, one line).
MASKING: dict[str, tuple[Callable[..., Explainer], str]] = {}
