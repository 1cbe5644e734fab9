"""The table of seconds: every method on one input, on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midgrain.evaluate.papers.comparison import NOT_MEASURED, Line, Reproduction
from midgrain.evaluate.papers.declaration import Method, Table
from midgrain.evaluate.papers.networks import Chosen, Weights, choose_networks, methods_on
from midgrain.files import write_whole
from midgrain.network.modules import model_device
from midgrain.progress import progress_bar
from midgrain.registry import explainer as make_explainer
from midgrain.registry import method_options
from midgrain.timing import Times, machine, race

__all__ = ["run_timing"]

# Methods of more passes than these run once, after a shortened run instead of a whole one.
_LONG = 300
_RUNS, _RUNS_OF_LONG = 5, 1
# Options that shorten a warm-up.
_SHORT = {"n_samples": 8, "n_iterations": 2}
_LABEL = "seconds"


def run_timing(
    table: Table,
    names: Sequence[str] | None,
    wanted: Sequence[str] | None,
    weights: Weights,
    out: Path,
    runs: int | None = None,
    progress: bool = False,
) -> Reproduction:
    """Time the methods of a table, one input of noise at a time, after a warm-up.

    The interval of a line is from the 10th to the 90th percentile of its runs, and `measured` their median.

    Args:
        table: the table.
        names: networks, by the paper's names.
        wanted: methods, likewise.
        weights: random ones unless a model or a file is given.
        out: timing.json is written there.
        runs: of each method; by default 5, and 1 of those with more than 300 passes.
        progress: show a bar.

    Raises:
        TypeError, ValueError, OSError: see `midgrain.evaluate.papers.networks.choose_networks`.
    """
    if weights.model is None and weights.file is None:
        weights = Weights(random=True, device=weights.device, seed=weights.seed)
    chosen = {one.network.name: one for one in choose_networks(table, names, weights, wanted)}
    rows = {network.name: table.rows(network.name) for network in table.networks}
    run = {name: methods_on(table, name, wanted) for name in chosen}
    lines = []
    with progress_bar("timing", sum(len(methods) for methods in run.values()), shown=progress) as advance:
        for network in table.networks:
            name = network.name
            times = _times(table, chosen[name], run[name], weights.seed, runs, advance) if name in chosen else {}
            lines += [_line(table, name, method, times.get(method)) for method in rows[name]]
    here = machine()
    where = torch.cuda.get_device_name(weights.device) if torch.device(weights.device).type == "cuda" else ""
    differences = (
        f"here: {where or here['processor']}, {here['cores']} cores, {torch.get_num_threads()} threads",
        *(f"{name}: {one.what}" for name, one in chosen.items()),
        *table.differences,
    )
    folder = out / table.name
    found = Reproduction(table, lines, {name: one.what for name, one in chosen.items()}, differences)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**found.to_dict(), "machine": here}, indent=2)
    write_whole(folder / "timing.json", lambda file: file.write(text.encode()))
    return found


def _times(
    table: Table, chosen: Chosen, methods: Sequence[str], seed: int, runs: int | None, advance: Callable[[int], Any]
) -> dict[str, Times]:
    name = chosen.network.name
    x = _noise(chosen, seed)
    quick = [method for method in methods if table.methods[method].on(name)[1] <= _LONG]
    found = {}
    groups = [(quick, runs or _RUNS), *(([method], runs or _RUNS_OF_LONG) for method in methods if method not in quick)]
    for group, least in groups:
        if not group:
            continue
        contestants = {method: _contestant(table.methods[method], name, chosen.loaded.model) for method in group}
        # The last input is taken first, for the turn that is not counted.
        found.update(race(contestants, [*[(x, True)] * least, (x, False)], 0.0, least=least))
        advance(len(group))
    return found


def _contestant(method: Method, network: str, model: Any) -> Callable[[tuple[Tensor, bool]], None]:
    assert isinstance(method.explainer, str)
    options, passes = method.on(network)
    whole = make_explainer(method.explainer, model, **options)
    short = whole
    if passes > _LONG:
        taken = method_options(method.explainer)
        shorter: Mapping[str, Any] = {key: value for key, value in _SHORT.items() if key in taken}
        short = (
            make_explainer(method.explainer, model, **{**options, **shorter})
            if shorter
            else make_explainer("vanilla", model)
        )

    def explain(item: tuple[Tensor, bool]) -> None:
        x, counts = item
        (whole if counts else short)(x)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)

    return explain


def _noise(chosen: Chosen, seed: int) -> Tensor:
    """An input of the size that the network was trained with."""
    preprocess: Any = chosen.loaded.preprocess
    crop = preprocess.crop if isinstance(preprocess.crop, tuple) else (preprocess.crop,) * 2
    frames = getattr(preprocess, "frames", None)
    size = (1, 3, *crop) if frames is None else (1, 3, frames, *crop)
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return x.to(model_device(chosen.loaded.model))


def _line(table: Table, network: str, method: str, times: Times | None) -> Line:
    paper = table.figures[network][method][_LABEL]
    if times is None:
        return Line(network, method, _LABEL, "lower", paper, note=NOT_MEASURED)
    seconds = torch.tensor(times.wall, dtype=torch.float64) / 1e3
    low, middle, high = torch.quantile(seconds, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)).tolist()
    return Line(network, method, _LABEL, "lower", paper, middle, low, high, len(seconds))
