"""The table of filters: the accuracy of a network while the filters of its last convolution are removed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import bootstrap

from midgrain import driver
from midgrain.evaluate.datasets import Entry
from midgrain.evaluate.papers.comparison import Line, lines_of_network
from midgrain.evaluate.papers.declaration import Table
from midgrain.evaluate.papers.running import Conditions, errors_of, first_error
from midgrain.evaluate.results import Results
from midgrain.evaluate.samples import ClassNames, prepare
from midgrain.evaluate.store import Store
from midgrain.evaluate.work import Record
from midgrain.failures import FilterScorer
from midgrain.identity import described, environment, fingerprint
from midgrain.measures.filters import FilterRemover
from midgrain.models import LoadedModel
from midgrain.network.modules import model_device
from midgrain.progress import progress_bar

__all__ = ["run_filters"]

_LABEL = "removal"
#: 1 where the whole network is right: what the areas are divided by.
_START = f"{_LABEL}.start"
_CURVE = f"{_LABEL}.curve"
_RESAMPLES, _AT_ONCE = 2000, 20
_PART_SAMPLES = 256
# So many samples that could be read, without a row, and it is not the samples.
_GIVE_UP = 5


def run_filters(
    table: Table, network: str, loaded: LoadedModel, methods: Sequence[str], conditions: Conditions
) -> tuple[list[Line], list[str]]:
    """Remove filters by the methods' rankings, one sample at a time; see `midgrain.measures.filter_removal`.

    A row's "removal" is the area under its sample's curve of right (1) or wrong (0). The table's figure is the sum of
    these over all samples, divided by how many the whole network gets right: the area under the normalised accuracy.

    Args:
        table: the table; its methods are measures of filters.
        network: the paper's name.
        loaded: what runs in its place.
        methods: the paper's names of those to be run.
        conditions: data, folders and so on.

    Returns:
        The lines of the network, and what went wrong.

    Raises:
        ValueError: no sample could be measured; results of another configuration.
    """
    work = _Work(table, loaded, methods, conditions.seed)
    store = Store(conditions.results_of(network))
    total = conditions.data.length
    if conditions.limit is not None:
        total = conditions.limit if total is None else min(total, conditions.limit)
    with (
        store.writing(_configuration(table, loaded, methods, conditions), retry=conditions.retry) as done,
        progress_bar(f"{table.name}, {network}", total, shown=conditions.progress) as advance,
    ):
        worked, failed = bool(done), 0
        for index, entry in enumerate(conditions.data.entries):
            if conditions.limit is not None and index >= conditions.limit:
                break
            if entry.id not in done:
                record = work.record(entry)
                worked = worked or bool(record.rows)
                failed += record.errors[0]["stage"] != "read" if record.errors else 0
                if not worked and failed >= _GIVE_UP:
                    raise ValueError(f"{network}: failed on each of the first samples: {record.errors[0]['error']}")
                store.add(record)
                if index % _PART_SAMPLES == _PART_SAMPLES - 1:
                    store.compact()
            advance(1)
    results = Results(conditions.results_of(network))
    frame = results.frame()
    if frame.empty:
        raise ValueError(f"data: no sample could be evaluated; {first_error(results)}")
    found = {}
    for method, rows in frame.groupby("explainer", sort=False):
        found["", str(method), _LABEL] = _normalised(rows[_LABEL].to_numpy(), rows[_START].to_numpy(), conditions.seed)
    return lines_of_network(table, network, found, methods), errors_of(results, network)


class _Work:
    """From an entry of the data set to its rows."""

    def __init__(self, table: Table, loaded: LoadedModel, methods: Sequence[str], seed: int):
        measure = table.measures[_LABEL]
        self.loaded = loaded
        self.names = {name: str(table.methods[name].explainer) for name in methods}
        self.passes = {name: table.methods[name].on("")[1] + measure.passes for name in methods}
        self.scorer = FilterScorer(list(dict.fromkeys(self.names.values())), seed=seed)
        self.remover = FilterRemover(loaded.model, **measure.options)
        self.classes = ClassNames(loaded.labels)

    def record(self, entry: Entry) -> Record:
        """The rows of a sample, one for each method, or what went wrong."""
        stage = "read"
        try:
            prepared = prepare(entry.read(), self.loaded.preprocess, self.classes)
            if prepared.label is None:
                raise ValueError("label: expected the sample's class, got none")
            x = prepared.x.to(model_device(self.loaded.model))
            stage = "filters"
            return self._measured(entry.id, x, prepared.label)
        except Exception as error:  # A data set or a network of the user's may raise anything.
            kind = "" if isinstance(error, ValueError | TypeError | OSError) else f"{type(error).__name__}: "
            text = kind + " ".join(str(error).split())
            return Record(entry.id, errors=[{"id": entry.id, "stage": stage, "error": text}])

    def _measured(self, name: str, x: torch.Tensor, label: int) -> Record:
        target = torch.tensor([label], device=x.device)
        start = time.perf_counter()
        with driver.preserved(self.loaded.model, x):
            seen = self.scorer(self.loaded.model, x, target)
            curves = self.remover(x, {method: seen.scores[kind] for method, kind in self.names.items()}, target)
        seconds = (time.perf_counter() - start) / len(curves)
        rows: list[dict[str, Any]] = []
        for method, curve in curves.items():
            correct = curve.correct[0].double().cpu()
            share = curve.counts.double().cpu() / float(curve.counts[-1])
            rows.append(
                {
                    "id": name,
                    "explainer": method,
                    "label": label,
                    "predicted": None if seen.outputs is None else int(seen.outputs[0].argmax()),
                    "target": label,
                    "probability": float(curve.probability[0, 0]),
                    "seconds": seconds,
                    "passes": self.passes[method],
                    _LABEL: float(torch.trapezoid(correct, share)),
                    _START: float(correct[0]),
                    _CURVE: correct.tolist(),
                }
            )
        return Record(name, rows)


def _configuration(table: Table, loaded: LoadedModel, methods: Sequence[str], conditions: Conditions) -> dict[str, Any]:
    measure = table.measures[_LABEL]
    here = environment()
    return {
        "configuration": {
            "model": fingerprint(loaded.model),
            "target": table.target,
            "seed": conditions.seed,
            "preprocess": described(loaded.preprocess),
            "versions": {key: value for key, value in here.items() if key in ("midgrain", "torch")},
            "dataset": conditions.data.description,
            "explainers": {name: {"name": table.methods[name].explainer, "options": {}} for name in methods},
            "measures": {_LABEL: {"name": measure.name, "options": described(measure.options)}},
        },
        "columns": {"numbers": {_LABEL: "lower", _START: None}, "curves": [_CURVE]},
        "environment": here,
    }


def _normalised(areas: npt.NDArray[np.float64], starts: npt.NDArray[np.float64], seed: int) -> Mapping[str, Any]:
    """The area under the normalised accuracy with its bootstrap interval, as a row of a summary."""
    nothing = float("nan")
    mean = float(areas.sum() / starts.sum()) if starts.any() else nothing
    row = {"mean": mean, "low": nothing, "high": nothing, "n": len(areas) if starts.any() else 0}
    if starts.sum() < 2:
        return row
    found = bootstrap(
        (areas, starts),
        # A resample without any right sample says nothing; such ones are only drawn from very few samples.
        lambda a, s, axis=-1: a.sum(axis) / np.maximum(s.sum(axis), 1.0),
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=_AT_ONCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return {**row, "low": float(found.confidence_interval.low), "high": float(found.confidence_interval.high)}
