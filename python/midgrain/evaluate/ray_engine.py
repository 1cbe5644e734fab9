"""The work on samples as a Ray Data pipeline: actors on one machine or on many.

The samples go through the pipeline in windows, so that neither a long data set nor an endless one has to be in memory.
A window is read here; its samples are sent one by one to actors, which got the plan once, and the records come back as
they are made, in any order. Ray Data starts a new process for an actor that died and does what it was at again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from midgrain.evaluate.datasets import Entry
from midgrain.evaluate.ray_cluster import cluster, places, quiet, without_deprecations
from midgrain.evaluate.store import require
from midgrain.evaluate.work import Plan, Record, evaluate_sample

__all__ = ["RayEngine"]

# A window ends after so many samples, so many bytes of them, or so many seconds of reading them.
_WINDOW_SAMPLES, _WINDOW_BYTES, _WINDOW_SECONDS = 4096, 2**29, 10.0
# So many processes may die of one sample, or one after another of the plan.
_DEATHS = 3
# One sample waits at each actor while another is worked on.
_IN_FLIGHT = 2
_SHARED = "shared"


@dataclass(frozen=True)
class RayEngine:
    """Runs `evaluate_sample` in Ray's actors.

    A Ray that is initialised is used and stays; otherwise the cluster that `RAY_ADDRESS` names; otherwise one on this
    machine is started and shut down at the end.

    Attributes:
        workers: actors; None means one for each CPU of the cluster, or where it has GPUs as many as these take.
        gpus_per_worker: GPUs of each, also a part of one; the network goes there. None means 1 where the cluster has
            GPUs, otherwise 0.

    Raises:
        ModuleNotFoundError: Ray is not installed.
    """

    workers: int | None = None
    gpus_per_worker: float | None = None
    _ray: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        with without_deprecations():
            object.__setattr__(self, "_ray", require("ray", "ray"))
            require("ray.data", "ray")

    def records(self, todo: Iterable[tuple[Entry, bool]], plan: Plan, shared: Any) -> Generator[Record]:
        """The record of each sample, in the order in which they are finished.

        Args:
            todo: samples, and whether to draw them; read window by window.
            plan: what to do with each.
            shared: what the samples' readers have in common, or None; it is sent once.

        Raises:
            ConnectionError: no cluster answers at `RAY_ADDRESS`, or none can be started here.
            TypeError: the network, an explainer or the data set cannot be pickled.
            ValueError: the cluster has no room for the workers.
            RuntimeError: the plan cannot be used there.
            Exception: whatever `evaluate_sample` or reading the data set raises.
        """
        windows = _windows(todo, shared, self._ray)
        first = next(windows, None)
        if first is None:
            return
        plan_bytes = _dumps(plan, self._ray, "model, explainers, preprocess")
        shared_bytes = None if shared is None else _dumps(shared, self._ray, "dataset")
        with cluster(self._ray, self.workers), quiet(self._ray):
            pipeline = _Pipeline(self._ray, self.workers, self.gpus_per_worker, plan_bytes, shared_bytes)
            window: _Window | None = first
            while window is not None:
                yield from window.failed
                with contextlib.closing(pipeline.run(window.rows)) as records:
                    yield from records
                if window.error is not None:
                    raise window.error
                window = next(windows, None)


@dataclass
class _Window:
    """Samples that go through the pipeline together."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    #: Of samples that cannot even be sent.
    failed: list[Record] = field(default_factory=list)
    #: What reading the data set ended with, once the samples before are done.
    error: Exception | None = None


def _windows(todo: Iterable[tuple[Entry, bool]], shared: Any, ray: Any) -> Iterator[_Window]:
    pairs = iter(todo)
    while True:
        window, size, start = _Window(), 0, time.monotonic()
        while len(window.rows) < _WINDOW_SAMPLES and size < _WINDOW_BYTES:
            try:
                entry, example = next(pairs)
            except StopIteration:
                break
            except Exception as error:
                window.error = error
                break
            try:
                content = _pickled(entry, ray, shared)
            except Exception as error:  # A picture that is only read now, and broken.
                text = f"{type(error).__name__}: {' '.join(str(error).split())}"
                window.failed.append(Record(entry.id, [], [{"id": entry.id, "stage": "read", "error": text}]))
                continue
            window.rows.append({"id": entry.id, "entry": content, "example": example})
            size += len(content)
            if time.monotonic() - start > _WINDOW_SECONDS:
                break
        if not window.rows and not window.failed and window.error is None:
            return
        yield window


