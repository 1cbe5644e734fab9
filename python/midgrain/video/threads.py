"""How many cores a stage's thread takes for torch's own operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

__all__ = ["one_core"]


@contextmanager
def one_core() -> Iterator[None]:
    """Torch's operations in this thread run on one core; other threads keep theirs.

    `torch.set_num_threads` would also tell threads that have not begun yet. Every thread has a team of its own, which
    goes on waiting busily after each operation: that of a small stage would take the cores from the network's.

    Example:
        >>> import torch
        >>> from midgrain.video.threads import one_core
        >>> with one_core():
        ...     torch.get_num_threads()
        1
    """
    torch.get_num_threads()  # The first question in a thread sets its number, which must not happen later.
    with threadpool_limits(1, user_api="openmp"):
        yield
