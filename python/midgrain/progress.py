"""A progress bar on stderr for what takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(description: str, total: int | None, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields `advance(steps)`; the bar is gone at the end, also after an exception.

    Args:
        description: what is going on.
        total: steps until the end; None where that is not known.
        shown: False draws nothing; nor is anything drawn where stderr is a file.
    """
    if not shown:
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    drawn = console.is_terminal or console.is_jupyter
    with Progress(console=console, transient=True, disable=not drawn) as bar:
        task = bar.add_task(description, total=total)
        yield lambda steps: bar.advance(task, steps)
