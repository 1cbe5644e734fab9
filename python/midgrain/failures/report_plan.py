"""Which errors of a failure report are explained, and which of them are drawn beside what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from midgrain.parts import Parts

__all__ = ["Plan", "Ranked", "ends"]


@dataclass(frozen=True)
class Ranked:
    """The samples of a report by beta."""

    #: Rows of the errors, the lowest beta first; of equal ones in the order of their ids.
    errors: list[dict[str, Any]]
    #: Class -> row of the correct sample with the highest beta.
    best: dict[int, dict[str, Any]]

    @staticmethod
    def of(folder: Parts) -> Ranked:
        """As far as there are rows."""
        rows = folder.table("samples").to_pylist()
        rows.sort(key=lambda row: (row["beta"], row["id"]))
        correct = [row for row in rows if row["true_class"] == row["predicted"]]
        errors = [row for row in rows if row["true_class"] != row["predicted"]]
        return Ranked(errors, {row["true_class"]: row for row in correct})


@dataclass(frozen=True)
class Plan:
    """Samples that the second reading of the set looks at."""

    #: Errors without a row that are to be explained, and what is to be drawn and is not yet.
    wanted: frozenset[str]
    #: Errors that are drawn.
    drawn: frozenset[str]
    #: Correct samples that are drawn beside them.
    companions: frozenset[str]
    #: Errors that have a row already.
    explained: frozenset[str]

    @staticmethod
    def of(folder: Parts, limit: int | None, drawn: int) -> Plan:
        """What is left to do.

        Args:
            folder: of the report.
            limit: errors to explain, half with the lowest and half with the highest beta; None for all.
            drawn: likewise how many of them to draw.
        """
        ranked = Ranked.of(folder)
        chosen = ends(ranked.errors, limit)
        shown = ends(chosen, drawn)
        companions = {ranked.best[row["true_class"]]["id"] for row in shown if row["true_class"] in ranked.best}
        names, shown_names = {row["id"] for row in chosen}, {row["id"] for row in shown}
        explained = folder.ids("failures")
        pictured = {str(example["id"]) for example in folder.examples()}
        wanted = (names - explained) | ((shown_names | companions) - pictured)
        return Plan(frozenset(wanted), frozenset(shown_names), frozenset(companions), frozenset(explained))


def ends(rows: Sequence[dict[str, Any]], limit: int | None) -> list[dict[str, Any]]:
    """The first and the last of them, `limit` together and the odd one from the front."""
    if limit is None or limit >= len(rows):
        return list(rows)
    front = (limit + 1) // 2
    return [*rows[:front], *rows[len(rows) - (limit - front) :]]
