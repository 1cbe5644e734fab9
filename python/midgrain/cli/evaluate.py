"""`midgrain evaluate`: a data set, several methods, several measures; tables and a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from midgrain.cli import shared
from midgrain.cli.options import (
    Wishes,
    check_methods,
    load_network,
    options_of_measures,
)
from midgrain.cli.output import complain, console, print_json, say

if TYPE_CHECKING:
    from midgrain.evaluate import Results, Summary

__all__ = ["evaluate"]

_METHODS = ("gradcam", "jittercam", "swag-ig", "guided")
_MEASURES = ("deletion", "insertion", "combined")


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder of pictures or videos, a folder of class folders, or a CSV file (path, label, boxes, mask).",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the results; an unfinished one goes on.")
    ] = (Path("run")),
    model: shared.Model = "demo",
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            "--method",
            help="See 'midgrain methods'; with commas, or given several times. By default four usual ones.",
        ),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measures",
            "--measure",
            help="deletion, insertion, combined, pointing_game, ...; with commas, or given several times.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="At most so many samples.")] = None,
    target: Annotated[
        str,
        typer.Option(
            "--target", help="Which class is explained: given (the label's, where there is one) or predicted."
        ),
    ] = "given",
    baselines: Annotated[bool, typer.Option(help="Add noise, centre and random-point.")] = True,
    layer: shared.Layer = None,
    n_segments: shared.Segments = None,
    option: shared.MethodOptions = None,
    measure_option: Annotated[
        list[str] | None,
        typer.Option(
            "--measure-option", metavar="NAME=VALUE", help="An option of the measures, like steps=14; likewise."
        ),
    ] = None,
    examples: Annotated[int, typer.Option(help="Samples that are drawn in the report.")] = 4,
    retry: shared.Retry = False,
    seed: shared.Seed = 0,
    engine: shared.Engine = "local",
    workers: shared.Workers = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option("--gpus-per-worker", help="Of ray; by default 1 where there are any.")
    ] = None,
    size: shared.Size = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    frames: shared.Frames = None,
    rate: shared.Rate = None,
    device: shared.Device = "auto",
    allow_pickle: shared.AllowPickle = False,
    as_json: shared.Json = False,
) -> None:
    """Measure methods on a data set; run it again to go on, or to see the summary again."""
    from midgrain.evaluate import MEASURES, options_of
    from midgrain.evaluate import evaluate as run

    names, measures = _names(method, _METHODS), _names(measure, _MEASURES)
    check_methods(names)
    for name in measures:
        if name not in MEASURES:
            raise ValueError(f"measures: expected one of {', '.join(MEASURES)}, got {name!r}")
    wishes = Wishes.of(option, names, n_segments=n_segments, layer=layer)
    wanted = options_of_measures(measure_option, {name: options_of(name) - {"mean", "std"} for name in measures})
    if not data.exists():
        raise FileNotFoundError(f"data: there is no file or folder {str(data)!r}")
    loaded = load_network(model, device, size, mean, std, layer, frames, rate, allow_pickle=allow_pickle)
    for options in wanted.values():
        if "scene_model" in options:
            options["scene_model"] = load_network(
                str(options["scene_model"]), device, size, mean, std, allow_pickle=allow_pickle
            ).model
    if engine == "ray" and gpus_per_worker is None and device == "cpu":
        gpus_per_worker = 0.0
    results: Results = run(
        loaded,
        data,
        {name: (name, wishes.options(name)) for name in names},
        {name: (name, wanted[name]) for name in measures},
        output,
        target=target,
        baselines=None if baselines else (),
        limit=limit,
        seed=seed,
        examples=examples,
        retry=retry,
        progress=not as_json,
        engine=engine,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
    )
    summary = results.summary()
    if not summary.samples:
        first = results.errors().iloc[0]
        raise ValueError(f"data: no sample could be evaluated; the first, {first['id']}: {first['error']}")
    report = results.report(summary=summary)
    noted = results.errors()
    if as_json:
        print_json(
            {**summary.to_dict(), "errors": noted.to_dict("records"), "output": str(output), "report": str(report)}
        )
        return
    console.print(_table(summary))
    say(f"{summary.samples} samples, {summary.skipped} left out -> {report}")
    if len(noted):
        line = noted.iloc[0]
        complain(f"{len(noted)} error(s), the first at {line['id']}, {line['stage']}: {line['error']}")


def _names(given: Sequence[str] | None, usual: Sequence[str]) -> list[str]:
    names = [name.strip() for text in given or usual for name in text.split(",")]
    return list(dict.fromkeys(name for name in names if name))


def _table(summary: Summary) -> Table:
    """Means by explainer and measure, the best of each in bold."""
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for name, better in summary.measures.items():
        table.add_column(f"{name}\n({better})", justify="right", overflow="fold")
    table.add_column("seconds", justify="right")
    cells: dict[tuple[str, str], Any] = {}
    best: dict[str, str] = {}
    for row in summary.table.to_dict("records"):
        cells[row["explainer"], row["measure"]] = row["mean"]
        best.setdefault(row["measure"], row["explainer"])
    for cost in summary.costs.to_dict("records"):
        name = cost["explainer"]
        line = []
        for column in summary.measures:
            text = f"{cells[name, column]:.3f}"
            line.append(f"[bold]{text}[/bold]" if best[column] == name else text)
        table.add_row(name, *line, f"{cost['seconds']:.3f}")
    return table
