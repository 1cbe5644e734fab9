"""How much of a thread's time networks take, and how much is our own."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["network_pass", "network_seconds"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Spent(threading.local):
    seconds = 0.0
    inside = False


_spent = _Spent()


def network_seconds() -> float:
    """Seconds that this thread has waited for networks so far, forward and backward passes.

    Example:
        >>> from midgrain.stopwatch import network_pass, network_seconds
        >>> before = network_seconds()
        >>> network_pass(sum)([1, 2])
        3
        >>> network_seconds() > before
        True
    """
    return _spent.seconds


def network_pass(function: _Function) -> _Function:
    """Decorates what runs a network. On a GPU only the time until its work is queued counts."""

    @functools.wraps(function)
    def timed(*arguments: Any, **named: Any) -> Any:
        if _spent.inside:
            return function(*arguments, **named)
        _spent.inside, start = True, time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            _spent.seconds += time.perf_counter() - start
            _spent.inside = False

    return timed  # type: ignore[return-value]
