"""From a table's name and a folder of data to the paper's figures beside the measured ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from midgrain.evaluate.layouts import LAYOUTS
from midgrain.evaluate.layouts.places import root_of
from midgrain.evaluate.papers.comparison import Line, Reproduction, lines_of_network
from midgrain.evaluate.papers.declaration import Table
from midgrain.evaluate.papers.filter_run import run_filters
from midgrain.evaluate.papers.networks import Chosen, Weights, choose_networks, methods_on
from midgrain.evaluate.papers.running import Conditions, run_explanations
from midgrain.evaluate.papers.tables import TABLES
from midgrain.evaluate.papers.timing_run import run_timing
from midgrain.files import check_writable_folder
from midgrain.models import LoadedModel
from midgrain.ops.checks import check_bool, check_int

__all__ = ["check_choices", "find_table", "reproduce"]

_RUNS = {"explanations": run_explanations, "filters": run_filters}


def find_table(name: str) -> Table:
    """A table by its name.

    Raises:
        ValueError: an unknown one.
    """
    if name not in TABLES:
        raise ValueError(f"table: expected one of {', '.join(TABLES)}, got {name!r}")
    return TABLES[name]


def check_choices(
    table: str,
    data: str | os.PathLike[str] | None,
    *,
    networks: str | Sequence[str] | None,
    methods: str | Sequence[str] | None,
    limit: int | None,
) -> tuple[Table, list[str] | None, list[str] | None]:
    """See that there are such a table, networks, methods and a folder of data, before a network is loaded.

    Returns:
        The table, and the names of networks and methods.

    Raises:
        TypeError, ValueError, FileNotFoundError: see `reproduce`.
    """
    found = find_table(table)
    if limit is not None:
        check_int(limit, "limit", 1)
    wanted_networks, wanted = _names(networks, "networks"), _names(methods, "methods")
    for name in wanted_networks or []:
        found.network(name)
    unknown = [name for name in wanted or [] if name not in found.methods]
    if unknown:
        raise ValueError(f"methods: expected some of {', '.join(found.methods)}, got {unknown[0]!r}")
    if found.layout:
        layout = LAYOUTS[found.layout]
        if data is None:
            raise ValueError(f"data: expected a folder with {layout.title} ({layout.places}), got none")
        root_of(Path(data))
    elif data is not None:
        raise ValueError(f"data: {found.name} needs none, got {os.fspath(data)!r}")
    return found, wanted_networks, wanted


def reproduce(
    table: str,
    data: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] = "reproduced",
    networks: str | Sequence[str] | None = None,
    methods: str | Sequence[str] | None = None,
    model: str | LoadedModel | None = None,
    weights: str | os.PathLike[str] | None = None,
    random_weights: bool = False,
    limit: int | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    retry: bool = False,
    progress: bool = False,
    engine: str = "local",
    workers: int | None = None,
) -> Reproduction:
    """Measure what a table of a paper shows, and set it beside the paper's figures.

    What is done stays: the same call, or one with a higher limit, goes on where the last one ended.

    Args:
        table: one of `midgrain.evaluate.TABLES`.
        data: the folder of the data set, see `midgrain.evaluate.LAYOUTS`; not for "timing".
        out: the folder of the results; each table and network has one of its own in it.
        networks: the paper's names of those to be run; by default all that can be had.
        methods: likewise of methods; by default all that midgrain has.
        model: runs instead of the paper's network: a text for `midgrain.models.load_model`, or a loaded model. The
            figures beside it are those of `networks`, one name, by default the table's first.
        weights: a file of a state dict for the paper's network.
        random_weights: networks with random weights: to see that all runs.
        limit: no more than the first so many samples; for "timing" the runs of each method.
        device: of the networks.
        seed: of everything random.
        retry: try the samples of an earlier call again that something went wrong with.
        progress: show bars with the time left.
        engine: "ray" shares the samples between processes, see `midgrain.evaluate.evaluate`; not for "filters" and
            "timing".
        workers: of "ray", how many.

    Raises:
        TypeError, ValueError: an argument that is wrong, before anything runs; results of another configuration.
        FileNotFoundError: a part of the data set is missing, or the weights of a network.
        ModuleNotFoundError: a package that is needed is not installed.

    Example:
        >>> import midgrain as mg
        >>> figures = mg.evaluate.TABLES["swag-deletion"].figures["ResNet50"]
        >>> figures["SWAG G"]["deletion"].value
        0.095
    """
    chosen_table, wanted_networks, wanted = check_choices(table, data, networks=networks, methods=methods, limit=limit)
    seed, random_weights = check_int(seed, "seed", 0, 2**63 - 1), check_bool(random_weights, "random_weights")
    retry, progress = check_bool(retry, "retry"), check_bool(progress, "progress")
    check_writable_folder(Path(out), "out")
    if chosen_table.kind != "explanations" and (engine != "local" or workers is not None):
        raise ValueError(f"engine: expected 'local' without workers for {chosen_table.name}, got {engine!r}, {workers}")
    which = Weights(model, weights, random_weights, device, seed)
    if chosen_table.kind == "timing":
        return run_timing(chosen_table, wanted_networks, wanted, which, Path(out), limit, progress)
    assert data is not None, "checked above"
    layout = LAYOUTS[chosen_table.layout]
    samples = layout.read(Path(data))
    conditions = Conditions(
        samples,
        layout,
        Path(data),
        Path(out) / chosen_table.name,
        limit=limit,
        seed=seed,
        retry=retry,
        progress=progress,
        engine=engine,
        workers=workers,
    )
    chosen = choose_networks(chosen_table, wanted_networks, which, wanted)
    return _run(chosen_table, chosen, wanted, conditions)


def _run(table: Table, chosen: Sequence[Chosen], wanted: Sequence[str] | None, conditions: Conditions) -> Reproduction:
    by_name = {one.network.name: one for one in chosen}
    lines: list[Line] = []
    errors: list[str] = []
    for network in table.networks:
        if network.name not in by_name:
            lines += lines_of_network(table, network.name, {})
            continue
        methods = methods_on(table, network.name, wanted)
        own_lines, own_errors = _RUNS[table.kind](
            table, network.name, by_name[network.name].loaded, methods, conditions
        )
        lines += own_lines
        errors += own_errors
    seen = max((line.n for line in lines), default=0)
    differences = [f"samples: {seen:,} here; in the paper {table.samples}"]
    differences += [f"{name}: {one.what}" for name, one in by_name.items()]
    if any(one.untrained for one in chosen):
        differences.append("figures of networks with random weights mean nothing")
    return Reproduction(
        table,
        lines,
        {name: one.what for name, one in by_name.items()},
        [*differences, *table.differences],
        {name: conditions.results_of(name) for name in by_name},
        errors,
    )


def _names(given: str | Sequence[str] | None, name: str) -> list[str] | None:
    if given is None:
        return None
    names = [given] if isinstance(given, str) else list(given)
    if not names or not all(isinstance(each, str) for each in names):
        raise TypeError(f"{name}: expected texts, got {given!r}")
    return names
