"""What the command prints: text for people, JSON for programs, one line for errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, TypeVar

from rich.console import Console

from midgrain.files import encodable

__all__ = ["complain", "console", "errors", "fail", "fail_if", "print_json", "say", "with_progress"]

console = Console()
errors = Console(stderr=True)
_Item = TypeVar("_Item")


def say(line: str) -> None:
    """A line on stdout as it is: names of files may look like markup, or be no UTF-8."""
    console.print(encodable(line), highlight=False, markup=False, soft_wrap=True)


def complain(line: str) -> None:
    """Likewise on stderr, after the program's name."""
    errors.print(f"midgrain: {encodable(line)}", highlight=False, markup=False, soft_wrap=True)


def fail(message: str, code: int = 2) -> NoReturn:
    """One line on stderr, then the end."""
    sys.stderr.write("midgrain: " + encodable(" ".join(message.split())) + "\n")
    sys.exit(code)


def fail_if(failed: Sequence[str], of: int, what: str) -> None:
    """Where something failed: one line on stderr for each, one that counts them, then the end."""
    if failed:
        for line in failed:
            complain(line)
        fail(f"{len(failed)} of {of} {what} failed")


def print_json(value: Any) -> None:
    """Machine-readable output, nothing else on stdout."""
    sys.stdout.write(encodable(json.dumps(value, indent=2, ensure_ascii=False)) + "\n")


def with_progress(items: Sequence[_Item], *, silent: bool) -> Iterable[_Item]:
    """The items, with a bar on stderr that says how many are explained; none where that is a file or `silent`.

    Nor for one item alone: methods that take long have a bar of their own.
    """
    from rich.progress import track

    silent = silent or len(items) == 1 or not errors.is_terminal
    return track(items, description="explaining", console=errors, transient=True, disable=silent)
