"""When values are looked at that only a device knows: at once, or all of them together later."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DeferredChecks", "deferred_checks", "is_captured", "report"]


class DeferredChecks:
    """What was to be checked inside `deferred_checks`, not looked at yet."""

    def __init__(self) -> None:
        self._entries: list[tuple[Tensor, Callable[[list[int]], Exception]]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, bad: Tensor, error: Callable[[list[int]], Exception]) -> None:
        """See `report`."""
        self._entries.append((bad, error))

    def raise_if_bad(self) -> None:
        """Waits for the device once and raises the first error among the values as they are now.

        What was checked stays: after the replay of a CUDA graph, the same flags tell of the new values.

        Raises:
            ValueError: as the operation would have raised it.
        """
        for error, values in zip(
            (error for _, error in self._entries), _read([bad for bad, _ in self._entries]), strict=True
        ):
            if any(values):
                raise error(values)


_current: ContextVar[DeferredChecks | None] = ContextVar("midgrain_deferred_checks", default=None)


@contextmanager
def deferred_checks() -> Iterator[DeferredChecks]:
    """Operations on a CUDA device inside do not wait for it to find out about NaN or labels out of range.

    An operation checks values where they are: on a CUDA device, whose answer it has to wait for. Inside this context
    it only notes down what to look at; its results are of no meaning where something was wrong. Ask with
    `raise_if_bad()`, once, when the results are needed. On the CPU, kernels check as they go, always. While a CUDA
    graph is captured nothing can be asked either; use this context around the capture to ask after a replay.

    Yields:
        What is to be checked.

    Example:
        >>> import torch, midgrain as mg
        >>> device = "cuda" if mg.build_info()["cuda"]["usable"] else "cpu"
        >>> images = torch.rand(4, 3, 64, 64, device=device)
        >>> with mg.ops.deferred_checks() as checks:
        ...     labels, counts = mg.ops.slic_pictures(images, n_segments=20)
        >>> checks.raise_if_bad()
    """
    checks = DeferredChecks()
    token = _current.set(checks)
    try:
        yield checks
    finally:
        _current.reset(token)


def is_captured(tensor: Tensor) -> bool:
    """Is work on this tensor's device recorded for a CUDA graph, so that no value can be read?"""
    return tensor.is_cuda and sys.modules["torch"].cuda.is_current_stream_capturing()


def report(bad: Tensor, error: Callable[[list[int]], Exception]) -> None:
    """Raises what `error` makes of the flags unless all are 0: at once, or later inside `deferred_checks`.

    Args:
        bad: int32 or bool, 0 where all is well.
        error: from the flags, flattened, to the exception.
    """
    checks = _current.get()
    if checks is not None:
        checks.add(bad, error)
    elif not is_captured(bad):
        values = _read([bad])[0]
        if any(values):
            raise error(values)


def _read(flags: list[Tensor]) -> list[list[int]]:
    """The flags' values, in one transfer per device."""
    torch = sys.modules["torch"]
    values: list[list[int]] = [[] for _ in flags]
    by_device: dict[object, list[int]] = {}
    for i, bad in enumerate(flags):
        by_device.setdefault(bad.device, []).append(i)
    for numbers in by_device.values():
        flat = [flags[i].detach().reshape(-1).to(torch.int32) for i in numbers]
        numbers_read = torch.cat(flat).tolist() if len(flat) > 1 else flat[0].tolist()
        start = 0
        for i, part in zip(numbers, flat, strict=True):
            values[i] = numbers_read[start : start + len(part)]
            start += len(part)
    return values
