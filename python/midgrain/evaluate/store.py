"""The folder of an evaluation: configuration, Parquet parts, a journal, and what survives a kill.

    configuration.json           what was evaluated, with which versions
    rows/part-00000.parquet      one row per sample and explainer
    errors/part-00000.parquet    what went wrong
    journal-00001.jsonl          samples that are in no part yet, a line each
    examples/*.json              drawn explanations, for the report

A finished sample is one line of the journal, written at once. From time to time the journal becomes the part of its
number: errors, then rows, each whole or not at all, and then the journal is deleted. A part whose journal is still
there does not count. So whenever the process is killed, every finished sample is there exactly once.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from midgrain.evaluate.measuring import ROW_COLUMNS
from midgrain.evaluate.work import Record
from midgrain.files import check_writable_folder, write_whole
from midgrain.identity import differences

__all__ = ["Store", "require"]

_CONFIGURATION = "configuration.json"
_ERROR_COLUMNS = {"id": "text", "stage": "text", "error": "text"}


def require(package: str, extra: str = "evaluate") -> Any:
    """A package of an extra.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"evaluate: the package {package.partition('.')[0]} is not installed; pip install 'midgrain[{extra}]'"
        ) from error


class Store:
    """A results' folder.

    Args:
        folder: where it is, or will be.

    Raises:
        ValueError: a file, or a folder that holds something else.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._journal: IO[bytes] | None = None
        self._number = 0
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"out: expected a folder, but {str(folder)!r} is a file")
        others = folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
        if others and not (folder / _CONFIGURATION).is_file():
            raise ValueError(
                f"out: expected a new folder or one of an evaluation, but {str(folder)!r} holds other files"
            )

    @property
    def configuration(self) -> dict[str, Any]:
        """What was evaluated, and with what.

        Raises:
            FileNotFoundError: nothing yet.
            ValueError: the file is damaged.
        """
        path = self.folder / _CONFIGURATION
        if not path.is_file():
            raise FileNotFoundError(f"out: there is no evaluation in {str(self.folder)!r}")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(found, dict) and isinstance(found["configuration"], dict) and "columns" in found:
                return found
        except (ValueError, KeyError):
            pass
        raise ValueError(f"out: {str(path)!r} is no configuration of an evaluation")

    @contextlib.contextmanager
    def writing(self, configuration: dict[str, Any], *, retry: bool = False) -> Iterator[set[str]]:
        """Open for more samples; yields the ids of those that are done.

        Args:
            configuration: JSON; what is under "configuration" must be the same as before.
            retry: forget the samples that something went wrong with.

        Raises:
            ValueError: it is of another configuration, or another process is writing there.
        """
        check_writable_folder(self.folder, "out")
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ValueError(f"out: another evaluation is writing to {str(self.folder)!r}") from error
            self._agree(configuration)
            self._open_journal()
            if retry:
                self._forget(set(self.table("errors", ["id"])["id"].to_pylist()))
            done = {name for kind in ("rows", "errors") for name in self.table(kind, ["id"])["id"].to_pylist()}
            try:
                yield done
            finally:
                self.compact()
                self._close()

    def add(self, record: Record) -> None:
        """A finished sample; it stays, whatever happens next."""
        assert self._journal is not None, "call it inside `writing`"
        line = {"id": record.id, "rows": record.rows, "errors": record.errors}
        if record.example is not None:
            self._write_example(record.id, record.example)
        self._journal.write(json.dumps(line).encode() + b"\n")
        self._journal.flush()

    def compact(self) -> None:
        """Turn the journal into a part."""
        if self._journal is None:
            return
        self._journal.close()
        self._journal = None
        path = self._journal_path(self._number)
        records = _read_journal(path)
        if records:
            self._write_part("errors", records)
            self._write_part("rows", records)
            path.unlink()
            self._number += 1
        self._journal = self._journal_path(self._number).open("ab")

    def _close(self) -> None:
        """Close the journal; an empty one goes."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        path = self._journal_path(self._number)
        if path.exists() and path.stat().st_size == 0:
            path.unlink()

    def table(self, kind: str, columns: Sequence[str] | None = None) -> Any:
        """All "rows", or all "errors", in the order in which they were made, as a pyarrow table.

        Args:
            kind: "rows" or "errors".
            columns: these only; None means all.
        """
        pyarrow, parquet = require("pyarrow"), require("pyarrow.parquet")
        schema = self._schema(kind)
        tables = [schema.empty_table()]
        for path in sorted((self.folder / kind).glob("part-*.parquet")):
            if self._journal_path(int(path.stem.partition("-")[2])).exists():
                continue
            try:
                tables.append(parquet.read_table(path).select(schema.names))
            except Exception as error:
                raise ValueError(f"out: {str(path)!r} cannot be read ({error})") from error
        records = [record for number in self._journal_numbers() for record in _read_journal(self._journal_path(number))]
        tables.append(self._as_table(kind, records))
        return pyarrow.concat_tables(table if columns is None else table.select(list(columns)) for table in tables)

    def examples(self) -> list[dict[str, Any]]:
        """Drawn explanations, in the order in which they were made."""
        found = []
        for path in (self.folder / "examples").glob("*.json"):
            with contextlib.suppress(ValueError, OSError):
                found.append(json.loads(path.read_text(encoding="utf-8")))
        return sorted(found, key=lambda example: str(example.get("made", "")))

    def _agree(self, configuration: dict[str, Any]) -> None:
        path = self.folder / _CONFIGURATION
        configuration = json.loads(json.dumps(configuration))
        if path.is_file() and not self._is_empty():
            before = self.configuration
            changed = differences(before["configuration"], configuration["configuration"])
            if changed:
                more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
                raise ValueError(
                    f"out: {str(self.folder)!r} holds results of another configuration: {'; '.join(changed[:3])}{more}"
                    "; use another folder"
                )
            return
        text = json.dumps(configuration, indent=2) + "\n"
        write_whole(path, lambda file: file.write(text.encode()))

    def _forget(self, ids: set[str]) -> None:
        """Take samples out of all parts. A kill in between leaves their errors, so that they can be forgotten again."""
        if not ids:
            return
        parquet, compute, pyarrow = require("pyarrow.parquet"), require("pyarrow.compute"), require("pyarrow")
        self.compact()
        for kind in ("rows", "errors"):
            for path in sorted((self.folder / kind).glob("part-*.parquet")):
                table = parquet.read_table(path)
                gone = compute.is_in(table["id"], value_set=pyarrow.array(sorted(ids), pyarrow.string()))
                kept = table.filter(compute.invert(gone))
                if len(kept) < len(table):
                    write_whole(path, functools.partial(parquet.write_table, kept))

    def _is_empty(self) -> bool:
        """Nothing was finished yet, so there is nothing that could be mixed."""
        return not [*self.folder.glob("*/part-*.parquet")] and not any(
            _read_journal(self._journal_path(number)) for number in self._journal_numbers()
        )

    def _open_journal(self) -> None:
        """The journal to go on with; what was half written is cut off."""
        numbers = self._journal_numbers()
        if numbers:
            self._number = numbers[-1]
        else:
            parts = [int(path.stem.partition("-")[2]) for path in (self.folder / "rows").glob("part-*.parquet")]
            self._number = max(parts, default=-1) + 1
        path = self._journal_path(self._number)
        self._journal = path.open("r+b" if path.exists() else "w+b")
        self._journal.truncate(_whole_lines(path))
        self._journal.seek(0, os.SEEK_END)

    def _journal_numbers(self) -> list[int]:
        return sorted(int(path.stem.partition("-")[2]) for path in self.folder.glob("journal-*.jsonl"))

    def _journal_path(self, number: int) -> Path:
        return self.folder / f"journal-{number:05d}.jsonl"

    def _part_path(self, kind: str, number: int) -> Path:
        return self.folder / kind / f"part-{number:05d}.parquet"

    def _schema(self, kind: str) -> Any:
        pyarrow = require("pyarrow")
        columns = self.configuration["columns"]
        kinds = _ERROR_COLUMNS
        if kind == "rows":
            kinds = ROW_COLUMNS | dict.fromkeys(columns["numbers"], "float") | dict.fromkeys(columns["curves"], "list")
        types = {
            "text": pyarrow.string(),
            "int": pyarrow.int64(),
            "float": pyarrow.float64(),
            "list": pyarrow.list_(pyarrow.float32()),
        }
        return pyarrow.schema([(name, types[type_]) for name, type_ in kinds.items()])

    def _as_table(self, kind: str, records: Sequence[Record]) -> Any:
        rows = [row for record in records for row in (record.rows if kind == "rows" else record.errors)]
        return require("pyarrow").Table.from_pylist(rows, schema=self._schema(kind))

    def _write_part(self, kind: str, records: Sequence[Record]) -> None:
        parquet, table = require("pyarrow.parquet"), self._as_table(kind, records)
        path = self._part_path(kind, self._number)
        path.parent.mkdir(exist_ok=True)
        write_whole(path, lambda file: parquet.write_table(table, file))

    def _write_example(self, name: str, example: dict[str, Any]) -> None:
        folder = self.folder / "examples"
        folder.mkdir(exist_ok=True)
        path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
        made = f"{len(list(folder.glob('*.json'))):05d}"
        text = json.dumps({"id": name, "made": made, **example})
        write_whole(path, lambda file: file.write(text.encode()))


def _whole_lines(path: Path) -> int:
    """The length of a file without a last line that was cut off by a kill."""
    content = path.read_bytes()
    return content.rfind(b"\n") + 1


def _read_journal(path: Path) -> list[Record]:
    if not path.exists():
        return []
    lines = path.read_bytes()[: _whole_lines(path)].splitlines()
    try:
        return [Record(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise ValueError(f"out: {str(path)!r} is damaged ({error}); delete it to repeat its samples") from error
