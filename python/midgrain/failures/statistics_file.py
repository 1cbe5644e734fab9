"""Filter statistics in a file: a NumPy archive (.npz) without pickled objects, with JSON about what is in it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from midgrain.failures.class_statistics import ClassStatistics
from midgrain.failures.class_table import ClassTable
from midgrain.failures.quantiles import Sketches, Values
from midgrain.files import write_whole

# Of the table, in the JSON.
_OF_TABLE = ("memory", "between", "sketch_size", "numbered")

__all__ = ["FORMAT", "read_statistics", "write_statistics"]

#: What the file says it is; the number goes up when older readers would not understand it.
FORMAT = "midgrain filter statistics 1"


def write_statistics(path: Path, about: Mapping[str, Any], table: ClassTable) -> None:
    """Write it whole or not at all, array by array, so that nothing is in memory twice.

    In the archive, for S classes that have images, K filters and t extremes: `about` (JSON), `classes` int64 [S],
    `counts` int64 [S], `sums` float64 [S, 4, K] (sum and its rest, sum of squares and its rest), `high` float32
    [S, K, t], `high_images` int64 [S, K, t], `low` float32 [S, K, t], and for each class C `values_C` float32 [n, K],
    or `sketches_C` bytes with `sketch_ends_C` int64 [K].
    """

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, make in _arrays(about, table):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, make(), allow_pickle=False)

    write_whole(path, write)


def read_statistics(path: Path) -> tuple[dict[str, Any], ClassTable]:
    """What `write_statistics` wrote.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: something else, or of another version.
        ModuleNotFoundError: it holds sketches, and the datasketches package is not installed.
    """
    if not path.exists():
        raise FileNotFoundError(f"path: there is no file {str(path)!r}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            if about["format"] != FORMAT:
                raise ValueError(f"it says {about['format']!r} and not {FORMAT!r}")
            del about["format"]
            return about, _table(arrays, about, about.pop("table"))
    except (ValueError, KeyError, TypeError, IndexError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"path: expected filter statistics saved by this version of midgrain, got {str(path)!r} ({error})"
        ) from error


def _arrays(about: Mapping[str, Any], table: ClassTable) -> Iterator[tuple[str, Callable[[], npt.NDArray[Any]]]]:
    classes = table.by_class
    numbers = sorted(classes)
    inside = {name: getattr(table, name) for name in _OF_TABLE}
    inside["names"] = None if table.names is None else list(table.names.items())
    parts: dict[str, Callable[[ClassStatistics], npt.NDArray[Any]]] = {
        "sums": lambda each: each.sums.parts,
        "high": lambda each: each.high,
        "high_images": lambda each: each.high_images,
        "low": lambda each: each.low,
    }
    yield "about", lambda: np.array(json.dumps({"format": FORMAT, **about, "table": inside}))
    yield "classes", lambda: np.array(numbers, np.int64)
    yield "counts", lambda: np.array([classes[number].count for number in numbers], np.int64)
    for name, part in parts.items():
        yield name, lambda part=part: np.stack([part(classes[number]) for number in numbers])  # type: ignore[misc]
    for number in numbers:
        between = classes[number].between
        if isinstance(between, Values):
            yield f"values_{number}", between.rows
        elif isinstance(between, Sketches):
            kept = between.serialised()
            yield f"sketches_{number}", lambda kept=kept: np.frombuffer(b"".join(kept), np.uint8)  # type: ignore[misc]
            yield f"sketch_ends_{number}", lambda kept=kept: np.cumsum([len(each) for each in kept])  # type: ignore[misc]


def _table(arrays: Any, about: Mapping[str, Any], inside: Mapping[str, Any]) -> ClassTable:
    filters, keep = about["filters"], about["keep"]
    table = ClassTable(about["classes"], filters, keep, inside["memory"])
    table.between, table.sketch_size = inside["between"], inside["sketch_size"]
    table.numbered = [(first, last) for first, last in inside["numbered"]]
    table.names = None if inside["names"] is None else {int(number): str(name) for number, name in inside["names"]}
    whole = {name: arrays[name] for name in ("classes", "counts", "sums", "high", "high_images", "low")}
    expected = {"sums": (4, filters), "high": (filters, keep), "high_images": (filters, keep), "low": (filters, keep)}
    for name, shape in expected.items():
        if whole[name].shape != (len(whole["classes"]), *shape):
            raise ValueError(f"{name} has the shape {list(whole[name].shape)}")
    for place, number in enumerate(whole["classes"].tolist()):
        made = table.by_class[number] = ClassStatistics(filters, keep)
        made.sums.count = int(whole["counts"][place])
        made.sums.parts = whole["sums"][place].copy()
        made.high, made.low = whole["high"][place].copy(), whole["low"][place].copy()
        made.high_images = whole["high_images"][place].copy()
        made.between = _between(arrays, table, number, made.count)
    return table


def _between(arrays: Any, table: ClassTable, number: int, count: int) -> Values | Sketches | None:
    if table.between == "values":
        values, rows = Values(table.filters), arrays[f"values_{number}"]
        if rows.shape != (count, table.filters) or rows.dtype != np.float32:
            raise ValueError(f"values_{number} has the shape {list(rows.shape)}")
        values.add(rows)
        return values
    if table.sketch_size is None:
        return None
    raw, ends = arrays[f"sketches_{number}"].tobytes(), arrays[f"sketch_ends_{number}"].tolist()
    kept = [raw[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return Sketches(table.filters, table.sketch_size, kept)
