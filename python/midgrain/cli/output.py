"""What the command prints: text for people, JSON for programs, one line for errors."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

from rich.console import Console

__all__ = ["console", "errors", "fail", "print_json"]

console = Console()
errors = Console(stderr=True)


def fail(message: str, code: int = 2) -> NoReturn:
    """One line on stderr, then the end."""
    sys.stderr.write("midgrain: " + " ".join(message.split()) + "\n")
    sys.exit(code)


def print_json(value: Any) -> None:
    """Machine-readable output, nothing else on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
