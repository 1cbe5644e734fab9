"""A progress bar on stderr for what takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(
    description: str, total: int | None, *, shown: bool, unit: str | None = None
) -> Iterator[Callable[[int], None]]:
    """Yields `advance(steps)`; the bar is gone at the end, also after an exception.

    Args:
        description: what is going on.
        total: steps until the end; None where that is not known.
        shown: False draws nothing; nor is anything drawn where stderr is a file.
        unit: what the steps are; then it is said how many are done per second.
    """
    if not shown:
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    drawn = console.is_terminal or console.is_jupyter
    columns = [*Progress.get_default_columns()]
    if unit is not None:
        columns.append(TextColumn("{task.fields[speed]}"))
    with Progress(*columns, console=console, transient=True, disable=not drawn) as bar:
        task = bar.add_task(description, total=total, speed="")

        def advance(steps: int) -> None:
            bar.advance(task, steps)
            speed = bar.tasks[0].speed
            if unit is not None and speed is not None:
                bar.update(task, speed=f"{speed:.1f} {unit}/s")

        yield advance
