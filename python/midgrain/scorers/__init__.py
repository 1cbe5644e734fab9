"""Per-pixel score maps. `make_scorer` turns a name or a callable into one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from midgrain.scorers.base import CallableScorer, Score, Scorer, ScorerFunction
from midgrain.scorers.baselines import Centre, Constant, Noise, RandomPoint, Sobel
from midgrain.scorers.fullgrad import FullGrad
from midgrain.scorers.gradient import InputXGradient, Vanilla
from midgrain.scorers.guided import Guided
from midgrain.scorers.integrated import IntegratedGradients
from midgrain.scorers.smooth import SmoothGrad

__all__ = ["SCORERS", "Score", "Scorer", "ScorerFunction", "make_scorer"]

#: Name -> (class, one line).
SCORERS: dict[str, tuple[Callable[..., Scorer], str]] = {
    "vanilla": (Vanilla, "magnitude of the gradient of the class score"),
    "guided": (Guided, "guided backpropagation: gradients that are positive at every ReLU"),
    "input-x-gradient": (InputXGradient, "magnitude of the input times its gradient"),
    "integrated-gradients": (IntegratedGradients, "input times its mean gradient on the way from a baseline"),
    "smoothgrad": (SmoothGrad, "mean gradient over copies of the input with noise"),
    "fullgrad": (FullGrad, "what the input and every bias contribute to the score"),
    "sobel": (Sobel, "baseline: edges of the picture, blind to the network"),
    "noise": (Noise, "baseline: uniform noise"),
    "centre": (Centre, "baseline: nearness to the centre of the picture"),
    "random-point": (RandomPoint, "baseline: nearness to a random pixel"),
    "constant": (Constant, "baseline: 0.9 everywhere, one pixel 1 and one 0"),
}


def make_scorer(scorer: str | Scorer | ScorerFunction, **options: Any) -> Scorer:
    """A scorer from its name with options, or from a callable `(model, x, target) -> [B, *S]`.

    Raises:
        TypeError: neither a name nor callable, or options the scorer does not have.
        ValueError: an unknown name.
    """
    if isinstance(scorer, str):
        if scorer not in SCORERS:
            raise ValueError(f"scorer: expected one of {', '.join(SCORERS)} or a callable, got {scorer!r}")
        factory = SCORERS[scorer][0]
        unknown = options.keys() - inspect.signature(factory).parameters.keys()
        if unknown:
            raise TypeError(f"scorer {scorer!r} has no option {', '.join(sorted(unknown))}")
        return factory(**options)
    if options:
        raise TypeError(f"scorer: options {', '.join(options)} go with a scorer's name only")
    if isinstance(scorer, Scorer) and not isinstance(scorer, type):
        return scorer
    if callable(scorer) and not isinstance(scorer, type):
        return CallableScorer(scorer)
    raise TypeError(f"scorer: expected a name or a callable (model, x, target), got {type(scorer).__name__}")
