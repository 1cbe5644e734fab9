"""What an evaluation found: rows, errors, summary, report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from midgrain.evaluate.store import Store, require
from midgrain.evaluate.summary import Summary, summarise
from midgrain.files import write_whole
from midgrain.measures import localisation_error

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

__all__ = ["Results"]

_OVERLAP = 0.5


class Results:
    """The results in a folder, finished or not.

    Args:
        folder: the `out` of `evaluate`.

    Raises:
        FileNotFoundError: it holds no evaluation.
        ValueError: it is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self._store = Store(self.folder)
        #: "configuration", "columns" and "environment", as in configuration.json.
        self.configuration: dict[str, Any] = self._store.configuration
        #: Names in the results, in the order asked for, baselines last.
        self.explainers: list[str] = list(self.configuration["configuration"]["explainers"])

    def __repr__(self) -> str:
        return f"Results({str(self.folder)!r})"

    @property
    def columns(self) -> dict[str, str | None]:
        """Columns of numbers -> "higher" or "lower" is better; None for those that only inform."""
        numbers: Mapping[str, str | None] = self.configuration["columns"]["numbers"]
        return dict(numbers)

    @property
    def measures(self) -> dict[str, str]:
        """Columns that explainers are compared by -> "higher" or "lower" is better."""
        return {name: better for name, better in self.columns.items() if better is not None}

    def frame(self) -> pandas.DataFrame:
        """One row per sample and explainer.

        Columns: "id", "explainer", "label", "predicted", "target", "probability", "seconds", "passes", then those of
        the measures, then curves as lists. `weak_localisation` is 1 where the sample's box does not fit at the
        threshold that is best for the explainer over all its samples, and 0 where it does.
        """
        require("pandas")
        curves = self.configuration["columns"]["curves"]
        table = self._store.table("rows")
        # Integers stay integers where some are missing.
        whole = {name: table[name].to_pylist() for name in ("label", "predicted", "target", "passes")}
        frame = table.to_pandas()
        for name, values in whole.items():
            frame[name] = require("pandas").array(values, dtype="Int64")
        for name in [curve.removesuffix(".iou") for curve in curves if curve.endswith(".iou")]:
            frame[name] = _misfits(frame, f"{name}.iou")
        return frame

    def errors(self) -> pandas.DataFrame:
        """What went wrong: "id", "stage" ("read", "model", an explainer, "explainer: measure") and "error"."""
        require("pandas")
        return self._store.table("errors").to_pandas()

    def examples(self) -> list[dict[str, Any]]:
        """Drawn samples: "id", "title", and "pictures", explainer -> data URI of a JPEG."""
        return self._store.examples()

    def summary(self, *, confidence: float = 0.95, seed: int = 0) -> Summary:
        """Means with intervals, wins, p-values and agreement.

        Args:
            confidence: of the intervals.
            seed: of the bootstrap.
        """
        frame = self.frame()
        skipped = sorted(set(self.errors()["id"]) - set(frame["id"]))
        return summarise(frame, self.explainers, self.measures, skipped=len(skipped), confidence=confidence, seed=seed)

    def report(
        self,
        path: str | os.PathLike[str] | None = None,
        summary: Summary | None = None,
        measures: Sequence[str] | None = None,
    ) -> Path:
        """Write one HTML page that needs nothing else: tables, curves, costs and examples.

        Args:
            path: where to; by default report.html in the folder.
            summary: the one to show; by default it is made.
            measures: columns of which curves, costs and wins are shown, to keep the page of many explainers and
                measures small; None shows them all. The table of means has all of them anyway.

        Returns:
            The path.
        """
        from midgrain.evaluate.report import make_page

        destination = self.folder / "report.html" if path is None else Path(path)
        page = make_page(self, summary or self.summary(), measures)
        write_whole(destination, lambda file: file.write(page.encode()))
        return destination


def _misfits(frame: pandas.DataFrame, column: str) -> pandas.Series:
    """1.0 where a box does not fit at the explainer's best threshold, else 0.0; NaN without a box."""
    found = require("pandas").Series(np.nan, index=frame.index)
    for _, rows in frame[frame[column].notna()].groupby("explainer"):
        iou = torch.tensor(np.array(rows[column].tolist(), dtype=np.float64))
        misfit = (iou <= _OVERLAP).double()
        best = int(misfit.mean(0).argmin())
        assert float(misfit[:, best].mean()) == localisation_error(iou, _OVERLAP)
        found[rows.index] = misfit[:, best].numpy()
    return found
