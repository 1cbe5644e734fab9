"""The page of a failure report, in the order of the thesis's figures; it needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from midgrain.html_page import JPEG, SHADES, make_table, number, page, svg_axes, svg_uri, text

if TYPE_CHECKING:
    from midgrain.failures.report_results import FailureReport

__all__ = ["make_page"]

_TITLE = "Explaining failure"
# Errors listed in tables; beyond so many points a figure is drawn as pixels.
_LISTED, _POINTS = 200, 2000
# Of fewer the points are larger.
_FEW = 500
_THROUGH = {
    "surprising": "through the most surprising filter",
    "against": "through the filter most against the class",
}
# What the thesis has for VGG16 and ResNet-50 on ImageNet's validation set (6.3.1 and 6.4.1).
_THESIS = {
    "errors with negative beta": ("86.6 %", "90.2 %"),
    "correct with negative beta": ("45.9 %", "47.7 %"),
    "Spearman of beta and logit": ("0.998", "0.999"),
    "Spearman of beta and probability": ("0.782", "0.801"),
    "repaired through the most surprising filter": ("about 36 %", ""),
    "repaired without filtering": ("about 32 %", ""),
}


def make_page(report: FailureReport, summary: Mapping[str, Any]) -> str:
    """The page.

    Args:
        report: rows and pictures.
        summary: their summary.
    """
    ranked = report.ranked()
    middle = len(ranked.errors) // 2
    low, high = ranked.errors[: len(ranked.errors) - middle], ranked.errors[len(ranked.errors) - middle :][::-1]
    shown = {key: report.configuration[key] for key in ("configuration", "environment")}
    through = _THROUGH[report.configuration["configuration"]["through"]]
    low_said = "least typical of their class: what the network knows of it is missing or drawn in another way"
    high_said = "the most typical of their class among the errors, and often of another one too"
    return page(
        _TITLE,
        [
            f'<p class="quiet">{summary["samples"]} samples, {summary["errors"]} of them predicted wrongly. Beta: how '
            "typical a sample is of its class, the mean over the filters of its score less the class's mean in "
            "training. A filter surprises above its highest scores in training, and is missed below its lowest.</p>",
            _numbers(summary, through),
            _scatter(report),
            _grids(summary["repairs"], through),
            _errors(report, "Errors with the lowest beta", low_said, low),
            _errors(report, "Errors with the highest beta", high_said, high),
            _classes(report),
            f"<h2>Configuration</h2><pre>{text(json.dumps(shown, indent=2, ensure_ascii=False))}</pre>",
        ],
    )


def _share(value: float | None) -> str:
    return number(None) if value is None else f"{100 * value:.1f} %"


def _numbers(summary: Mapping[str, Any], through: str) -> str:
    repairs, spearman = summary["repairs"], summary["spearman"]
    values = {
        "accuracy": _share(summary["accuracy"]),
        "errors with negative beta": _share(summary["negative_beta"]["errors"]),
        "correct with negative beta": _share(summary["negative_beta"]["correct"]),
        "Spearman of beta and logit": number(spearman["logit"]["mean"]),
        "Spearman of beta and probability": number(spearman["probability"]["mean"]),
        "errors with a surprising filter": _share(summary["surprised"]["errors"]),
        "correct with a surprising filter": _share(summary["surprised"]["correct"]),
        "errors with a missed filter": _share(summary["missed"]["errors"]),
        "correct with a missed filter": _share(summary["missed"]["correct"]),
    }
    said = f"Correlations are means over {spearman['logit']['classes']} classes."
    if repairs is not None:
        values[f"repaired {through}"] = _share(repairs["filtered"]["share"])
        values["repaired without filtering"] = _share(repairs["unfiltered"]["share"])
        said += (
            f" Repairs were searched for {repairs['searched']} errors, {repairs['with_filter']} of which have "
            "such a filter"
        )
        whole = repairs["searched"] >= summary["errors"]
        said += "." if whole else ": those at both ends of beta, so these shares are not those of all errors."
    rows = [
        [text(name), value, *(text(each) for each in _THESIS.get(name, ("", "")))] for name, value in values.items()
    ]
    head = ["", "here", "VGG16, ImageNet (thesis)", "ResNet-50, ImageNet (thesis)"]
    return "<h2>In numbers</h2>" + make_table(head, rows, said)


def _scatter(report: FailureReport) -> str:
    samples = report.samples()
    if not len(samples):
        return ""
    wrong = (samples["true_class"] != samples["predicted"]).to_numpy()
    drawings = []
    for column, what in (("logit", "logit"), ("probability", "probability")):
        figure, axes = svg_axes()
        for flags, colour, name in ((~wrong, "#1a7f37", "correct"), (wrong, "#cf222e", "wrong")):
            axes.scatter(
                samples["beta"][flags],
                samples[column][flags],
                s=6 if len(samples) > _FEW else 20,
                color=colour,
                alpha=0.5,
                linewidths=0,
                label=name,
                rasterized=len(samples) > _POINTS,
            )
        axes.axvline(0.0, color="#57606a", linewidth=0.8)
        axes.set_xlabel("beta")
        axes.set_ylabel(f"{what} of the true class")
        axes.legend(fontsize=8)
        caption = f"Beta and {what} of every sample"
        drawings.append(
            f'<figure><img src="{svg_uri(figure)}" alt="{text(caption)}"><figcaption>{text(caption)}</figcaption>'
            "</figure>"
        )
    return f'<h2>Beta</h2><div class="plots">{"".join(drawings)}</div>'


def _grids(repairs: Mapping[str, Any] | None, through: str) -> str:
    if repairs is None:
        return ""
    most = max(1, *(value for name in ("filtered", "unfiltered") for row in repairs[name]["grid"] for value in row))
    found = []
    for name, said in (
        ("filtered", through),
        ("unfiltered", "without filtering"),
    ):
        rows = [
            [str(count), *(_shaded(value, most) for value in row)]
            for count, row in zip(repairs["n_segments"], repairs[name]["grid"], strict=True)
        ]
        caption = (
            f"Gradient {said}: errors repaired by removing the best 1, 2, ... superpixels (columns) of so many (rows); "
            f"{repairs[name]['fixed']} of {repairs['searched']} by any of these"
        )
        found.append(make_table(["superpixels", *map(str, repairs["removals"])], rows, caption))
    return "<h2>Repairs</h2>" + "".join(found)


def _shaded(value: int, most: int) -> str:
    step = round(value / most * SHADES)
    return f'<td class="g{step}">{value}</td>' if step else f"<td>{value}</td>"


def _errors(report: FailureReport, title: str, said: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    examples, best = report.examples(), report.ranked().best
    blocks = [_block(report, row, examples, best) for row in rows if row["id"] in examples]
    lines = [
        [
            f'<td class="text">{text(row["id"])}</td>',
            text(report.label(row["true_class"])),
            text(report.label(row["predicted"])),
            *(number(row[name]) for name in ("beta", "logit", "probability")),
            str(row["n_surprising"]),
            str(row["n_expected"]),
        ]
        for row in rows[:_LISTED]
    ]
    more = f", the first {_LISTED}" if len(rows) > _LISTED else ""
    head = ["sample", "class", "predicted", "beta", "logit", "probability", "surprising filters", "missed filters"]
    table = make_table(head, lines, f"{len(rows)} errors{more}")
    listed = f"<details><summary>All in a table</summary>{table}</details>"
    return f'<h2>{text(title)}</h2><p class="quiet">{text(said)}</p>{"".join(blocks)}{listed}'


def _block(
    report: FailureReport,
    row: Mapping[str, Any],
    examples: Mapping[str, Sequence[Mapping[str, Any]]],
    best: Mapping[int, Mapping[str, Any]],
) -> str:
    true = report.label(row["true_class"])
    title = (
        f"{row['id']}: {true} taken for {report.label(row['predicted'])} ({row['predicted_probability']:.1%}), beta "
        f"{row['beta']:.3g}"
    )
    found = [f"<h3>{text(title)}</h3>"]
    for place, line in enumerate(examples[row["id"]]):
        pictures = list(line["pictures"])
        beside = best.get(row["true_class"])
        if place == 0 and beside is not None and beside["id"] in examples:
            uri = examples[beside["id"]][0]["pictures"][0][1]
            pictures.append([f"{beside['id']}: {true}, predicted rightly, beta {beside['beta']:.3g}", uri])
        if line["title"]:
            found.append(f'<p class="quiet">{text(line["title"])}</p>')
        found += [
            f'<figure class="example"><img src="{text(uri)}" alt="{text(caption)}"><figcaption>{text(caption)}'
            "</figcaption></figure>"
            for caption, uri in pictures
            if JPEG.fullmatch(str(uri))
        ]
    return "".join(found)


def _classes(report: FailureReport) -> str:
    samples = report.samples()
    if not len(samples):
        return ""
    rows = []
    for label, part in samples.groupby("true_class"):
        wrong = part["true_class"] != part["predicted"]
        confused = part.loc[wrong, "predicted"].mode()
        rows.append(
            [
                text(report.label(int(label))),
                str(len(part)),
                _share(float(wrong.mean())),
                text(report.label(int(confused.iloc[0]))) if len(confused) else "",
                number(float(part["beta"].mean())),
                number(float(np.mean(part["n_surprising"]))),
                number(float(np.mean(part["n_expected"]))),
            ]
        )
    head = ["class", "samples", "wrong", "most often taken for", "mean beta", "surprising filters", "missed filters"]
    return f"<h2>Classes</h2><details><summary>All</summary>{make_table(head, rows)}</details>"
