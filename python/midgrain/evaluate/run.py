"""The evaluation of explainers on a data set."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from midgrain import driver
from midgrain.evaluate.datasets import Dataset, read_dataset
from midgrain.evaluate.identity import described, digest, environment, fingerprint
from midgrain.evaluate.measuring import plan_measures
from midgrain.evaluate.results import Results
from midgrain.evaluate.samples import ClassNames, PreprocessLike
from midgrain.evaluate.store import Store, require
from midgrain.evaluate.work import TARGETS, Plan, Record, evaluate_sample
from midgrain.models import LoadedModel
from midgrain.normalisation import Normalisation
from midgrain.ops.checks import check_bool, check_int
from midgrain.pictures import Preprocess
from midgrain.progress import progress_bar
from midgrain.registry import explainer as make_explainer
from midgrain.registry import method_options, methods

__all__ = ["BASELINES", "evaluate"]

#: Added to the explainers unless told otherwise: what a method must beat.
BASELINES = ("noise", "centre", "random-point")
_PACKAGES = ("pandas", "pyarrow", "krippendorff")
# The journal becomes a part of the table after so many samples or seconds.
_PART_SAMPLES, _PART_SECONDS = 256, 60.0
# So many samples that nothing at all could be said of, and it is not the samples.
_GIVE_UP = 5


def evaluate(
    model: Any,
    dataset: Any,
    explainers: Any,
    measures: Any = ("deletion", "insertion", "combined"),
    out: str | os.PathLike[str] = "run",
    *,
    preprocess: PreprocessLike | None = None,
    classes: Sequence[str] | Mapping[str, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    target: str = "given",
    baselines: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    curves: bool = True,
    examples: int = 4,
    progress: bool = False,
) -> Results:
    """Measure explainers on a data set. What is done stays: the same call goes on where the last one ended.

    Args:
        model: a network that returns logits [B, classes], or a `midgrain.models.LoadedModel`, which brings its
            preprocessing and the names of its classes along.
        dataset: a folder of pictures, class folders, a CSV file, a data set in torchvision's manner, or samples; see
            `midgrain.evaluate.read_dataset`.
        explainers: names of `midgrain.methods()`, or a mapping from a name in the results to a method's name, to (name,
            options) or to an explainer: a callable (x, target) -> `Explanation` or heat map [1, *S].
        measures: names of `midgrain.evaluate.MEASURES`, or a mapping from a name in the results to a measure's name, to
            (name, options) or to options.
        out: the folder of the results.
        preprocess: from a picture to the network's input; needed for pictures unless the model brings it.
        classes: names of the classes by number, or a mapping from names to numbers; class folders and labels may use
            them.
        mean: normalisation of samples that are tensors, for methods that want to know it; by default that of
            `preprocess`, or else ImageNet's or Kinetics'.
        std: likewise.
        target: which class is explained: "given", the sample's where it has one and otherwise the predicted class; or
            always "predicted".
        baselines: methods that every other must beat, added to `explainers`; None adds noise, centre and random-point,
            for `average_drop` also constant. () adds none.
        limit: no more than the first so many samples.
        seed: of every explainer and measure that draws random numbers and was not given one.
        curves: keep the curves too.
        examples: of how many samples the explanations are drawn for the report.
        progress: show a bar with the time left.

    Returns:
        The results so far; `.summary()` and `.report()` make tables and an HTML page of them.

    Raises:
        TypeError, ValueError: an argument that is wrong, before anything runs; a folder that holds results of another
            configuration or something else; explainers or measures of which none works on the first samples.
        FileNotFoundError: no such data set.
        ModuleNotFoundError: the extra `evaluate` is not installed.

    Broken samples are noted in the table of errors and left out, so one of thousands stops nothing.

    Example:
        >>> import tempfile, torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
        >>> samples = [(torch.rand(3, 8, 8), 0), (torch.rand(3, 8, 8), 1)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     results = mg.evaluate(model, samples, ["vanilla"], ["deletion"], out=folder)
        ...     frame = results.frame()
        >>> sorted(frame["explainer"].unique())
        ['centre', 'noise', 'random-point', 'vanilla']
    """
    for package in _PACKAGES:
        require(package)
    if isinstance(model, LoadedModel):
        preprocess = model.preprocess if preprocess is None else preprocess
        classes = model.labels if classes is None else classes
        model = model.model
    driver.check_model(model)
    if preprocess is not None and not callable(preprocess):
        raise TypeError(f"preprocess: expected a callable from a picture, got {type(preprocess).__name__}")
    if isinstance(preprocess, Preprocess) and mean is None and std is None:
        mean, std = preprocess.mean, preprocess.std
    normalisation = Normalisation(mean, std)
    if target not in TARGETS:
        raise ValueError(f"target: expected 'given' or 'predicted', got {target!r}")
    seed = check_int(seed, "seed", 0, 2**63 - 1)
    examples = check_int(examples, "examples", 0)
    limit = None if limit is None else check_int(limit, "limit", 1)
    progress = check_bool(progress, "progress")
    common = {"seed": seed} | ({} if mean is None else {"mean": mean, "std": std})
    planned = plan_measures(measures, common, check_bool(curves, "curves"))
    specifications, made = _explainers(explainers, baselines, model, common, [one.name for one in planned])
    names = ClassNames(classes)
    data = read_dataset(dataset, names)
    if not data.located:
        located = [one.label for one in planned if one.needs in ("mask", "boxes")]
        if located:
            raise ValueError(
                f"measures: {', '.join(located)} need masks or boxes, which this data set does not have; use a CSV "
                "file with columns path and boxes or mask"
            )
    plan = Plan(model, made, planned, preprocess, names, target, normalisation)
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
    store = Store(Path(out))
    with store.writing(configuration) as done:
        _run(store, data, plan, done, limit, examples, progress)
    return Results(Path(out))


def _run(
    store: Store, data: Dataset, plan: Plan, done: set[str], limit: int | None, examples: int, progress: bool
) -> None:
    total = data.length if limit is None or data.length is None else min(limit, data.length)
    watch = _Watch(done)
    last = time.monotonic()
    fresh = 0
    with progress_bar("evaluating", _left(data, done, total), shown=progress) as advance:
        seen: set[str] = set()
        for index, entry in enumerate(data.entries):
            if limit is not None and index >= limit:
                break
            if entry.id in seen:
                raise ValueError(f"dataset: expected every id once, got {entry.id!r} twice")
            seen.add(entry.id)
            if entry.id in done:
                continue
            for record in watch.see(evaluate_sample(entry, plan, example=index < examples)):
                store.add(record)
            fresh += 1
            if fresh % _PART_SAMPLES == 0 or time.monotonic() - last > _PART_SECONDS:
                store.compact()
                last = time.monotonic()
            advance(1)
        for record in watch.held:
            store.add(record)


def _left(data: Dataset, done: set[str], total: int | None) -> int | None:
    """How many samples are still to be done, where that is known without reading them."""
    if total is None or not isinstance(data.entries, Sequence):
        return total
    return sum(entry.id not in done for entry in data.entries[:total])


class _Watch:
    """Sees whether anything works at all; until then it holds back what failed, so that it is tried again."""

    def __init__(self, done: set[str]):
        self.held: list[Record] = []
        self._worked = bool(done)
        self._stages: dict[str, int] = {}

    def see(self, record: Record) -> list[Record]:
        """The records that are to be kept by now.

        Raises:
            ValueError: the first samples could be read, and the same step failed on all of them.
        """
        stages = {error["stage"] for error in record.errors}
        if self._worked or stages == {"read"}:
            return [record]
        self.held.append(record)
        for stage in stages:
            self._stages[stage] = self._stages.get(stage, 0) + 1
        always = [error for error in record.errors if self._stages[error["stage"]] == len(self.held)]
        if not always:
            self._worked = True
            kept, self.held = self.held, []
            return kept
        if len(self.held) >= _GIVE_UP:
            raise ValueError(
                f"{always[0]['stage']}: failed on each of the first {_GIVE_UP} samples: {always[0]['error']}"
            )
        return []


def _explainers(
    wanted: Any, baselines: Sequence[str] | None, model: Any, common: Mapping[str, Any], measured: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Callable[..., Any]]]:
    """What each explainer is, for the configuration, and the explainers."""
    named = _named(wanted)
    if baselines is None:
        baselines = (*BASELINES, *(("constant",) if "average_drop" in measured else ()))
    if isinstance(baselines, str) or not all(isinstance(name, str) for name in baselines):
        raise TypeError(f"baselines: expected names of methods, got {baselines!r}")
    for name in baselines:
        named.setdefault(name, name)
    specifications: dict[str, Any] = {}
    made: dict[str, Callable[..., Any]] = {}
    for label, value in named.items():
        if callable(value) and not isinstance(value, type):
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
