"""`midgrain reproduce`: a paper's figures beside the measured ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from midgrain.cli import shared
from midgrain.cli.options import (
    find_device,
    load_network,
)
from midgrain.cli.output import complain, console, print_json, say

if TYPE_CHECKING:
    from midgrain.evaluate.papers import Line, Reproduction
    from midgrain.evaluate.papers import Table as PaperTable

__all__ = ["reproduce"]

# Columns that a method's name takes, a measure with three columns, and one with the paper's alone.
_NAME_WIDTH, _WIDTH, _PAPER_WIDTH = 22, 39, 13


def reproduce(
    table: Annotated[str | None, typer.Option("--table", "-t", help="Which table; see --list.")] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="Folder of the data set; see --list.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="At most so many samples; for timing, runs of each method.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--out", "--output", "-o", help="Folder of the results; an unfinished one goes on.")
    ] = Path("reproduced"),
    network: Annotated[
        list[str] | None, typer.Option("--network", "--networks", help="The paper's name; with commas, or repeated.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option("--methods", "--method", help="The paper's names; likewise.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Runs instead of the paper's network; see 'midgrain explain --help'."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="File of a state dict for the paper's network.")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained networks, to see that all runs; timing has them anyway.")
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="Show the tables, their data and their cost.")] = False,
    retry: shared.Retry = False,
    seed: shared.Seed = 0,
    engine: shared.Engine = "local",
    workers: shared.Workers = None,
    size: shared.Size = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    device: shared.Device = "auto",
    allow_pickle: shared.AllowPickle = False,
    as_json: shared.Json = False,
) -> None:
    """Run a table of a paper on data of yours and print the paper's figures beside the measured ones."""
    from midgrain.evaluate.papers import TABLES
    from midgrain.evaluate.papers import reproduce as run
    from midgrain.evaluate.papers.reproducing import check_choices

    if listed:
        if as_json:
            print_json([_entry(each) for each in TABLES.values()])
        else:
            _show_list(list(TABLES.values()))
        return
    if table is None:
        raise ValueError(f"table: expected one of {', '.join(TABLES)}, got none; see midgrain reproduce --list")
    if model is None and any(given is not None for given in (size, mean, std)):
        raise ValueError("size, mean, std: expected with --model alone, the paper's networks have their own")
    networks, methods = _names(network), _names(method)
    check_choices(table, data, networks=networks, methods=methods, limit=limit)
    loaded = None if model is None else load_network(model, device, size, mean, std, allow_pickle=allow_pickle)
    found = run(
        table,
        data,
        out=output,
        networks=networks,
        methods=methods,
        model=loaded,
        weights=weights,
        random_weights=random_weights,
        limit=limit,
        device=find_device(device),
        seed=seed,
        retry=retry,
        progress=not as_json,
        engine=engine,
        workers=workers,
    )
    if as_json:
        print_json(found.to_dict())
        return
    _show(found)


def _names(given: Sequence[str] | None) -> list[str] | None:
    if given is None:
        return None
    # A name may hold a comma and a blank itself: "SISE, mu 0.3".
    return [name.strip() for text in given for name in re.split(r",(?! )", text) if name.strip()]


def _entry(table: PaperTable) -> dict[str, object]:
    from midgrain.evaluate.layouts import LAYOUTS

    layout = LAYOUTS.get(table.layout)
    return {
        "table": table.name,
        "title": table.title,
        "source": table.source,
        "data": None if layout is None else layout.title,
        "layout": None if layout is None else layout.places,
        "samples of the paper": table.samples,
        "passes for each sample": {network.name: table.passes(network.name) for network in table.networks},
    }


def _show_list(tables: Sequence[PaperTable]) -> None:
    from midgrain.evaluate.layouts import LAYOUTS

    for table in tables:
        layout = LAYOUTS.get(table.layout)
        console.print(f"[bold]{table.name}[/bold]: {table.title}", highlight=False, soft_wrap=True)
        say(f"  source: {table.source}")
        if layout is None:
            say("  data: none")
        else:
            say(f"  data: {layout.title}: {layout.places}")
        for network in table.networks:
            cost = (
                f"about {table.passes(network.name):,} passes for each sample" if layout else "each method some times"
            )
            say(f"  {network.name}: {network.model or 'your --model'}, {cost}")


def _show(found: Reproduction) -> None:
    say(f"{found.table.title}; {found.table.source}")
    for network in found.table.networks:
        lines = [line for line in found.lines if line.network == network.name]
        if lines:
            say(f"{network.name}: {found.networks.get(network.name, 'not run, the figures of the paper')}")
        for part in _side_by_side(lines, run=network.name in found.networks):
            console.print(_table(part, found, run=network.name in found.networks))
    for difference in found.differences:
        say(f"- {difference}")
    for folder in found.folders.values():
        say(f"-> {folder / 'report.html' if (folder / 'report.html').is_file() else folder}")
    for error in found.errors:
        complain(f"{error}")


def _side_by_side(lines: Sequence[Line], *, run: bool) -> list[list[Line]]:
    """The lines in parts of so many measures as fit beside each other."""
    measures = list(dict.fromkeys(line.measure for line in lines))
    width = _WIDTH if run else _PAPER_WIDTH
    fitting = max(1, (console.width - _NAME_WIDTH) // width)
    parts = [measures[first : first + fitting] for first in range(0, len(measures), fitting)]
    return [[line for line in lines if line.measure in part] for part in parts]


def _table(lines: Sequence[Line], found: Reproduction, *, run: bool) -> Table:
    digits = found.table.decimals
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    measures = {line.measure: line.better for line in lines}
    interval = "10 to 90 %" if found.table.kind == "timing" else "95 %"
    for measure, better in measures.items():
        table.add_column(f"{measure}\npaper", justify="right")
        if run:
            table.add_column(f"({better})\nhere \\[{interval}]", justify="right", no_wrap=True)
            table.add_column("\ndifference", justify="right")
    by_place = {(line.method, line.measure): line for line in lines}
    for method in dict.fromkeys(line.method for line in lines):
        cells = [_cells(by_place.get((method, measure)), digits) for measure in measures]
        table.add_row(method, *(cell for each in cells for cell in (each if run else each[:1])))
    return table


def _cells(line: Line | None, digits: int) -> tuple[str, str, str]:
    if line is None:
        return "", "", ""
    paper = "" if line.paper is None else line.paper.text
    if line.measured is None:
        return paper, f"[dim]{line.note}[/dim]", ""
    here = f"{line.measured:.{digits}f}"
    if line.low is not None and line.high is not None:
        here += f" \\[{line.low:.{digits}f}, {line.high:.{digits}f}]"
    return paper, here, "" if line.difference is None else f"{line.difference:+.{digits}f}"
