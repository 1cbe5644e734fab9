"""The evaluation of explainers on a data set."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from midgrain.evaluate.datasets import Dataset, Entry
from midgrain.evaluate.planning import plan_run
from midgrain.evaluate.ray_engine import RayEngine
from midgrain.evaluate.results import Results
from midgrain.evaluate.samples import PreprocessLike
from midgrain.evaluate.store import Store
from midgrain.evaluate.work import Plan, Record, evaluate_sample
from midgrain.ops.checks import check_bool, check_int, check_positive
from midgrain.progress import progress_bar

__all__ = ["ENGINES", "evaluate"]

#: What runs the work on the samples.
ENGINES = ("local", "ray")
#: From samples (and whether to draw them), plan and what the samples share to their records, in any order.
_Engine: TypeAlias = Callable[[Iterable[tuple[Entry, bool]], Plan, Any], Generator[Record]]

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
    retry: bool = False,
    progress: bool = False,
    engine: str = "local",
    workers: int | None = None,
    gpus_per_worker: float | None = None,
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
        retry: try the samples of an earlier call again that something went wrong with.
        progress: show a bar with the time left.
        engine: "local", one sample after the other in this process, or "ray": a Ray Data pipeline of several workers on
            this machine or a cluster. Both write the same rows, and one goes on where the other stopped.
        workers: of "ray", how many processes; None means one for each CPU, or as many as the GPUs take.
        gpus_per_worker: of "ray", how many GPUs each gets, also a part of one; None means one where there are any.

    Returns:
        The results so far; `.summary()` and `.report()` make tables and an HTML page of them.

    Raises:
        TypeError, ValueError: an argument that is wrong, before anything runs; a folder that holds results of another
            configuration or something else; explainers or measures of which none works on the first samples.
        FileNotFoundError: no such data set.
        ModuleNotFoundError: the extra `evaluate`, or for "ray" the extra `ray`, is not installed.
        ConnectionError: no Ray cluster answers at the address that the environment names.

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
    examples = check_int(examples, "examples", 0)
    limit = None if limit is None else check_int(limit, "limit", 1)
    retry, progress = check_bool(retry, "retry"), check_bool(progress, "progress")
    runs = _engine(engine, workers, gpus_per_worker)
    run = plan_run(
        model,
        dataset,
        explainers,
        measures,
        preprocess=preprocess,
        classes=classes,
        mean=mean,
        std=std,
        target=target,
        baselines=baselines,
        seed=seed,
        curves=curves,
    )
    store = Store(Path(out))
    with store.writing(run.configuration, retry=retry) as done:
        _run(store, run.data, run.plan, done, limit, examples, progress, runs)
    return Results(Path(out))


def _engine(name: str, workers: int | None, gpus: float | None) -> _Engine:
    if not isinstance(name, str) or name not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {name!r}")
    workers = None if workers is None else check_int(workers, "workers", 1)
    gpus = None if gpus is None else check_positive(gpus, "gpus_per_worker", zero=True)
    if name == "ray":
        return RayEngine(workers, gpus).records
    for option, value in (("workers", workers), ("gpus_per_worker", gpus)):
        if value is not None:
            raise ValueError(f"{option}: expected None unless engine='ray', got {value}")
    return _one_by_one


def _one_by_one(todo: Iterable[tuple[Entry, bool]], plan: Plan, _: Any) -> Generator[Record]:
    for entry, example in todo:
        yield evaluate_sample(entry, plan, example=example)


def _run(
    store: Store,
    data: Dataset,
    plan: Plan,
    done: set[str],
    limit: int | None,
    examples: int,
    progress: bool,
    engine: _Engine,
) -> None:
    total = data.length if limit is None or data.length is None else min(limit, data.length)
    watch = _Watch(done)
    last = time.monotonic()
    with (
        progress_bar("evaluating", _left(data, done, total), shown=progress) as advance,
        contextlib.closing(engine(_todo(data, done, limit, examples), plan, data.shared)) as records,
    ):
        for fresh, found in enumerate(records, 1):
            for record in watch.see(found):
                store.add(record)
            if fresh % _PART_SAMPLES == 0 or time.monotonic() - last > _PART_SECONDS:
                store.compact()
                last = time.monotonic()
            advance(1)
        for record in watch.held:
            store.add(record)


def _todo(data: Dataset, done: set[str], limit: int | None, examples: int) -> Iterator[tuple[Entry, bool]]:
    """The samples that are not done, and whether to draw them."""
    seen: set[str] = set()
    for index, entry in enumerate(itertools.islice(data.entries, limit)):
        if entry.id in seen:
            raise ValueError(f"dataset: expected every id once, got {entry.id!r} twice")
        seen.add(entry.id)
        if entry.id not in done:
            yield entry, index < examples


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
