"""Measures by name: what they need, which direction is better, and which columns they fill."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from midgrain import measures
from midgrain.evaluate.companions import OTHERS, POOL, Companions
from midgrain.explanation import Explanation
from midgrain.ops.checks import check_int

__all__ = ["MEASURES", "ROW_COLUMNS", "Case", "Kind", "PlannedMeasure", "measure", "options_of", "plan_measures"]

#: Columns that every row has besides those of the measures -> kind.
ROW_COLUMNS = {
    "id": "text",
    "explainer": "text",
    "label": "int",
    "predicted": "int",
    "target": "int",
    "probability": "float",
    "seconds": "float",
    "passes": "int",
}

#: Of the 1001 points of an information curve every tenth is kept.
_THINNED = 10


@dataclass(frozen=True)
class Kind:
    """What is known about a measure before it runs."""

    function: Callable[..., Any]
    #: "lower" or "higher"; where the options decide, "order" picks from `orders`.
    better: str
    #: What it looks at beside the heat map: "model", "mask", "boxes", "regions", "others" (heat maps of other samples)
    #: or "second" (that of a second network).
    needs: str
    #: Further numbers, by what is added to the name -> the better direction; None where there is none.
    parts: Mapping[str, str | None]
    #: Curves, by what is added to the name.
    curves: tuple[str, ...] = ()
    #: `order=` -> direction, and the order by default.
    orders: Mapping[str, str] | None = None
    #: Options that `function` does not have.
    further: frozenset[str] = frozenset()


def _model(function: Callable[..., Any], better: str, *curves: str, **parts: str | None) -> Kind:
    return Kind(function, better, "model", parts, curves)


#: Name -> what is known about it.
MEASURES: dict[str, Kind] = {
    "deletion": _model(measures.deletion, "lower", "curve"),
    "insertion": _model(measures.insertion, "higher", "curve"),
    "combined": _model(
        measures.combined, "lower", "deletion.curve", "insertion.curve", deletion="lower", insertion="higher"
    ),
    "aopc": Kind(measures.aopc, "higher", "model", {}, ("curve",), {"morf": "higher", "lerf": "lower"}),
    "afoc": Kind(measures.afoc, "lower", "model", {}, ("curve",), {"lerf": "lower", "morf": "higher"}),
    "n_morf": _model(measures.n_morf, "lower", changed=None),
    "n_lerf": _model(measures.n_lerf, "higher", changed=None),
    "superpixel_removal": Kind(
        measures.superpixel_removal, "lower", "regions", {"changed": None}, (), {"best": "lower", "worst": "higher"}
    ),
    "drop_increase": _model(measures.drop_increase, "lower", increase="higher"),
    "average_drop": _model(measures.average_drop, "lower", increase="higher", constant=None),
    "sic": _model(measures.sic, "higher", "curve"),
    "aic": _model(measures.aic, "higher", "curve"),
    "pointing_game": Kind(measures.pointing_game, "higher", "mask", {}),
    "energy_pointing_game": Kind(measures.energy_pointing_game, "higher", "mask", {}),
    "mask_iou": Kind(measures.mask_iou, "higher", "mask", {}),
    "bbox_score": Kind(measures.bbox_score, "higher", "mask", {}),
    # Its number is the share of samples whose box does not fit, known when all overlaps are; see results.
    "weak_localisation": Kind(measures.weak_localisation, "lower", "boxes", {}, ("iou",)),
    "top_k_agreement": Kind(measures.lime_agreement, "higher", "regions", {"top5": "higher"}),
    "model_contrast": Kind(measures.model_contrast, "higher", "second", {}, further=frozenset({"scene_model"})),
}
for _name in ("deletion", "insertion", "aopc", "afoc", "n_morf", "n_lerf"):
    _kind = MEASURES[_name]
    MEASURES[f"delta_{_name}"] = Kind(
        _kind.function, _kind.better, "others", {"own": None, "others": None}, (), _kind.orders, frozenset({"k"})
    )

# Arguments that are no options of the user's.
_GIVEN = frozenset({"model", "x", "heatmap", "target", "mask", "boxes", "segments", "scores"}) | {
    "object_heatmap",
    "scene_heatmap",
}
_CURVE_PAIR = frozenset({"deletion", "insertion", "combined"})


@dataclass(frozen=True)
class PlannedMeasure:
    """A measure that was asked for."""

    label: str
    name: str
    options: Mapping[str, Any]
    #: Columns of numbers -> the better direction, the measure's own first; None for columns that only inform.
    columns: Mapping[str, str | None]
    #: Columns of curves.
    curves: tuple[str, ...]
    #: Measures of one group read the same passes of the network.
    group: str | None = None

    @property
    def needs(self) -> str:
        """See `Kind`."""
        return MEASURES[self.name].needs


@dataclass(frozen=True, eq=False)
class Case:
    """One sample as measures see it."""

    model: Any
    #: [1, C, *S].
    x: Tensor
    target: int
    #: Bool [1, *S] and float [n, (T,) 4], where they are known.
    mask: Tensor | None = None
    boxes: Tensor | None = None
    companions: Companions | None = None


def options_of(name: str) -> set[str]:
    """The options of one of `MEASURES`."""
    kind = MEASURES[name]
    return (set(inspect.signature(kind.function).parameters) - _GIVEN) | kind.further


def plan_measures(wanted: Any, common: Mapping[str, Any], curves: bool) -> list[PlannedMeasure]:
    """What is to be measured, checked.

    Args:
        wanted: names, or a mapping from the name in the results to a measure's name, to (name, options), or, where it
            is itself a measure's name, to options.
        common: options for every measure that has them and was not given them (`seed`, `mean`, `std`).
        curves: whether curves are kept.

    Raises:
        TypeError, ValueError: an unknown name or option, none at all, one name twice.
    """
    specifications = _specifications(wanted)
    planned = []
    for label, (name, options) in specifications.items():
        if name not in MEASURES:
            raise ValueError(f"measures: expected one of {', '.join(MEASURES)}, got {name!r}")
        known = options_of(name)
        unknown = set(options) - known
        if unknown:
            raise ValueError(f"measures: {name} has no option {', '.join(sorted(unknown))}; it has {_list(known)}")
        kind = MEASURES[name]
        complete = {key: value for key, value in common.items() if key in known} | dict(options)
        _check_companions(name, complete)
        group = f"{sorted(complete.items(), key=str)}" if name in _CURVE_PAIR else None
        planned.append(PlannedMeasure(label, name, complete, _columns(label, kind, complete), (), group))
    return [_with_curves(one, planned, curves) for one in planned]


def measure(
    planned: Sequence[PlannedMeasure], case: Case, explanation: Explanation
) -> tuple[dict[str, Any], dict[str, Exception]]:
    """All that is asked for of one explanation.

    Returns:
        Columns -> number or list of numbers, and by the label of the measure what went wrong.
    """
    found: dict[str, Any] = {}
    failed: dict[str, Exception] = {}
    shared: dict[str, Any] = {}
    for one in planned:
        try:
            result = _run(one, planned, case, explanation, shared)
        except (ValueError, TypeError, RuntimeError) as error:
            failed[one.label] = error
        else:
            found |= {} if result is None else _numbers(one, result)
    return found, failed


def _run(
    one: PlannedMeasure,
    planned: Sequence[PlannedMeasure],
    case: Case,
    explanation: Explanation,
    shared: dict[str, Any],
) -> Any:
    function, heatmap = MEASURES[one.name].function, explanation.heatmap
    if one.needs == "mask":
        if case.mask is None:
            raise ValueError(f"{one.label}: needs a mask or boxes of the object, and this sample has none")
        return _over_frames(function, one, heatmap, case.mask.to(heatmap.device))
    if one.needs == "boxes":
        if case.boxes is None:
            raise ValueError(f"{one.label}: needs boxes of the object, and this sample has none")
        return function(heatmap, [case.boxes], **one.options).iou
    if one.needs == "regions":
        if explanation.segments is None or explanation.scores is None:
            return None
        return function(case.model, case.x, explanation.segments, explanation.scores, case.target, **one.options)
    if one.needs in ("others", "second"):
        return _beside(function, one, case, heatmap)
    if one.group is not None and len({other.name for other in planned if other.group == one.group}) > 1:
        if one.group not in shared:
            shared[one.group] = measures.combined(case.model, case.x, heatmap, case.target, **one.options)
        both = shared[one.group]
        return both if one.name == "combined" else getattr(both, one.name)
    with warnings.catch_warnings():
        # That a constant map does better at average drop stands in the row and in the report.
        warnings.filterwarnings("ignore", message="average_drop: ")
        return function(case.model, case.x, heatmap, case.target, **one.options)


def _beside(function: Callable[..., Any], one: PlannedMeasure, case: Case, heatmap: Tensor) -> Any:
    """A measure of the heat map and others."""
    assert case.companions is not None, "plans with such measures bring them"
    options = {key: value for key, value in one.options.items() if key not in MEASURES[one.name].further}
    if one.needs == "others":
        others = case.companions.others(one.options.get("k", OTHERS), heatmap)
        return measures.delta(function, case.model, case.x, heatmap, others, case.target, **options)
    if case.mask is None:
        raise ValueError(f"{one.label}: needs a mask or boxes of the object, and this sample has none")
    return function(heatmap, case.companions.second(one.label), case.mask.to(heatmap.device), **options)


def _over_frames(function: Callable[..., Any], one: PlannedMeasure, heatmap: Tensor, mask: Tensor) -> Tensor:
    """A measure with a mask, [1]: of a clip the mean over the frames that show the object."""
    if one.name == "energy_pointing_game":
        # A map without a positive value, as nearness is, has no energy; its least value is where it begins.
        lowest = heatmap.amin()
        heatmap = heatmap - lowest if heatmap.amax() <= 0 and heatmap.amax() > lowest else heatmap
    if heatmap.ndim == 4:
        shown = mask.flatten(2).any(2)[0]
        heatmap, mask = heatmap[:, shown], mask[:, shown]
    found: Tensor = function(heatmap, mask, **one.options)
    return found.float().reshape(1, -1).mean(1)


def _numbers(one: PlannedMeasure, result: Any) -> dict[str, Any]:
    """Columns of one result for a batch of one sample."""
    found: dict[str, Any] = {}
    if one.name != "weak_localisation":
        found[one.label] = _number(result if isinstance(result, Tensor) else result.value)
    for column in one.columns:
        part = column[len(one.label) + 1 :]
        if part:
            value = getattr(result, part)
            found[column] = _number(getattr(value, "value", value))
    for column in one.curves:
        curve = result
        for part in column[len(one.label) + 1 :].split("."):
            curve = curve if isinstance(curve, Tensor) else getattr(curve, part)
        found[column] = _list_of_numbers(curve[0], one.name)
    return found


def _number(value: Tensor) -> float:
    """Of a batch of one; of several numbers, as of the other samples' heat maps, their mean."""
    return float(value.double().mean())


