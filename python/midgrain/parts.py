"""A folder of results: configuration, tables as Parquet parts, a journal, and what survives a kill.

    configuration.json           what was done, with which versions
    KIND/part-00000.parquet      rows of one kind, for every kind
    journal-00001.jsonl          samples that are in no part yet, a line each
    examples/*.json              drawn samples, for the report

A finished sample is one line of the journal, written at once. From time to time the journal becomes the part of its
number: one kind after the other, each whole or not at all, and then the journal is deleted. A part whose journal is
still there does not count. So whenever the process is killed, every finished sample is there exactly once.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from midgrain.files import check_writable_folder, write_whole
from midgrain.identity import differences

__all__ = ["Columns", "Line", "Parts", "require"]

_CONFIGURATION = "configuration.json"
#: Column -> "text", "int", "float", "bool", "list" (of floats) or "ints".
Columns = Mapping[str, str]


@dataclass(frozen=True)
class Line:
    """A finished sample; JSON throughout."""

    id: str
    #: Kind -> rows of that kind.
    rows: dict[str, list[dict[str, Any]]]


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


class Parts:
    """A results' folder.

    Args:
        folder: where it is, or will be.
        kinds: of rows, in the order in which their parts are written; errors first, where there are any.
        noun: what the folder is of, "an evaluation".

    Raises:
        ValueError: a file, or a folder that holds something else.
    """

    def __init__(self, folder: Path, kinds: Sequence[str], noun: str):
        self.folder = folder
        self.kinds = tuple(kinds)
        self.noun = noun
        self._journal: IO[bytes] | None = None
        self._number = 0
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"out: expected a folder, but {str(folder)!r} is a file")
        others = folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
        if others and not (folder / _CONFIGURATION).is_file():
            raise ValueError(f"out: expected a new folder or one of {noun}, but {str(folder)!r} holds other files")

    @property
    def _bare(self) -> str:
        """The noun without its article."""
        return self.noun.partition(" ")[2]

    def _is_own(self, found: dict[str, Any]) -> bool:
        """Is a configuration one of this kind of folder?"""
        raise NotImplementedError

    @property
    def configuration(self) -> dict[str, Any]:
        """What was evaluated, and with what.

        Raises:
            FileNotFoundError: nothing yet.
            ValueError: the file is damaged.
        """
        path = self.folder / _CONFIGURATION
        if not path.is_file():
            raise FileNotFoundError(f"out: there is no {self._bare} in {str(self.folder)!r}")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(found, dict) and isinstance(found["configuration"], dict) and self._is_own(found):
                return found
        except (ValueError, KeyError):
            pass
        raise ValueError(f"out: {str(path)!r} is no configuration of {self.noun}")

    @contextlib.contextmanager
    def writing(self, configuration: dict[str, Any], *, retry: bool = False) -> Iterator[set[str]]:
        """Open for more samples; yields the ids of those that are done.

        Args:
            configuration: JSON; what is under "configuration" must be the same as before.
            retry: forget the samples that have rows of the first kind.

        Raises:
            ValueError: it is of another configuration, or another process is writing there.
        """
        check_writable_folder(self.folder, "out")
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ValueError(f"out: another {self._bare} is writing to {str(self.folder)!r}") from error
            self._agree(configuration)
            self._open_journal()
            if retry:
                self._forget(self.ids(self.kinds[0]))
            try:
                yield {name for kind in self.kinds for name in self.ids(kind)}
            finally:
                self.compact()
                self._close()

    def write(self, line: Line, example: dict[str, Any] | None = None) -> None:
        """A finished sample, and what is drawn of it; it stays, whatever happens next."""
        assert self._journal is not None, "call it inside `writing`"
        if example is not None:
            self._write_example(line.id, example)
        self._journal.write(json.dumps(vars(line)).encode() + b"\n")
        self._journal.flush()

    def compact(self) -> None:
        """Turn the journal into a part."""
        if self._journal is None:
            return
        self._journal.close()
        self._journal = None
        path = self._journal_path(self._number)
        lines = _read_journal(path)
        if lines:
            for kind in self.kinds:
                self._write_part(kind, lines)
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

    def columns(self, kind: str) -> Columns:
        """Of a kind of rows; "id", a text, is one of them."""
        raise NotImplementedError

    def ids(self, kind: str) -> set[str]:
        """The samples that have rows of a kind."""
        return set(self.table(kind, ["id"])["id"].to_pylist())

    def table(self, kind: str, columns: Sequence[str] | None = None) -> Any:
        """All rows of a kind, in the order in which they were made, as a pyarrow table.

        Args:
            kind: one of `kinds`.
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
        lines = [line for number in self._journal_numbers() for line in _read_journal(self._journal_path(number))]
        tables.append(self._as_table(kind, lines))
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
        """Take samples out of all parts; the first kind goes last, so after a kill it can be forgotten again."""
        if not ids:
            return
        parquet, compute, pyarrow = require("pyarrow.parquet"), require("pyarrow.compute"), require("pyarrow")
        self.compact()
        for kind in reversed(self.kinds):
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
            found = [path for kind in self.kinds for path in (self.folder / kind).glob("part-*.parquet")]
            parts = [int(path.stem.partition("-")[2]) for path in found]
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
        types = {
            "text": pyarrow.string(),
            "int": pyarrow.int64(),
            "float": pyarrow.float64(),
            "bool": pyarrow.bool_(),
            "list": pyarrow.list_(pyarrow.float32()),
            "ints": pyarrow.list_(pyarrow.int64()),
        }
        return pyarrow.schema([(name, types[type_]) for name, type_ in self.columns(kind).items()])

    def _as_table(self, kind: str, lines: Sequence[Line]) -> Any:
        rows = [row for line in lines for row in line.rows.get(kind, [])]
        return require("pyarrow").Table.from_pylist(rows, schema=self._schema(kind))

    def _write_part(self, kind: str, lines: Sequence[Line]) -> None:
        parquet, table = require("pyarrow.parquet"), self._as_table(kind, lines)
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


def _read_journal(path: Path) -> list[Line]:
    if not path.exists():
        return []
    lines = path.read_bytes()[: _whole_lines(path)].splitlines()
    try:
        return [Line(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise ValueError(f"out: {str(path)!r} is damaged ({error}); delete it to repeat its samples") from error