class _Pipeline:
    """The same actors' settings for every window."""

    def __init__(self, ray: Any, workers: int | None, gpus: float | None, plan: bytes, shared: bytes | None):
        self._ray = ray
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._workers, self._gpus, self._threads = places(nodes, workers, gpus)
        # Relative paths of pictures, and modules beside the script, are found from here only.
        self._path = [os.getcwd(), *(str(Path(each).absolute()) for each in sys.path)]
        # They stay here: a process that takes over from one that died reads them again.
        self._stored = [ray.put(plan), None if shared is None else ray.put(shared)]

    def run(self, rows: list[dict[str, Any]]) -> Generator[Record]:
        """The records of a window; whoever stops early closes it, and its actors end."""
        if not rows:
            return
        ray = self._ray
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        ledger = ray.remote(_Ledger).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
        workers = min(self._workers, len(rows))
        with without_deprecations():
            samples = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                _Worker,
                fn_constructor_args=(
                    self._stored,
                    ledger.remote(),
                    self._path,
                    workers,
                    self._threads,
                    self._gpus > 0,
                ),
                compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=_IN_FLIGHT),
                num_cpus=self._threads,
                num_gpus=self._gpus or None,
            )
            batches = iter(samples.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"))
        seen: set[str] = set()
        try:
            for batch in batches:
                for row in batch.to_pylist():
                    if row["failure"] is not None:
                        raise pickle.loads(row["failure"])
                    record = Record(**json.loads(row["record"]))
                    if record.id not in seen:
                        seen.add(record.id)
                        yield record
        finally:
            # Otherwise its threads go on until the garbage collector finds them.
            batches.close()


class _Worker:
    """An actor: the plan, and what to do with a sample. It raises nothing, so that Ray tries nothing again."""

    def __init__(self, stored: list[Any], ledger: Any, path: list[str], workers: int, threads: int, on_gpu: bool):
        """What it cannot be made of it says with the first sample: Ray would start it again and again."""
        self._ledger = ledger
        self._failure: Exception | None = None
        try:
            folder, *places = path
            if Path(folder).is_dir():
                os.chdir(folder)
            sys.path.extend(each for each in places if each not in sys.path)
            self._load(stored, workers, threads, on_gpu)
        except Exception as error:
            self._failure = RuntimeError(
                f"engine: the network and the explainers cannot be used by a worker ({type(error).__name__}: {error}); "
                "it needs the same packages and modules as this process"
            )

    def _load(self, stored: list[Any], workers: int, threads: int, on_gpu: bool) -> None:
        ray = require("ray", "ray")
        torch.set_num_threads(threads)
        if ray.get(self._ledger.begin.remote(None)) > _DEATHS * workers:
            raise MemoryError("every process died while it read them")
        plan, shared = stored
        self._plan: Plan = pickle.loads(ray.get(plan))
        self._shared = None if shared is None else pickle.loads(ray.get(shared))
        if on_gpu:
            # Measures may bring a second network.
            for each in (self._plan.model, *(v for one in self._plan.measures for v in one.options.values())):
                if isinstance(each, nn.Module):
                    each.to("cuda")
        ray.get(self._ledger.end.remote(None))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """From a row of a window to the record or the failure that ends the run."""
        ray = require("ray", "ray")
        if self._failure is not None:
            return _outcome(self._failure)
        name = row["id"]
        died = ray.get(self._ledger.begin.remote(name))
        try:
            if died >= _DEATHS:
                text = f"the process that worked on it died {died} times; memory is the usual cause"
                return _outcome(Record(name, [], [{"id": name, "stage": "worker", "error": text}]))
            entry = _unpickled(row["entry"], self._shared)
            return _outcome(evaluate_sample(entry, self._plan, example=row["example"]))
        except Exception as error:
            return _outcome(error)
        finally:
            self._ledger.end.remote(name)


class _Ledger:
    """An actor that remembers what was begun and not ended: what its process died of."""

    def __init__(self) -> None:
        self._begun: dict[str | None, int] = {}

    def begin(self, name: str | None) -> int:
        """How often it was begun before."""
        before = self._begun.get(name, 0)
        self._begun[name] = before + 1
        return before

    def end(self, name: str | None) -> None:
        """It was survived."""
        self._begun.pop(name, None)


def _outcome(found: Record | Exception) -> dict[str, Any]:
    if isinstance(found, Record):
        return {"record": json.dumps(vars(found)), "failure": None}
    try:
        content = pickle.dumps(found)
        pickle.loads(content)
    except Exception:  # Not every exception can be sent.
        content = pickle.dumps(RuntimeError(f"{type(found).__name__}: {found}"))
    return {"record": None, "failure": content}


def _dumps(found: Any, ray: Any, name: str) -> bytes:
    try:
        return _pickled(found, ray)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise TypeError(f"{name}: expected what can be sent to workers, got what cannot be pickled ({text})") from error


def _pickled(found: Any, ray: Any, shared: Any = None) -> bytes:
    """With lambdas and local classes, tensors of other devices on the CPU, and `shared` as a mark."""

    class Pickler(ray.cloudpickle.Pickler):  # type: ignore[misc]
        def persistent_id(self, each: Any) -> str | None:
            return _SHARED if shared is not None and each is shared else None

        def reducer_override(self, each: Any) -> Any:
            if isinstance(each, Tensor) and each.device.type not in ("cpu", "meta"):
                plain = each.detach().cpu()
                return (
                    (nn.Parameter, (plain, each.requires_grad)) if isinstance(each, nn.Parameter) else (_same, (plain,))
                )
            return super().reducer_override(each)

    file = io.BytesIO()
    Pickler(file).dump(found)
    return file.getvalue()


def _same(value: Any) -> Any:
    return value


def _unpickled(content: bytes, shared: Any) -> Any:
    class Unpickler(pickle.Unpickler):
        def persistent_load(self, mark: Any) -> Any:
            return shared

    return Unpickler(io.BytesIO(content)).load()
