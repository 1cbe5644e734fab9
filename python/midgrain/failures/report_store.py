"""The folder of a failure report: a row per sample, a row per explained error, and what is drawn of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from midgrain.parts import Columns, Parts

__all__ = ["KIND", "ReportStore"]

#: What the configuration says the folder is.
KIND = "failures"
_SEARCH = {"fixed": "bool", "segments": "int", "removals": "int", "share": "float", "probability": "float"}
_COLUMNS: dict[str, Columns] = {
    "samples": {
        "id": "text",
        "true_class": "int",
        "predicted": "int",
        "logit": "float",
        "probability": "float",
        "predicted_probability": "float",
        "beta": "float",
        "n_surprising": "int",
        "n_expected": "int",
        "checksum": "int",
    },
    "failures": {
        "id": "text",
        "surprising": "ints",
        "surprising_deviations": "list",
        "expected": "ints",
        "expected_deviations": "list",
        # Through a filter; nothing where there is none.
        **{f"repair_{name}": kind for name, kind in _SEARCH.items()},
        "repair_grid": "ints",
        **{f"unfiltered_{name}": kind for name, kind in _SEARCH.items()},
        "unfiltered_grid": "ints",
    },
}


class ReportStore(Parts):
    """A report's folder, with the kinds "samples" and "failures".

    Args:
        folder: where it is, or will be.

    Raises:
        ValueError: a file, or a folder that holds something else.
    """

    def __init__(self, folder: Path):
        super().__init__(folder, tuple(_COLUMNS), "a failure report")

    def columns(self, kind: str) -> Columns:
        """Of both kinds always the same."""
        return _COLUMNS[kind]

    def _is_own(self, found: dict[str, Any]) -> bool:
        return bool(found["configuration"].get("kind") == KIND)
