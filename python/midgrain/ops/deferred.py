"""When values are looked at that only a device knows: at once, or all of them together later."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "DeferredChecks",
    "can_read",
    "deferred_checks",
    "deferred_on_device",
    "is_captured",
    "numbers_of",
    "report",
    "static_sizes",
]

# Flags kept by `deferred_on_device` at most, so that a long run hears of its first mistake.
_KEPT = 64


class DeferredChecks:
    """What was to be checked inside `deferred_checks`, not looked at yet."""

    def __init__(self) -> None:
        self._entries: list[tuple[Tensor, Callable[[list[int]], Exception]]] = []
        self._gathered: Tensor | None = None
        #: Flags kept at most; then they are looked at, and those without fault forgotten. None keeps all.
        self.most: int | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, bad: Tensor, error: Callable[[list[int]], Exception]) -> None:
        """See `report`."""
        self._entries.append((bad, error))
        if self.most is not None and len(self._entries) > self.most and not is_captured(bad):
            self.raise_if_bad()
            self._entries.clear()

    def raise_if_bad(self) -> None:
        """Waits for the device once and raises the first error among the values as they are now.

        What was checked stays: after the replay of a CUDA graph, the same flags tell of the new values.

        Raises:
            ValueError: as the operation would have raised it.
        """
        flags = [bad for bad, _ in self._entries]
        read = _read(flags) if self._gathered is None else _split(self._gathered.tolist(), flags)
        for (_, error), values in zip(self._entries, read, strict=True):
            if any(values):
                raise error(values)

    def gather(self) -> None:
        """Puts all flags, of one device, into one place, from which they are read from now on.

        Part of a recorded CUDA graph, this is done anew with each replay, which leaves one transfer to do.
        """
        if self._entries:
            self._gathered = sys.modules["torch"].cat([_flat(bad) for bad, _ in self._entries])


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


@contextmanager
def deferred_on_device(x: object) -> Iterator[None]:
    """For a call whose input lies on a CUDA device: what it checks is looked at together when the call ends.

    Where it fails before that, values that were wrong come first: they are the likely cause. Inside another
    `deferred_checks`, and for an input on the CPU, nothing changes.
    """
    if not getattr(x, "is_cuda", False) or _current.get() is not None:
        yield
        return
    with deferred_checks() as checks:
        checks.most = _KEPT
        try:
            yield
        except Exception:
            checks.raise_if_bad()
            raise
        checks.raise_if_bad()


_static_sizes: ContextVar[bool] = ContextVar("midgrain_static_sizes", default=False)


@contextmanager
def static_sizes() -> Iterator[None]:
    """Inside, `is_captured` says yes: sizes that depend on values are replaced by what is known of them beforehand."""
    token = _static_sizes.set(True)
    try:
        yield
    finally:
        _static_sizes.reset(token)


def is_captured(tensor: Tensor) -> bool:
    """Is work on this tensor's device recorded for a CUDA graph, so that no value can be read?"""
    return _static_sizes.get() or (tensor.is_cuda and sys.modules["torch"].cuda.is_current_stream_capturing())


def can_read(tensor: Tensor) -> bool:
    """Are values of this tensor to be looked at now, and without waiting for a device?"""
    return not tensor.is_cuda and _current.get() is None


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


def numbers_of(bad: list[int]) -> list[int]:
    """Which of the flags are set."""
    return [i for i, is_bad in enumerate(bad) if is_bad]


def _read(flags: list[Tensor]) -> list[list[int]]:
    """The flags' values, in one transfer per device."""
    torch = sys.modules["torch"]
    values: list[list[int]] = [[] for _ in flags]
    by_device: dict[object, list[int]] = {}
    for i, bad in enumerate(flags):
        by_device.setdefault(bad.device, []).append(i)
    for numbers in by_device.values():
        flat = [_flat(flags[i]) for i in numbers]
        together = torch.cat(flat).tolist() if len(flat) > 1 else flat[0].tolist()
        for i, part in zip(numbers, _split(together, flat), strict=True):
            values[i] = part
    return values


def _flat(bad: Tensor) -> Tensor:
    return bad.detach().reshape(-1).to(sys.modules["torch"].int32)


def _split(values: list[int], flags: list[Tensor]) -> list[list[int]]:
    """Values that stand one after another, for each of the flags its own."""
    ends = list(itertools.accumulate(bad.numel() for bad in flags))
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]