def _list_of_numbers(curve: Tensor, name: str) -> list[float]:
    thinned = curve[::_THINNED] if name in ("sic", "aic") else curve
    numbers: list[float] = thinned.detach().float().cpu().tolist()
    return numbers


def _check_companions(name: str, options: Mapping[str, Any]) -> None:
    if "k" in MEASURES[name].further:
        check_int(options.get("k", OTHERS), "k", 1, POOL - 1)
    if "scene_model" in MEASURES[name].further and not callable(options.get("scene_model")):
        raise ValueError(
            f"measures: {name} needs an option scene_model, the network that names scenes, got "
            f"{options.get('scene_model')!r}"
        )


def _specifications(wanted: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    if isinstance(wanted, str):
        wanted = [wanted]
    if not isinstance(wanted, Mapping):
        if not isinstance(wanted, Sequence) or not all(isinstance(name, str) for name in wanted):
            raise TypeError(f"measures: expected names or a mapping, got {wanted!r}")
        if len(set(wanted)) < len(wanted):
            raise ValueError(f"measures: expected each name once, got {', '.join(wanted)}")
        wanted = {name: name for name in wanted}
    if not wanted:
        raise ValueError("measures: expected at least one, got none")
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for label, value in wanted.items():
        if not isinstance(label, str) or not label or "." in label or label in ROW_COLUMNS:
            raise ValueError(f"measures: expected names without dots and no column's, got {label!r}")
        if isinstance(value, str):
            found[label] = (value, {})
        elif isinstance(value, Mapping):
            found[label] = (label, dict(value))
        elif isinstance(value, Sequence) and len(value) == 2 and isinstance(value[1], Mapping):
            found[label] = (value[0], dict(value[1]))
        else:
            raise TypeError(f"measures: expected a name, (name, options) or options for {label!r}, got {value!r}")
    return found


def _columns(label: str, kind: Kind, options: Mapping[str, Any]) -> dict[str, str | None]:
    better = kind.better
    if kind.orders is not None and "order" in options:
        better = kind.orders.get(options["order"], better)
    return {label: better} | {f"{label}.{part}": direction for part, direction in kind.parts.items()}


def _with_curves(one: PlannedMeasure, planned: Sequence[PlannedMeasure], curves: bool) -> PlannedMeasure:
    """Without columns that another measure of its group fills; with curves as wished."""
    others = {other.name for other in planned if other.group == one.group and other is not one}
    twice = others if one.name == "combined" else frozenset()
    kept = {name: better for name, better in one.columns.items() if name.partition(".")[2] not in twice}
    always = one.name == "weak_localisation"
    lines = tuple(
        f"{one.label}.{curve}"
        for curve in MEASURES[one.name].curves
        if (curves or always) and curve.partition(".")[0] not in twice
    )
    return PlannedMeasure(one.label, one.name, one.options, kept, lines, one.group)


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
