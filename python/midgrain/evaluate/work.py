"""The work on one sample: a pure function from the sample to its rows, for whatever runs it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from midgrain import driver
from midgrain.clips import ClipPreprocess
from midgrain.evaluate.companions import Companions, OtherSamples
from midgrain.evaluate.datasets import Entry
from midgrain.evaluate.measuring import Case, PlannedMeasure, measure
from midgrain.evaluate.samples import ClassNames, PreprocessLike, prepare
from midgrain.explainer_base import to_uint8
from midgrain.explanation import Explanation
from midgrain.files import encodable
from midgrain.html_page import jpeg_uri
from midgrain.network.modules import model_device
from midgrain.normalisation import Normalisation
from midgrain.pictures import Preprocess

__all__ = ["TARGETS", "Plan", "Record", "evaluate_sample"]

#: Which class is explained: the sample's, where it has one, or always the predicted one.
TARGETS = ("given", "predicted")


@dataclass(frozen=True, eq=False)
class Plan:
    """All that the work on a sample needs besides the sample."""

    model: Any
    #: Name in the results -> callable (x, target) -> Explanation, or a heat map [1, *S].
    explainers: Mapping[str, Callable[..., Any]]
    measures: Sequence[PlannedMeasure]
    preprocess: PreprocessLike | None = None
    classes: ClassNames = field(default_factory=ClassNames)
    #: One of `TARGETS`.
    target: str = "given"
    normalisation: Normalisation = field(default_factory=Normalisation)
    #: For measures that put other samples' heat maps beside each.
    others: OtherSamples | None = None
    #: For measures with a second network: name of the measure -> name of the explainer -> the same for that network.
    second: Mapping[str, Mapping[str, Callable[..., Any]]] = field(default_factory=dict)

    def columns(self) -> dict[str, str | None]:
        """Columns of numbers that the measures fill -> the better direction."""
        return {column: better for one in self.measures for column, better in one.columns.items()}

    def curves(self) -> list[str]:
        """Columns of lists of numbers."""
        return [column for one in self.measures for column in one.curves]


@dataclass(frozen=True)
class Record:
    """What the work on one sample gave; JSON throughout."""

    id: str
    #: One for each explainer that worked.
    rows: list[dict[str, Any]] = field(default_factory=list)
    #: What went wrong, each with "id", "stage" and "error".
    errors: list[dict[str, str]] = field(default_factory=list)
    #: For the report: "title", and "pictures", name -> data URI; None unless asked for.
    example: dict[str, Any] | None = None


def evaluate_sample(entry: Entry, plan: Plan, *, example: bool = False) -> Record:
    """Explain one sample with every explainer and measure every explanation.

    The result depends on nothing that went before, and no exception of a broken sample, a refusing explainer or a
    failing measure gets out: each becomes an error of the record, and the rest goes on.

    Args:
        entry: the sample.
        plan: what to do with it.
        example: also draw the explanations.
    """
    record = Record(entry.id)
    try:
        sample = entry.read()
    except Exception as error:  # A data set of the user's may raise anything.
        return _failed(record, "read", error)
    try:
        prepared = prepare(sample, plan.preprocess, plan.classes)
        x = prepared.x.to(model_device(plan.model))
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        return _failed(record, "read", error)
    try:
        predicted, target, probability = _seen(x, prepared.label, plan)
    except (ValueError, TypeError, RuntimeError) as error:
        return _failed(record, "model", error)
    known = {
        "id": entry.id,
        "label": prepared.label,
        "predicted": predicted,
        "target": target,
        "probability": probability,
    }
    pictures = {}
    for name, explainer in plan.explainers.items():
        try:
            explanation, seconds = _explained(explainer, x, target, name)
        except Exception as error:  # Likewise an explainer of the user's.
            _failed(record, name, error)
            continue
        beside = _companions(entry, x, name, plan)
        case = Case(plan.model, x, target, prepared.mask, prepared.boxes, beside)
        values, failed = measure(plan.measures, case, explanation)
        for label, problem in failed.items():
            _failed(record, f"{name}: {label}", problem)
        passes = explanation.details.get("passes")
        known_passes = None if passes is None else int(passes.reshape(-1)[0])
        record.rows.append({**known, "explainer": name, "seconds": seconds, "passes": known_passes, **values})
        if example:
            pictures[name] = _drawn(explanation, x, plan)
    if not example or not pictures:
        return record
    shown = {"input": jpeg_uri(_picture(x, plan)), **pictures}
    return Record(record.id, record.rows, record.errors, {"title": _title(known), "pictures": shown})


def _seen(x: Tensor, label: int | None, plan: Plan) -> tuple[int, int, float]:
    """The predicted class, the one to explain, and its probability."""
    with driver.preserved(plan.model, x):
        seen = driver.forward(plan.model, driver.check_input(x), None)
        if seen.outputs is None or seen.target is None:
            raise ValueError("model: expected logits [1, classes]")
        predicted = int(seen.target[0])
        probabilities = seen.outputs[0].float().softmax(0)
    target = predicted if plan.target == "predicted" or label is None else label
    if not 0 <= target < len(probabilities):
        raise ValueError(f"label: expected a class in 0 .. {len(probabilities) - 1}, got {target}")
    return predicted, target, float(probabilities[target])


def _companions(entry: Entry, x: Tensor, name: str, plan: Plan) -> Companions:
    """What measures may put beside this sample's explanation by this explainer."""

    def explain(other: Entry) -> Tensor:
        prepared = prepare(other.read(), plan.preprocess, plan.classes)
        x = prepared.x.to(model_device(plan.model))
        target = _seen(x, prepared.label, plan)[1]
        return _explained(plan.explainers[name], x, target, name)[0].heatmap[0]

    def others(k: int) -> Sequence[Tensor]:
        assert plan.others is not None, "plans with such measures bring them"
        return plan.others.maps(name, entry.id, k, explain)

    def second(explainers: Mapping[str, Callable[..., Any]]) -> Tensor:
        if name not in explainers:
            raise ValueError(f"{name}: expected an explainer given by name, to make it for the second network too")
        return _explained(explainers[name], x, None, name)[0].heatmap

    return Companions(others, {label: functools.partial(second, each) for label, each in plan.second.items()})


