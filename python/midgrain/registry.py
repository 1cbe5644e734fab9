"""Explainers by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from midgrain.cams import CAMS, make_map_scorer
from midgrain.explainer_base import Explainer, ScorerExplainer
from midgrain.masking import MASKING
from midgrain.regions import REGIONS
from midgrain.scorers import SCORERS

__all__ = ["explainer", "method_options", "methods"]


def methods() -> dict[str, str]:
    """Every method that `explainer` makes, with one line about each.

    Example:
        >>> import midgrain as mg
        >>> "swag-ig" in mg.methods()
        True
    """
    lines = {name: line for name, (_, _, line) in REGIONS.items()}
    for table in (CAMS, MASKING, SCORERS):
        lines |= {name: line for name, (_, line) in table.items()}
    return lines


def method_options(name: str) -> frozenset[str]:
    """The names of the options that `explainer` takes for a method.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> from midgrain.registry import method_options
        >>> sorted(method_options("relu-activation"))
        ['layer', 'mean', 'reshape', 'std']
    """
    if name in REGIONS:
        factory, fixed, _ = REGIONS[name]
        return _parameters(factory) - {"model", *fixed}
    if name in MASKING:
        return _parameters(MASKING[name][0]) - {"model"}
    if name in CAMS:
        return _parameters(CAMS[name][0]) | {"mean", "std"}
    if name in SCORERS:
        return _parameters(SCORERS[name][0]) | {"mean", "std"}
    raise ValueError(f"name: expected one of {', '.join(methods())}, got {name!r}")


def explainer(name: str, model: Any, **options: Any) -> Explainer:
    """An explainer by its name.

    Args:
        name: one of `methods()`.
        model: the network to explain.
        **options: of the method; every method takes `mean` and `std`.

    Raises:
        ValueError: an unknown name.
        TypeError: a name that is no text, an option that the method does not have.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
        >>> mg.explainer("vanilla", model)(torch.rand(1, 3, 8, 8)).heatmap.shape
        torch.Size([1, 8, 8])
    """
    if not isinstance(name, str):
        raise TypeError(f"name: expected a method's name, got {type(name).__name__}")
    if name in REGIONS or name in MASKING:
        return _region_or_masking(name, model, options)
    if name in CAMS or name in SCORERS:
        normalisation = {key: options.pop(key) for key in ("mean", "std") if key in options}
        return ScorerExplainer(name, model, make_map_scorer(name, **normalisation, **options), **normalisation)
    raise ValueError(f"name: expected one of {', '.join(methods())}, got {name!r}")


def _region_or_masking(name: str, model: Any, options: dict[str, Any]) -> Explainer:
    factory, fixed = REGIONS[name][:2] if name in REGIONS else (MASKING[name][0], {})
    both = fixed.keys() & options.keys()
    if both:
        raise TypeError(f"{', '.join(sorted(both))}: the name {name!r} says it already")
    unknown = options.keys() - _parameters(factory)
    if unknown:
        raise TypeError(f"{name!r} has no option {', '.join(sorted(unknown))}")
    made = factory(model, **fixed, **options)
    made.name = name
    return made


def _parameters(factory: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(factory).parameters)
