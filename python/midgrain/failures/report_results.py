"""What a failure report found: rows, explained errors, summary, page."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from midgrain.failures.report_plan import Ranked
from midgrain.failures.report_store import ReportStore
from midgrain.failures.report_summary import summarise_failures
from midgrain.files import write_whole
from midgrain.parts import require

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

__all__ = ["FailureReport"]


class FailureReport:
    """The report in a folder, finished or not.

    Args:
        folder: the `out` of `midgrain.failures.report`.

    Raises:
        FileNotFoundError: it holds no report.
        ValueError: it is damaged, or holds something else.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self._store = ReportStore(self.folder)
        #: "configuration", "classes" and "environment", as in configuration.json.
        self.configuration: dict[str, Any] = self._store.configuration

    def __repr__(self) -> str:
        return f"FailureReport({str(self.folder)!r})"

    def label(self, number: int) -> str:
        """The name of a class, "class 7" where it has none."""
        names = self.configuration["classes"]
        return f"class {number}" if names is None or number >= len(names) else str(names[number])

    def samples(self) -> pandas.DataFrame:
        """One row per sample.

        Columns: "id", "true_class", "predicted", "logit" and "probability" of the true class, "predicted_probability",
        "beta", "n_surprising" and "n_expected" (numbers of filters), "checksum" of the input.
        """
        require("pandas")
        return self._store.table("samples").to_pandas()

    def failures(self) -> pandas.DataFrame:
        """One row per explained error.

        Columns: "id"; "surprising" and "expected", the most extreme filters, with their "_deviations" in standard
        deviations; of the repair through a filter "repair_fixed", the setting that removes the fewest
        pixels ("repair_segments", "repair_removals", "repair_share" of the pixels, "repair_probability"), and
        "repair_grid", 1 for each setting that repairs (wanted superpixels by removals, flattened); and the same
        without filtering as "unfiltered_...".
        """
        require("pandas")
        return self._store.table("failures").to_pandas()

    def ranked(self) -> Ranked:
        """Errors by beta, and the best correct sample of every class."""
        return Ranked.of(self._store)

    def examples(self) -> dict[str, list[dict[str, Any]]]:
        """Drawn samples: id -> rows with "title" and "pictures", pairs of a caption and the data URI of a JPEG."""
        return {str(example["id"]): example["rows"] for example in self._store.examples()}

    def summary(self) -> dict[str, Any]:
        """As JSON.

        "samples", "errors", "accuracy"; "negative_beta", "surprised" and "missed", shares of "errors" and "correct"
        with a negative beta, a surprising filter, a missed one; "spearman" of beta with "logit" and "probability",
        the mean over classes; "repairs", of the errors for which they were searched, "filtered" and "unfiltered", each
        with "fixed", "share" and "grid" (numbers fixed by "n_segments" and "removals").
        """
        asked = self.configuration["configuration"]
        samples, failures = (self._store.table(kind).to_pydict() for kind in ("samples", "failures"))
        return summarise_failures(samples, failures, asked["search_segments"], asked["removals"])

    def write(self) -> Path:
        """Write summary.json and report.html into the folder, or write them again.

        Returns:
            The path of the page.
        """
        from midgrain.failures.report_page import make_page

        summary = self.summary()
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        write_whole(self.folder / "summary.json", lambda file: file.write(text.encode()))
        page = make_page(self, summary)
        destination = self.folder / "report.html"
        write_whole(destination, lambda file: file.write(page.encode()))
        return destination
