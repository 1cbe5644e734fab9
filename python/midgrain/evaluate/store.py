"""The folder of an evaluation: a row per sample and explainer, what went wrong, and drawn samples for the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from midgrain.evaluate.measuring import ROW_COLUMNS
from midgrain.evaluate.work import Record
from midgrain.parts import Columns, Line, Parts, require

__all__ = ["Store", "require"]

_ERROR_COLUMNS = {"id": "text", "stage": "text", "error": "text"}


class Store(Parts):
    """A results' folder, with the kinds "errors" and "rows".

    Args:
        folder: where it is, or will be.

    Raises:
        ValueError: a file, or a folder that holds something else.
    """

    def __init__(self, folder: Path):
        super().__init__(folder, ("errors", "rows"), "an evaluation")

    def add(self, record: Record) -> None:
        """A finished sample; it stays, whatever happens next."""
        self.write(Line(record.id, {"errors": record.errors, "rows": record.rows}), record.example)

    def columns(self, kind: str) -> Columns:
        """Of rows those of the configuration's measures too."""
        if kind == "errors":
            return _ERROR_COLUMNS
        columns = self.configuration["columns"]
        return ROW_COLUMNS | dict.fromkeys(columns["numbers"], "float") | dict.fromkeys(columns["curves"], "list")

    def _is_own(self, found: dict[str, Any]) -> bool:
        return "columns" in found
