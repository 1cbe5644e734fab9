"""Filling a table of filter statistics from a loader, in a way that can be stopped and continued."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from midgrain import driver
from midgrain.cams.layers import Layer
from midgrain.failures.class_table import ClassTable
from midgrain.failures.filters import FilterPass, FilterScorer
from midgrain.failures.statistics_file import read_statistics, write_statistics
from midgrain.files import check_writable_folder
from midgrain.identity import differences, fingerprint
from midgrain.network.batches import Consumed, LabelledBatch, labelled_batches
from midgrain.network.modules import find_module, model_device, module_name, unwrapped
from midgrain.progress import progress_bar

__all__ = ["Fitting"]

# A checkpoint is written after so many seconds, and so seldom that writing takes no more than a twentieth of the time.
_SECONDS_BETWEEN_WRITES = 60.0
_TIMES_A_WRITE = 20.0


class Fitting:
    """A fit that is under way.

    Args:
        model: see `FilterStatistics.fit`, as all that follow.
        measure: of filters.
        layer: of the network.
        after_norm: of the layer.
        output: of the network.
        seed: of "random".
        keep: extremes.
        memory: bytes.
        first_id: of images without ids.
        checkpoint: a file, or None.

    Raises:
        TypeError, ValueError: see `FilterStatistics.fit`.
    """

    def __init__(
        self,
        model: Any,
        *,
        measure: str,
        layer: Layer | None,
        after_norm: bool,
        output: str,
        seed: int,
        keep: int,
        memory: int,
        first_id: int,
        checkpoint: Path | None,
    ):
        driver.check_model(model)
        if not isinstance(measure, str):
            raise TypeError(f"measure: expected one name, got {type(measure).__name__}")
        self.model, self.network = model, unwrapped(model)
        self.scorer = FilterScorer(measure, layer=layer, after_norm=after_norm, output=output, seed=seed)
        self.measure, self.first_id, self.checkpoint = measure, first_id, checkpoint
        self.keep, self.memory = keep, memory
        #: What the statistics are of; the file says it too.
        self.settings: dict[str, Any] = {
            "model": fingerprint(self.network),
            "measure": measure,
            "asked_layer": _name_of(self.network, layer),
            "after_norm": after_norm,
            "output": output,
            "seed": seed,
            "keep": keep,
        }
        self.table: ClassTable | None = None
        self.done = Consumed()
        self.finished = False
        # Not while a batch is only half in the table.
        self._writable = True
        if checkpoint is not None:
            check_writable_folder(checkpoint.parent, "checkpoint")
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            if checkpoint.exists():
                self._go_on(checkpoint)

    def run(self, loader: Iterable[Any], progress: bool) -> tuple[dict[str, Any], ClassTable]:
        """Settings and table, once all batches are in it.

        Raises:
            TypeError, ValueError: see `FilterStatistics.fit`.
        """
        if not self.finished:
            before = self.done.batches
            try:
                self._read(loader, progress)
                self.finished = True
            finally:
                if self.table is not None and self._writable:
                    self.table.forget_names()
                    if self.checkpoint is not None and (self.finished or self.done.batches > before):
                        self._write(self.checkpoint)
        assert self.table is not None
        return self.settings, self.table

    def _read(self, loader: Iterable[Any], progress: bool) -> None:
        total = len(loader) if isinstance(loader, Sized) else None
        device = model_device(self.model)
        done = Consumed(**vars(self.done)) if self.done.batches else None
        last, pause = time.monotonic(), _SECONDS_BETWEEN_WRITES
        with progress_bar("filter statistics", total, shown=progress) as advance:
            advance(self.done.batches)
            for batch in labelled_batches(loader, device, done):
                self._add(batch, self.scorer(self.model, batch.x, batch.y.to(batch.x.device)))
                advance(1)
                if self.checkpoint is not None and time.monotonic() - last > pause:
                    start = time.monotonic()
                    self._write(self.checkpoint)
                    last = time.monotonic()
                    pause = max(_SECONDS_BETWEEN_WRITES, _TIMES_A_WRITE * (last - start))

    def _add(self, batch: LabelledBatch, found: FilterPass) -> None:
        scores = found.scores[self.measure].cpu().numpy()
        if not np.isfinite(scores).all():
            wrong = np.flatnonzero(~np.isfinite(scores).all(1)).tolist()
            raise ValueError(
                f"model: the filters' scores of sample(s) {wrong} of batch {self.done.batches} are NaN or infinite; "
                "half precision is the usual cause"
            )
        assert found.outputs is not None
        shape = {"classes": found.outputs.shape[1], "filters": scores.shape[1], "layer": found.layer}
        if self.table is None:
            self.settings |= shape
            self.table = ClassTable(shape["classes"], shape["filters"], self.keep, self.memory)
        changed = differences({name: self.settings[name] for name in shape}, shape)
        if changed:
            raise ValueError(f"loader: in batch {self.done.batches} {'; '.join(changed)}")
        images = self._numbers(batch, self.table)
        self._writable = False
        self.table.add(batch.y.numpy(), scores, images)
        self.done.add(batch)
        self._writable = True

    def _numbers(self, batch: LabelledBatch, table: ClassTable) -> np.ndarray:
        """The images' numbers."""
        texts = batch.ids is not None and isinstance(batch.ids[0], str)
        kind = "texts" if texts else "numbers" if batch.ids is not None else "none"
        if self.settings.setdefault("ids", kind) != kind:
            raise ValueError(f"loader: ids were {self.settings['ids']} and are {kind} in batch {self.done.batches}")
        running = np.arange(self.done.samples, self.done.samples + len(batch.y), dtype=np.int64)
        if batch.ids is None:
            numbers = running + self.first_id
            table.numbered = [(self.first_id, int(numbers[-1]))]
            return numbers
        if texts:
            table.names = {} if table.names is None else table.names
            table.names.update(zip(running.tolist(), map(str, batch.ids), strict=True))
            return running
        numbers = np.array(batch.ids, np.int64)
        if numbers.min() < 0:
            raise ValueError(f"loader: expected ids from 0 on, got {numbers.min()} in batch {self.done.batches}")
        return numbers

    def _write(self, path: Path) -> None:
        assert self.table is not None
        done = None if self.finished else {**vars(self.done), "first_id": self.first_id}
        write_statistics(path, {**self.settings, "done": done}, self.table)

    def _go_on(self, path: Path) -> None:
        try:
            about, table = read_statistics(path)
        except ValueError as error:
            raise ValueError(f"checkpoint: {error}") from error
        asked = {name: about.get(name) for name in self.settings}
        done = about.pop("done")
        changed = differences(asked, self.settings)
        if done is not None and done.pop("first_id") != self.first_id:
            changed.append("first_id is another")
        if changed:
            raise ValueError(
                f"checkpoint: {str(path)!r} is of a fit with other arguments ({'; '.join(changed)}); choose another "
                "file"
            )
        self.settings, self.table, self.finished = about, table, done is None
        table.memory = self.memory
        self.done = Consumed() if done is None else Consumed(**done)


def _name_of(network: nn.Module, layer: Layer | None) -> str | None:
    return None if layer is None else module_name(network, find_module(network, layer))
