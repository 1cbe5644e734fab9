"""Bounded queues between the stages of a stream."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Aborted", "Channel", "Ending"]

Item = TypeVar("Item")


class Aborted(Exception):  # noqa: N818 - no error for the user: another stage has failed, and that one's is told
    """The stream is being torn down; what is under way no longer matters."""


class Ending:
    """What two threads share, until the one that fills it has finished or the stream is aborted.

    `_changed` guards it, and is notified of every change.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._finished = False
        self._aborted = False

    def finish(self) -> None:
        """Nothing more comes; what waits is still handed over."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Let go whoever waits."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()


class Channel(Ending, Generic[Item]):
    """Items from one thread to another, in order.

    Args:
        size: items that wait at most, 1 or more.
        newest: where it is full, the oldest item makes room; otherwise the thread that puts waits.

    Example:
        >>> from midgrain.video.channels import Channel
        >>> channel = Channel(2, newest=True)
        >>> [channel.put(number) for number in range(4)]
        [[], [], [0], [1]]
        >>> channel.finish()
        >>> list(channel)
        [2, 3]
    """

    def __init__(self, size: int, *, newest: bool = False):
        super().__init__()
        self._size = size
        self._newest = newest
        self._items: deque[Item] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> list[Item]:
        """Hand an item over; returns those that made room for it.

        Raises:
            Aborted: nobody wants it any more.
        """
        with self._changed:
            if not self._newest:
                self._changed.wait_for(lambda: len(self._items) < self._size or self._aborted)
            if self._aborted:
                raise Aborted
            left_out = [self._items.popleft()] if len(self._items) >= self._size else []
            self._items.append(item)
            self._changed.notify_all()
            return left_out

    def __iter__(self) -> Iterator[Item]:
        """The items until the channel is finished; waits for each.

        Raises:
            Aborted: there is no use in going on.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._finished or self._aborted)
                if self._aborted:
                    raise Aborted
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item

    def abort(self) -> None:
        """Wake up both sides with `Aborted`, and let go of what waits."""
        with self._changed:
            self._items.clear()
            super().abort()