def _failed(record: Record, stage: str, error: Exception) -> Record:
    text = encodable(" ".join(str(error).split()))
    if not isinstance(error, ValueError | TypeError | OSError):
        text = f"{type(error).__name__}: {text}"
    record.errors.append({"id": record.id, "stage": stage, "error": text})
    return record


def _explained(explainer: Callable[..., Any], x: Tensor, target: int | None, name: str) -> tuple[Explanation, float]:
    _wait(x)
    start = time.perf_counter()
    found = explainer(x, target)
    _wait(x)
    seconds = time.perf_counter() - start
    if not isinstance(found, Explanation):
        if not hasattr(found, "__array__") and not isinstance(found, Tensor):
            raise TypeError(f"{name}: expected an Explanation or a heat map [1, *S], got {type(found).__name__}")
        found = Explanation(torch.as_tensor(np.asarray(found) if not isinstance(found, Tensor) else found).detach())
    expected = [1, *x.shape[2:]]
    if list(found.heatmap.shape) != expected:
        raise ValueError(f"{name}: expected a heat map of shape {expected}, got {list(found.heatmap.shape)}")
    if not torch.isfinite(found.heatmap).all():
        raise ValueError(f"{name}: expected finite scores, got NaN or infinity")
    return found, seconds


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def _title(known: Mapping[str, Any]) -> str:
    label = "" if known["label"] is None or known["label"] == known["target"] else f", labelled {known['label']}"
    return f"{known['id']}: class {known['target']} ({known['probability']:.1%}){label}"


def _picture(x: Tensor, plan: Plan) -> npt.NDArray[np.uint8]:
    """The input as uint8 RGB [H, W, 3] or [T, H, W, 3]; grey where its channels are no colours."""
    if isinstance(plan.preprocess, Preprocess | ClipPreprocess) and x.shape[1] == len(plan.preprocess.mean):
        rgb = Normalisation(plan.preprocess.mean, plan.preprocess.std).rgb(x)
    else:
        rgb = plan.normalisation.rgb(x)
    pixels = to_uint8(rgb)
    if pixels is None:
        return np.full((*x.shape[2:], 3), 128, np.uint8)
    found: npt.NDArray[np.uint8] = pixels[0].cpu().numpy()
    return found


def _drawn(explanation: Explanation, x: Tensor, plan: Plan) -> str:
    return jpeg_uri(explanation.overlay(0, image=np.ascontiguousarray(_picture(x, plan)), contours=False))
