"""The paper's figures beside the measured ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from midgrain.evaluate.papers.declaration import Figure, Measure, Table
from midgrain.evaluate.store import require

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

__all__ = ["NOT_IN_MIDGRAIN", "NOT_MEASURED", "Line", "Reproduction", "lines_of_network"]

#: Notes of lines without a measured figure.
NOT_IN_MIDGRAIN, NOT_MEASURED = "not in midgrain", "not measured"


@dataclass(frozen=True)
class Line:
    """One figure of the paper, or one that only midgrain has, and what was measured; both in the paper's unit."""

    #: The paper's names.
    network: str
    method: str
    measure: str
    #: "lower" or "higher".
    better: str
    #: None where the paper has no figure.
    paper: Figure | None = None
    #: None where nothing was measured.
    measured: float | None = None
    #: Of the mean, 95 % bootstrap; None below two samples. Of seconds, the 10th and 90th percentile.
    low: float | None = None
    high: float | None = None
    #: Samples behind it.
    n: int = 0
    #: Why nothing was measured.
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Measured minus paper; None where one of them is missing."""
        return None if self.paper is None or self.measured is None else self.measured - self.paper.value

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        paper = None if self.paper is None else self.paper.value
        return {
            "network": self.network,
            "method": self.method,
            "measure": self.measure,
            "better": self.better,
            "paper": paper,
            "as printed": "" if self.paper is None else self.paper.text,
            "measured": self.measured,
            "low": self.low,
            "high": self.high,
            "difference": self.difference,
            "n": self.n,
            "note": self.note,
        }


@dataclass(frozen=True, eq=False)
class Reproduction:
    """A table of a paper beside what was measured."""

    table: Table
    #: In the paper's order: by network, method and measure.
    lines: Sequence[Line]
    #: The paper's name of a network -> what ran in its place, and with which weights.
    networks: Mapping[str, str]
    #: What differs from the paper's setting.
    differences: Sequence[str]
    #: The paper's name of a network -> the folder of its results.
    folders: Mapping[str, Path] = field(default_factory=dict)
    #: What went wrong, a sentence for each network and kind of error.
    errors: Sequence[str] = ()

    def frame(self) -> pandas.DataFrame:
        """One row per line, see `Line`."""
        return require("pandas").DataFrame([line.to_dict() for line in self.lines])

    def to_dict(self) -> dict[str, Any]:
        """JSON of everything."""
        return {
            "table": self.table.name,
            "title": self.table.title,
            "source": self.table.source,
            "samples of the paper": self.table.samples,
            "networks": dict(self.networks),
            "lines": [line.to_dict() for line in self.lines],
            "differences": list(self.differences),
            "folders": {name: str(folder) for name, folder in self.folders.items()},
            "errors": list(self.errors),
        }


def column_of(label: str, measure: Measure) -> str:
    """The column of the results that a measure reads."""
    return ".".join(part for part in (measure.of or label, measure.part) if part)


def lines_of_network(
    table: Table,
    network: str,
    found: Mapping[tuple[str, str, str], Mapping[str, Any]],
    run: Sequence[str] | None = None,
) -> list[Line]:
    """The lines of one network.

    Args:
        table: the table.
        network: the paper's name.
        found: (subset of the samples, "" is all of them; method; column) -> "mean", "low", "high", "n".
        run: the methods that ran, by the paper's name; None where the network did not run.
    """
    lines = []
    for method in table.rows(network):
        for label, measure in table.measures.items():
            paper = table.figures.get(network, {}).get(method, {}).get(label)
            row = found.get((measure.subset, method, column_of(label, measure)))
            line = _line(measure, row, (network, method, label), paper)
            if line.measured is None:
                if paper is None and (method not in (run or ()) or not measure.name):
                    continue
                line = _unmeasured(line, table, measure, method, run)
            lines.append(line)
    return lines


def _line(measure: Measure, row: Mapping[str, Any] | None, names: tuple[str, str, str], paper: Figure | None) -> Line:
    if row is None or not row["n"] or row["mean"] != row["mean"]:
        return Line(*names, measure.better, paper)
    low, high = (None if row[end] != row[end] else measure.factor * row[end] for end in ("low", "high"))
    return Line(*names, measure.better, paper, measure.factor * row["mean"], low, high, int(row["n"]))


def _unmeasured(line: Line, table: Table, measure: Measure, method: str, run: Sequence[str] | None) -> Line:
    if method not in table.methods or not measure.name:
        note = NOT_IN_MIDGRAIN
    elif run is None or method not in run:
        note = NOT_MEASURED
    else:
        note = "no number; see the errors"
    return Line(line.network, line.method, line.measure, line.better, line.paper, note=note)
