"""A Ray to work on: found or started, with room for so many workers, and quiet."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from typing import Any

__all__ = ["cluster", "places", "quiet", "without_deprecations"]


def places(nodes: list[dict[str, float]], workers: int | None, gpus: float | None) -> tuple[int, float, int]:
    """How many workers, with how many GPUs and threads each.

    Raises:
        ValueError: the cluster has not so much room.
    """
    cpus = sum(int(node.get("CPU", 0)) for node in nodes)
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    wanted = gpus

    def room(threads: int) -> int:
        return sum(
            min(int(node.get("CPU", 0)) // threads, int(node.get("GPU", 0) / wanted + 1e-9) if wanted else cpus)
            for node in nodes
        )

    having = f"the Ray cluster's {cpus} CPUs and {sum(node.get('GPU', 0) for node in nodes):g} GPUs have room for"
    if not room(1):
        raise ValueError(f"gpus_per_worker: expected what {having}, got {gpus:g}")
    if workers is None:
        workers = room(1)
    if workers > room(1):
        raise ValueError(f"workers: expected at most {room(1)}, which {having}, got {workers}")
    return workers, gpus, max(threads for threads in range(1, cpus + 1) if room(threads) >= workers)


@contextlib.contextmanager
def cluster(ray: Any, workers: int | None) -> Iterator[None]:
    """A Ray that is initialised; what was not there before is not there afterwards."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    address = os.environ.get("RAY_ADDRESS", "local")
    if address == "local":
        cpus = max(len(os.sched_getaffinity(0)), workers or 1)
        options |= {"num_cpus": cpus, "include_dashboard": False}
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with without_deprecations(), _unreported():
            host, _, port = address.rpartition("/")[2].rpartition(":")
            if port.isdecimal():
                # Ray itself waits for minutes, and may then end the process.
                socket.create_connection((host, int(port)), timeout=10.0).close()
            ray.init(address=address, **options)
    except Exception as error:
        done = "started" if address == "local" else f"reached at RAY_ADDRESS={address}"
        raise ConnectionError(f"engine: Ray could not be {done} ({error})") from error
    try:
        yield
    finally:
        ray.shutdown()
        if in_main_thread and handler is not None:
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _unreported() -> Iterator[None]:
    """What runs on this machine is not reported elsewhere, unless the user wants it so."""
    name = "RAY_USAGE_STATS_ENABLED"
    if name in os.environ:
        yield
        return
    os.environ[name] = "0"
    try:
        yield
    finally:
        os.environ.pop(name, None)


@contextlib.contextmanager
def quiet(ray: Any) -> Iterator[None]:
    """No bars and reports of Ray Data's own."""
    with without_deprecations():
        context = ray.data.DataContext.get_current()
    logger = logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)


@contextlib.contextmanager
def without_deprecations() -> Iterator[None]:
    """Ray warns of its own ways with itself, where warnings are errors it would not start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield
