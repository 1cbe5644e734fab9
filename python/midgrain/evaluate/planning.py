"""From the arguments of an evaluation to what every sample needs, checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from midgrain import driver
from midgrain.clips import ClipPreprocess
from midgrain.evaluate.companions import OTHERS, OtherSamples
from midgrain.evaluate.datasets import Dataset, Entry, read_dataset
from midgrain.evaluate.measuring import PlannedMeasure, plan_measures
from midgrain.evaluate.samples import ClassNames, PreprocessLike
from midgrain.evaluate.store import require
from midgrain.evaluate.work import TARGETS, Plan
from midgrain.identity import described, digest, environment, fingerprint
from midgrain.models import LoadedModel
from midgrain.normalisation import Normalisation
from midgrain.ops.checks import check_bool, check_int
from midgrain.pictures import Preprocess
from midgrain.registry import explainer as make_explainer
from midgrain.registry import method_options, methods

__all__ = ["BASELINES", "Run", "plan_run"]

#: Added to the explainers unless told otherwise: what a method must beat.
BASELINES = ("noise", "centre", "random-point")
_PACKAGES = ("pandas", "pyarrow", "krippendorff")


@dataclass(frozen=True, eq=False)
class Run:
    """An evaluation before it begins: for whatever runs `evaluate_sample(entry, run.plan)` and keeps the records."""

    plan: Plan
    data: Dataset
    #: JSON, see `midgrain.evaluate.store`.
    configuration: dict[str, Any]


def plan_run(
    model: Any,
    dataset: Any,
    explainers: Any,
    measures: Any,
    *,
    preprocess: PreprocessLike | None = None,
    classes: Sequence[str] | Mapping[str, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    target: str = "given",
    baselines: Sequence[str] | None = None,
    seed: int = 0,
    curves: bool = True,
) -> Run:
    """Check the arguments, see `midgrain.evaluate.evaluate`, and make the explainers.

    Raises:
        TypeError, ValueError, OSError, ModuleNotFoundError: see there.
    """
    for package in _PACKAGES:
        require(package)
    if isinstance(model, LoadedModel):
        preprocess = model.preprocess if preprocess is None else preprocess
        classes = model.labels if classes is None else classes
        model = model.model
    driver.check_model(model)
    if preprocess is not None and not callable(preprocess):
        raise TypeError(
            f"preprocess: expected a callable from a picture or a video's frames, got {type(preprocess).__name__}"
        )
    if isinstance(preprocess, Preprocess | ClipPreprocess) and mean is None and std is None:
        mean, std = preprocess.mean, preprocess.std
    normalisation = Normalisation(mean, std)
    if target not in TARGETS:
        raise ValueError(f"target: expected 'given' or 'predicted', got {target!r}")
    seed = check_int(seed, "seed", 0, 2**63 - 1)
    common = {"seed": seed} | ({} if mean is None else {"mean": mean, "std": std})
    planned = plan_measures(measures, common, check_bool(curves, "curves"))
    chosen = _with_baselines(explainers, baselines, [one.name for one in planned])
    specifications, made = _explainers(chosen, model, common)
    second = {}
    for one in planned:
        if one.needs == "second":
            network = one.options["scene_model"]
            driver.check_model(network)
            by_name = {label: value for label, value in chosen.items() if not _is_explainer(value)}
            second[one.label] = _explainers(by_name, network, common)[1]
    names = ClassNames(classes)
    data = read_dataset(dataset, names)
    _check_located(data, planned)
    others = _others(data, planned, seed)
    plan = Plan(model, made, planned, preprocess, names, target, normalisation, others, second)
    configuration = {
        "configuration": {
            "model": fingerprint(model),
            "target": target,
            "seed": seed,
            "curves": curves,
            "mean": described(mean),
            "std": described(std),
            "preprocess": described(preprocess),
            "classes": None if classes is None else digest(described(classes)),
            "versions": {key: value for key, value in environment().items() if key in ("midgrain", "torch")},
            "dataset": data.description,
            "explainers": specifications,
            "measures": {one.label: {"name": one.name, "options": described(one.options)} for one in planned},
        },
        "columns": {"numbers": plan.columns(), "curves": plan.curves()},
        "environment": environment(),
    }
    return Run(plan, data, configuration)


def _check_located(data: Dataset, planned: Sequence[PlannedMeasure]) -> None:
    if not data.located:
        located = [one.label for one in planned if one.needs in ("mask", "boxes", "second")]
        if located:
            raise ValueError(
                f"measures: {', '.join(located)} need(s) masks or boxes, which this data set does not have; use a CSV "
                "file with columns path and boxes or mask"
            )


def _others(data: Dataset, planned: Sequence[PlannedMeasure], seed: int) -> OtherSamples | None:
    """The samples that measures put beside each, where any of them does."""
    wanting = [one for one in planned if one.needs == "others"]
    if not wanting:
        return None
    if not isinstance(data.entries, Sequence):
        raise ValueError(
            f"measures: {wanting[0].label} needs other samples beside each, so a data set with a length, got an "
            "iterator"
        )
    entries: Sequence[Entry] = data.entries
    for one in wanting:
        k = one.options.get("k", OTHERS)
        if len(entries) <= k:
            raise ValueError(
                f"measures: {one.label} needs more than k = {k} samples, got {len(entries)}; use a smaller k"
            )
    return OtherSamples(entries, seed)


def _with_baselines(wanted: Any, baselines: Sequence[str] | None, measured: Sequence[str]) -> dict[str, Any]:
    """Name in the results -> name, (name, options) or explainer."""
    named = _named(wanted)
    if baselines is None:
        baselines = (*BASELINES, *(("constant",) if "average_drop" in measured else ()))
    if isinstance(baselines, str) or not all(isinstance(name, str) for name in baselines):
        raise TypeError(f"baselines: expected names of methods, got {baselines!r}")
    for name in baselines:
        named.setdefault(name, name)
    return named


def _is_explainer(value: Any) -> bool:
    return callable(value) and not isinstance(value, type)


def _explainers(
    named: Mapping[str, Any], model: Any, common: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Callable[..., Any]]]:
    """What each explainer is, for the configuration, and the explainers."""
    specifications: dict[str, Any] = {}
    made: dict[str, Callable[..., Any]] = {}
    for label, value in named.items():
        if _is_explainer(value):
            specifications[label], made[label] = described(value), value
            continue
        name, options = (value, {}) if isinstance(value, str) else _pair(label, value)
        if name not in methods():
            raise ValueError(f"explainers: expected one of {', '.join(methods())}, got {name!r}")
        taken = method_options(name)
        unknown = set(options) - taken
        if unknown and "options" not in taken:
            raise ValueError(
                f"explainers: {name} has no option {', '.join(sorted(unknown))}; it has {', '.join(sorted(taken))}"
            )
        complete = {key: each for key, each in common.items() if key in taken} | options
        made[label] = make_explainer(name, model, **complete)
        specifications[label] = {"name": name, "options": described(complete)}
    return specifications, made


def _named(wanted: Any) -> dict[str, Any]:
    if isinstance(wanted, str):
        wanted = [wanted]
    if isinstance(wanted, Mapping):
        named = dict(wanted)
    elif isinstance(wanted, Sequence) and all(isinstance(name, str) for name in wanted):
        if len(set(wanted)) < len(wanted):
            raise ValueError(f"explainers: expected each name once, got {', '.join(wanted)}")
        named = {name: name for name in wanted}
    else:
        raise TypeError(f"explainers: expected names or a mapping, got {wanted!r}")
    if not named:
        raise ValueError("explainers: expected at least one, got none")
    for label in named:
        if not isinstance(label, str) or not label:
            raise TypeError(f"explainers: expected texts as names, got {label!r}")
    return named


def _pair(label: str, value: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(value, Sequence) and len(value) == 2 and isinstance(value[1], Mapping):
        return value[0], dict(value[1])
    raise TypeError(f"explainers: expected a name, (name, options) or a callable for {label!r}, got {value!r}")
