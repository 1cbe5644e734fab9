"""A table of explanations: one evaluation for each network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from midgrain.evaluate.datasets import Dataset, Entry
from midgrain.evaluate.layouts import Layout
from midgrain.evaluate.papers.comparison import Line, lines_of_network
from midgrain.evaluate.papers.declaration import Table
from midgrain.evaluate.papers.whole_pictures import WholePictures
from midgrain.evaluate.results import Results
from midgrain.evaluate.run import evaluate
from midgrain.evaluate.samples import ClassNames, Sample
from midgrain.evaluate.summary import Summary, summarise
from midgrain.models import LoadedModel
from midgrain.pictures import Preprocess

__all__ = ["Conditions", "errors_of", "first_error", "run_explanations"]


class Conditions:
    """What the networks of a table have in common.

    Args:
        data: the samples.
        layout: where they come from.
        folder: of the data.
        out: of the results.
        limit: no more than the first so many samples.
        seed: of everything random.
        retry: try failed samples again.
        progress: show bars.
        engine: of `midgrain.evaluate.evaluate`.
        workers: likewise.
    """

    def __init__(
        self,
        data: Dataset,
        layout: Layout,
        folder: Path,
        out: Path,
        *,
        limit: int | None,
        seed: int,
        retry: bool,
        progress: bool,
        engine: str = "local",
        workers: int | None = None,
    ):
        self.data, self.layout, self.folder, self.out = data, layout, folder, out
        self.limit, self.seed, self.retry, self.progress = limit, seed, retry, progress
        self.engine, self.workers = engine, workers

    def results_of(self, network: str) -> Path:
        """The folder of a network's results."""
        kept = "".join(letter if letter.isalnum() else "-" for letter in network.lower())
        return self.out / "-".join(part for part in kept.split("-") if part)


def run_explanations(
    table: Table, network: str, loaded: LoadedModel, methods: Sequence[str], conditions: Conditions
) -> tuple[list[Line], list[str]]:
    """Evaluate the methods on one network.

    Args:
        table: the table.
        network: the paper's name.
        loaded: what runs in its place.
        methods: the paper's names of those to be run.
        conditions: data, folders and so on.

    Returns:
        The lines of the network, and what went wrong.
    """
    results = evaluate(
        _preprocessed(loaded, table),
        conditions.data if table.target == "given" else _without_unknown_names(conditions.data, loaded),
        _explainers(table, network, loaded, methods, conditions.seed),
        {
            label: (measure.name, dict(measure.options))
            for label, measure in table.measures.items()
            if measure.name and not measure.of
        },
        conditions.results_of(network),
        target=table.target,
        baselines=(),
        limit=conditions.limit,
        seed=conditions.seed,
        retry=conditions.retry,
        progress=conditions.progress,
        engine=conditions.engine,
        workers=conditions.workers,
    )
    if results.frame().empty:
        raise ValueError(f"data: no sample could be evaluated; {first_error(results)}")
    subsets = {measure.subset for measure in table.measures.values()}
    summaries = {name: _summarised(results, name, conditions) for name in sorted(subsets)}
    results.report(summary=summaries.get("") or results.summary())
    found = {
        (subset, row["explainer"], row["measure"]): row
        for subset, summary in summaries.items()
        for row in summary.table.to_dict("records")
    }
    return lines_of_network(table, network, found, methods), errors_of(results, network)


def _summarised(results: Results, subset: str, conditions: Conditions) -> Summary:
    """The summary of the samples of a subset; of all of them where it is ""."""
    if not subset:
        return results.summary()
    frame = results.frame()
    kept: Collection[str] = conditions.layout.subsets[subset](conditions.folder, set(frame["id"]))
    return summarise(frame[frame["id"].isin(kept)], results.explainers, results.measures)


def _without_unknown_names(data: Dataset, loaded: LoadedModel) -> Dataset:
    """Where the predicted class is explained, a class that the network has no name for is no reason to stop."""
    names = ClassNames(loaded.labels)
    return replace(data, entries=[Entry(each.id, partial(_sample, each, names)) for each in data.entries])


def _sample(entry: Entry, names: ClassNames) -> Sample:
    sample = entry.read()
    known = not isinstance(sample.target, str) or sample.target in names
    return sample if known else replace(sample, target=None)


def _preprocessed(loaded: LoadedModel, table: Table) -> LoadedModel:
    own = loaded.preprocess
    if not table.whole_pictures or not isinstance(own, Preprocess):
        return loaded
    return replace(loaded, preprocess=WholePictures(own.crop, own.crop, own.mean, own.std, own.interpolation))


def _explainers(
    table: Table, network: str, loaded: LoadedModel, methods: Sequence[str], seed: int
) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    normalisation = {name: getattr(loaded.preprocess, name, None) for name in ("mean", "std")}
    for name in methods:
        method = table.methods[name]
        options, _ = method.on(network)
        if isinstance(method.explainer, str):
            found[name] = (method.explainer, options)
        else:
            found[name] = method.explainer(loaded.model, seed=seed, **normalisation, **options)
    return found


def errors_of(results: Results, network: str) -> list[str]:
    """What went wrong, a sentence for each kind of error."""
    table = results.errors()
    found = []
    for stage, rows in table.groupby("stage", sort=False):
        first = rows.iloc[0]
        count = f"{len(rows)} sample{'s' if len(rows) > 1 else ''}"
        found.append(f"{network}: {stage} failed on {count}, first on {first['id']}: {first['error']}")
    return found


def first_error(results: Results) -> str:
    """The first thing that went wrong, in words."""
    errors = results.errors()
    return "" if errors.empty else f"the first, {errors.iloc[0]['id']}: {errors.iloc[0]['error']}"
