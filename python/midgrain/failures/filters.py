"""How much each filter of a network's last convolution matters to a class, by eight measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from midgrain import driver
from midgrain.cams.convolution import FilterLayer
from midgrain.cams.gradient import ActGradCAM, GradCAM, GradCAMPlusPlus, XGradCAM
from midgrain.cams.layers import Layer
from midgrain.driver import Target
from midgrain.network.altered import probabilities
from midgrain.network.capture import Capture, capture
from midgrain.network.modules import unwrapped
from midgrain.network.probe import check_output
from midgrain.ops.checks import check_int
from midgrain.randomness import seeded_by_content

__all__ = ["FILTER_MEASURES", "FilterPass", "FilterScorer", "filter_scores"]

#: Name -> one line. A is a filter's activations, g = dy_c / dA, means and sums are over its positions.
FILTER_MEASURES: dict[str, str] = {
    "grad-amap": "Grad-AMap: mean(A g), signs kept",
    "gradcam": "Grad-CAM's weight: mean(g)",
    "gradcam++": "Grad-CAM++'s weight: weighted sum of the positive gradients",
    "xgradcam": "XGrad-CAM's weight: sum(A g) / sum(A)",
    "l1": "sum of |A|, blind to the class",
    "taylor": "|mean(A dL/dA)|, L the cross-entropy of the class",
    "taylor-class": "|mean(A g)|",
    "random": "drawn from the seed and the sample",
}
# Those that are the weights of a class activation map.
_WEIGHTS = {
    "grad-amap": ActGradCAM(),
    "gradcam": GradCAM(),
    "gradcam++": GradCAMPlusPlus(),
    "xgradcam": XGradCAM(),
}
_OF_CLASS = frozenset({*_WEIGHTS, "taylor-class"})


@dataclass(frozen=True, eq=False)
class FilterPass:
    """What a filter scorer found for a batch."""

    #: Measure -> float32 [B, filters].
    scores: dict[str, Tensor]
    #: Classes, int64 [B]; None for a callable target.
    target: Tensor | None
    #: The network's outputs, [B, classes]; None where they are no such tensor.
    outputs: Tensor | None
    #: Name of the layer whose channels the filters are.
    layer: str


class FilterScorer:
    """`filter_scores` for many batches: the layer is looked for once, and several measures share their passes.

    Args:
        measures: a name or several, see `FILTER_MEASURES`.
        layer: see `filter_scores`.
        after_norm: see `filter_scores`.
        output: see `filter_scores`.
        seed: see `filter_scores`.

    Raises:
        TypeError, ValueError: unknown measures; options of other kinds.
    """

    def __init__(
        self,
        measures: str | Sequence[str] = "grad-amap",
        *,
        layer: Layer | None = None,
        after_norm: bool = False,
        output: str = "logit",
        seed: int = 0,
    ):
        self.measures = _check_measures(measures)
        self.filter_layer = FilterLayer(layer, after_norm)
        self.output = check_output(output)
        self.seed = check_int(seed, "seed", 0, 2**31)

    def __call__(self, model: Any, x: Tensor, target: Target = None) -> FilterPass:
        """One forward pass, and a backward pass as far as the layer; of "taylor" another two.

        Args:
            model: see `filter_scores`.
            x: see `filter_scores`.
            target: see `filter_scores`.

        Raises:
            TypeError, ValueError: see `filter_scores`.
        """
        driver.check_model(model)
        x = driver.check_input(x)
        network = unwrapped(model)
        if callable(target) and ("taylor" in self.measures or self.output != "logit"):
            raise ValueError(
                "target: expected classes, got a callable; measure 'taylor' and output='probability' are defined for "
                "classes only"
            )
        found: dict[str, Tensor] = {}
        with driver.preserved(network, x):
            site = self.filter_layer.site(network, x, target)
            wanted = set(self.measures)
            result = None
            for names, reads in ((wanted - {"taylor"}, self.output), (wanted & {"taylor"}, "loss")):
                if not names:
                    continue
                read = None if reads == "logit" else _Read(target, len(x), _READINGS[reads])
                backward = not names.isdisjoint(_OF_CLASS | {"taylor"})
                seen = capture(network, x, target if read is None else read, [site], backward=backward)
                classes = seen.result.target if read is None else read.classes
                result = (classes, seen.result.outputs)
                found |= {name: self._measured(name, seen, x) for name in names}
        assert result is not None
        return FilterPass({name: found[name] for name in self.measures}, *result, site.name)

    def _measured(self, name: str, seen: Capture, x: Tensor) -> Tensor:
        activations = seen.activations[0]
        axes = tuple(range(2, activations.ndim))
        if name == "random":
            draws = [
                torch.rand(activations.shape[1], generator=seeded_by_content(sample.float().cpu(), self.seed))
                for sample in x.detach()
            ]
            return torch.stack(draws).to(activations.device)
        if name == "l1":
            return activations.abs().sum(axes)
        weigh = _WEIGHTS["grad-amap" if name.startswith("taylor") else name].weights
        scores = weigh(activations, seen.gradients[0], axes).flatten(1)
        return scores.abs() if name.startswith("taylor") else scores


@overload
def filter_scores(
    model: Any,
    x: Tensor,
    target: Target = None,
    measure: str = "grad-amap",
    *,
    layer: Layer | None = None,
    after_norm: bool = False,
    output: str = "logit",
    seed: int = 0,
) -> Tensor: ...


@overload
def filter_scores(
    model: Any,
    x: Tensor,
    target: Target,
    measure: list[str] | tuple[str, ...],
    *,
    layer: Layer | None = None,
    after_norm: bool = False,
    output: str = "logit",
    seed: int = 0,
) -> dict[str, Tensor]: ...


def filter_scores(
    model: Any,
    x: Tensor,
    target: Target = None,
    measure: str | list[str] | tuple[str, ...] = "grad-amap",
    *,
    layer: Layer | None = None,
    after_norm: bool = False,
    output: str = "logit",
    seed: int = 0,
) -> Tensor | dict[str, Tensor]:
    """How much every filter of the last convolution matters to a class.

    With A the activations of a filter, g = dy_c / dA the gradient of the class's logit, Z positions:

    * "grad-amap": mean(A g), signs kept: positive speaks for the class, negative against it.
    * "gradcam", "gradcam++", "xgradcam": the weights that these maps give the filter.
    * "l1": sum |A|. "taylor": |mean(A dL/dA)| with the cross-entropy L of the class. "taylor-class": |mean(A g)|.
    * "random": uniform in 0 .. 1, the baseline.

    One forward pass and a backward pass as far as the layer; the trunk runs without gradients.

    Args:
        model: a network with convolutions that returns logits [B, classes], or anything else with a callable target.
        x: floats [B, C, H, W] or [B, C, T, H, W], normalised as the model expects.
        target: None (the class predicted for each sample), a class, one per sample, or a callable from the model's
            outputs to one score per sample. For failures, the true class.
        measure: a name, or a list of several that then share their passes.
        layer: None finds the last convolution; a module or its dotted name is taken, also one that does not convolve:
            the ReLU that follows, say, or a block, for the activations after it. In a network whose last block has
            branches, the last convolution is that of the last branch alone; name the block there.
        after_norm: take the activations after the batch norm that follows the layer. It moves their zero, so that
            what counts for a class can change its sign; before it, a filter set to 0 is a filter that was pruned.
        output: differentiate the class's "logit" or its softmax "probability".
        seed: of "random".

    Returns:
        Float32 [B, filters] on x's device; for several measures a dictionary of them. A sample's scores do not
        depend on the rest of its batch.

    Raises:
        TypeError: arguments of other kinds.
        ValueError: unknown measures; a target out of range; no convolution, or no norm that follows it; a callable
            target with "taylor" or `output="probability"`.

    Sources: T. Hartley's PhD thesis, 6.2.1, equations 6.1 - 6.6; Molchanov et al. 2017 and Figurnov et al. 2016
    (Taylor); Li et al. 2017 (l1).

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(8, 4))
        >>> x = torch.rand(2, 3, 16, 16)
        >>> mg.failures.filter_scores(model, x, target=[0, 3]).shape
        torch.Size([2, 8])
        >>> sorted(mg.failures.filter_scores(model, x, None, ["l1", "taylor"]))
        ['l1', 'taylor']
    """
    scorer = FilterScorer(measure, layer=layer, after_norm=after_norm, output=output, seed=seed)
    scores = scorer(model, x, target).scores
    return scores[measure] if isinstance(measure, str) else scores


def _check_measures(measures: object) -> tuple[str, ...]:
    if isinstance(measures, str):
        measures = (measures,)
    if not isinstance(measures, list | tuple) or not all(isinstance(name, str) for name in measures):
        raise TypeError(f"measure: expected a name or a list of names, got {measures!r}")
    unknown = [name for name in measures if name not in FILTER_MEASURES]
    if unknown or not measures:
        got = ", ".join(repr(name) for name in unknown) or "none"
        raise ValueError(f"measure: expected some of {', '.join(FILTER_MEASURES)}, got {got}")
    return tuple(dict.fromkeys(measures))


class _Read:
    """A target that is read from the outputs in another way than as the class's logit.

    Args:
        target: classes, or None for the predicted ones.
        batch: samples.
        reading: from outputs [B, classes] to what is read of each class, [B, classes].
    """

    def __init__(self, target: Target, batch: int, reading: Callable[[Tensor], Tensor]):
        self.target, self.batch, self.reading = target, batch, reading
        self.classes: Tensor | None = None

    def __call__(self, outputs: Any) -> Tensor:
        self.classes = driver.resolve_target(outputs, self.target, self.batch)[0]
        return driver.resolve_target(self.reading(outputs), self.classes, self.batch)[1]


def _losses(outputs: Tensor) -> Tensor:
    """The cross-entropy of every class."""
    return -F.log_softmax(outputs, 1, dtype=torch.promote_types(outputs.dtype, torch.float32))


_READINGS: Mapping[str, Callable[[Tensor], Tensor]] = {"probability": probabilities, "loss": _losses}
