"""One HTML page of an evaluation that needs nothing else: no scripts, no fonts, no pictures from elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from midgrain.evaluate.figures import cost_figure, curve_figure
from midgrain.evaluate.summary import Summary
from midgrain.html_page import JPEG, NONE, SHADES, make_table, number, page, text

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

    from midgrain.evaluate.results import Results

__all__ = ["make_page"]

_MAX_ERRORS = 100
# Beyond so many explainers, matrices are written small and curves drawn of the best only.
_MANY, _DRAWN = 12, 8
_BASELINES = frozenset({"noise", "centre", "random-point", "constant", "sobel"})


def make_page(results: Results, summary: Summary, measures: Sequence[str] | None = None) -> str:
    """The page.

    Args:
        results: rows, errors and examples.
        summary: their tables.
        measures: of which figures and matrices are shown, see `Results.report`.

    Raises:
        TypeError, ValueError: measures that were not measured.
    """
    shown = _shown(summary, measures)
    frame = results.frame()
    configuration = results.configuration["configuration"]
    data = configuration["dataset"]
    parts = [
        f'<p class="quiet">{text(data.get("path", data.get("kind", "")))}: {summary.samples} samples, '
        f"{len(results.explainers)} explainers, {summary.skipped} samples left out</p>",
        _means(summary),
        _constant_note(frame),
        _plots(frame, results, summary, shown),
        _matrices(summary, shown),
        _agreement(summary),
        _examples(results.examples()),
        _errors(results.errors()),
        _origin(results.configuration),
    ]
    return page("Evaluation of explanations", parts)


def _means(summary: Summary) -> str:
    """Explainers by measures, the best of each in bold."""
    table = summary.table
    explainers = list(summary.costs["explainer"])
    costs = summary.costs.set_index("explainer")
    best = {name: rows.iloc[0]["explainer"] for name, rows in table.groupby("measure", sort=False)}
    cells = {(row["explainer"], row["measure"]): row for row in table.to_dict("records")}
    rows = []
    for explainer in explainers:
        line = [text(explainer)]
        for name in summary.measures:
            cell = cells[explainer, name]
            mean = number(cell["mean"])
            between = "" if math.isnan(cell["low"]) else f"{cell['low']:.3f} to {cell['high']:.3f}"
            kind = ' class="best"' if best[name] == explainer and mean != NONE else ""
            line.append(f'<td{kind}>{mean}<br><small class="quiet">{between}</small></td>')
        seconds, passes = costs.loc[explainer, "seconds"], costs.loc[explainer, "passes"]
        rows.append([*line, number(seconds, 3), number(passes, 0), str(costs.loc[explainer, "n"])])
    head = ["", *(f"{name} ({better})" for name, better in summary.measures.items()), "seconds", "passes", "n"]
    caption = (
        "Mean over the samples and its 95 % interval; in brackets which direction is better. Seconds: median of an "
        "explanation. Passes: forward passes of one sample, where the method says."
    )
    return "<h2>Means</h2>" + make_table(head, rows, caption)


def _constant_note(frame: pandas.DataFrame) -> str:
    """Average drop is never shown without the map that hides nothing."""
    notes = []
    for column in frame.columns:
        if not column.endswith(".constant"):
            continue
        name = column.removesuffix(".constant")
        constant = float(frame.drop_duplicates("id")[column].mean())
        means = frame.groupby("explainer", sort=False)[name].mean()
        worse = [str(explainer) for explainer, mean in means.items() if mean > constant and explainer != "constant"]
        notes.append(
            f"<p><strong>{text(name)}</strong>: a constant map, which says nothing, loses {constant:.3f}. It does "
            f"better than {text(', '.join(worse)) or 'no explainer'}: the measure favours maps that hide nothing.</p>"
        )
    return "".join(notes)


def _shown(summary: Summary, measures: Sequence[str] | None) -> frozenset[str]:
    if measures is None:
        return frozenset(summary.measures)
    if isinstance(measures, str) or not all(isinstance(name, str) for name in measures):
        raise TypeError(f"measures: expected names of measures, got {measures!r}")
    unknown = [name for name in measures if name not in summary.measures]
    if unknown:
        raise ValueError(f"measures: expected some of {', '.join(summary.measures)}, got {unknown[0]!r}")
    return frozenset(measures)


def _plots(frame: pandas.DataFrame, results: Results, summary: Summary, shown: frozenset[str]) -> str:
    found = []
    for column in results.configuration["columns"]["curves"]:
        if column.endswith(".iou"):
            continue
        title = column.removesuffix(".curve")
        if not {title, title.partition(".")[0]} & shown:
            continue
        names, chosen = _drawn(results.explainers, summary, title)
        every = {name: _mean_curve(frame.loc[frame["explainer"] == name, column]) for name in names}
        curves = {name: values for name, values in every.items() if values is not None}
        if curves:
            drawing = curve_figure(curves, _BASELINES, title, "mean score of the class")
            found.append((drawing, f"Mean curves: {title}{chosen}"))
    for name, better in list(summary.measures.items()):
        if name.partition(".")[0] != name or name not in shown:
            continue
        means = summary.table[summary.table["measure"] == name].set_index("explainer")["mean"]
        seconds = summary.costs.set_index("explainer")["seconds"]
        points = {
            explainer: (float(seconds[explainer]), float(means[explainer]))
            for explainer in results.explainers
            if math.isfinite(means[explainer]) and math.isfinite(seconds[explainer])
        }
        if points:
            label = f"{name} ({better} is better)"
            found.append((cost_figure(points, _BASELINES, label), f"Cost and quality: {label}; baselines hollow"))
    if not found:
        return ""
    figures = "\n".join(
        f'<figure><img src="{uri}" alt="{text(caption)}"><figcaption>{text(caption)}</figcaption></figure>'
        for uri, caption in found
    )
    return f'<h2>Curves and costs</h2><div class="plots">{figures}</div>'


def _drawn(explainers: Sequence[str], summary: Summary, measure: str) -> tuple[list[str], str]:
    """Whose curves are drawn, and a word about it: of many the best and the baselines."""
    table = summary.table[summary.table["measure"] == measure]
    if len(explainers) <= _MANY or not len(table):
        return list(explainers), ""
    best = [name for name in table["explainer"] if name not in _BASELINES][:_DRAWN]
    return [*best, *(name for name in explainers if name in _BASELINES)], f", the best {_DRAWN} and the baselines"


def _mean_curve(column: pandas.Series) -> npt.NDArray[np.float64] | None:
    rows = [np.asarray(row, np.float64) for row in column if row is not None and np.ndim(row) == 1]
    rows = [row for row in rows if np.isfinite(row).all()]
    return np.mean(rows, axis=0) if rows else None


def _matrices(summary: Summary, shown: frozenset[str]) -> str:
    found = []
    for name, wins in summary.wins.items():
        if name not in shown:
            continue
        if len(wins) > _MANY:
            found.append(_small_square(name, wins, summary.p_values[name]))
            continue
        shares = _square(wins, lambda value: _shaded(value, 0.5), "Share of samples on which the row is better")
        chance = _square(summary.p_values[name], _p_value, "p-values (Wilcoxon, Holm); bold: below 0.05")
        found.append(f"<h3>{text(name)}</h3>{shares}{chance}")
    return "<h2>Who wins?</h2>" + "".join(found) if found else ""


def _small_square(name: str, wins: pandas.DataFrame, p_values: pandas.DataFrame) -> str:
    """Wins and whether they are chance in one table, which is opened when it is looked at."""
    rows = []
    for row in wins.index:
        cells = [text(row)]
        for column in wins.columns:
            share, p = float(wins.loc[row, column]), float(p_values.loc[row, column])
            if not math.isfinite(share):
                cells.append("<td></td>")
                continue
            step = round(abs(share - 0.5) * 2 * SHADES)
            kinds = [*([f"{'g' if share > 0.5 else 'r'}{step}"] if step else []), *(["best"] if p < 0.05 else [])]
            cells.append(
                f'<td class="{" ".join(kinds)}">{100 * share:.0f}</td>' if kinds else f"<td>{100 * share:.0f}</td>"
            )
        rows.append(cells)
    caption = "Percent of samples on which the row is better; bold: p below 0.05 (Wilcoxon, Holm)"
    table = make_table(["", *map(str, wins.columns)], rows, caption)
    return f'<details class="small"><summary>{text(name)}</summary>{table}</details>'


def _square(frame: pandas.DataFrame, cell: Callable[[float], str], caption: str) -> str:
    rows = [[text(row), *(cell(float(value)) for value in frame.loc[row])] for row in frame.index]
    return make_table(["", *map(str, frame.columns)], rows, caption)


def _shaded(value: float, neutral: float = 0.0) -> str:
    if not math.isfinite(value):
        return f"<td>{NONE}</td>"
    strength = min(1.0, abs(value - neutral) / (1.0 - neutral))
    colour = "46, 160, 67" if value >= neutral else "207, 34, 46"
    return f'<td style="background: rgba({colour}, {0.45 * strength:.2f})">{value:.2f}</td>'


def _p_value(value: float) -> str:
    if not math.isfinite(value):
        return f"<td>{NONE}</td>"
    shown = "&lt;0.001" if value < 0.001 else f"{value:.3f}"
    return f'<td class="best">{shown}</td>' if value < 0.05 else f"<td>{shown}</td>"


def _agreement(summary: Summary) -> str:
    alphas = make_table(
        ["measure", "alpha"],
        [[text(name), number(value)] for name, value in summary.alpha.items()],
        "Krippendorff's alpha (ordinal): 1 where all samples rank the explainers alike, 0 where by chance",
    )
    found = "<h2>Does it all agree?</h2>" + alphas
    if len(summary.measures) > 1:
        found += _square(
            summary.correlations,
            _shaded,
            "Spearman's correlation of measures over samples, higher better for all; mean over explainers",
        )
    return found


def _examples(examples: Sequence[Mapping[str, Any]]) -> str:
    blocks = []
    for example in examples:
        pictures = "".join(
            f'<figure class="example"><img src="{text(uri)}" alt="{text(name)}">'
            f"<figcaption>{text(name)}</figcaption></figure>"
            for name, uri in example.get("pictures", {}).items()
            if JPEG.fullmatch(str(uri))
        )
        if pictures:
            blocks.append(f"<h3>{text(example.get('title', ''))}</h3>{pictures}")
    return "<h2>Examples</h2>" + "".join(blocks) if blocks else ""


def _errors(errors: pandas.DataFrame) -> str:
    if not len(errors):
        return ""
    rows = [
        [f'<td class="text">{text(row[name])}</td>' for name in ("id", "stage", "error")]
        for row in errors.head(_MAX_ERRORS).to_dict("records")
    ]
    more = f", the first {_MAX_ERRORS}" if len(errors) > _MAX_ERRORS else ""
    return "<h2>Errors</h2>" + make_table(["sample", "stage", "error"], rows, f"{len(errors)} in all{more}")


def _origin(configuration: Mapping[str, Any]) -> str:
    shown = {key: configuration[key] for key in ("configuration", "environment") if key in configuration}
    return f"<h2>Configuration</h2><pre>{text(json.dumps(shown, indent=2, ensure_ascii=False))}</pre>"
