"""What watches the user's own passes: one hook that remembers the last input."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

__all__ = ["Watcher"]


class Watcher:
    """Remembers a copy of the first argument of a model's last pass, where that is a tensor.

    The hook goes with the context, with `remove_hooks()`, or with the object itself, which it does not keep alive.

    Args:
        model: the network.
        watching: look at passes from the beginning.
    """

    def __init__(self, model: nn.Module, watching: bool):
        self._watching = watching
        self._seen: Tensor | None = None
        myself = weakref.ref(self)

        def remember(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            watcher = myself()
            if watcher is not None and watcher._watching and inputs:
                watcher._seen = inputs[0].detach().clone() if isinstance(inputs[0], Tensor) else None

        handle = model.register_forward_pre_hook(remember)
        self._remove = weakref.finalize(self, handle.remove)

    def last_input(self) -> Tensor:
        """The last input.

        Raises:
            AssertionError: there was none, or it was no tensor.
        """
        if self._seen is None:
            raise AssertionError("run the model on an input (one tensor) before its maps are asked for")
        return self._seen

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """Passes in this context are not looked at."""
        watching, self._watching = self._watching, False
        try:
            yield
        finally:
            self._watching = watching

    def enable_hooks(self) -> None:
        """Look at passes."""
        self._watching = True

    def disable_hooks(self) -> None:
        """Look at no passes."""
        self._watching = False

    def reset_hooks(self) -> None:
        """Forget the last input."""
        self._seen = None

    def remove_hooks(self) -> None:
        """Leave the model."""
        self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove_hooks()
        self.reset_hooks()
