"""The `midgrain` command."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line: exit code 0, or 2 and one sentence for bad input."""
    from midgrain.cli.app import app
    from midgrain.cli.output import fail
    from midgrain.errors import BackendUnavailableError

    try:
        code = app(standalone_mode=False)
    except (
        ValueError,
        TypeError,
        IndexError,
        OSError,
        ModuleNotFoundError,
        BufferError,
        BackendUnavailableError,
    ) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except Exception as error:  # Typer brings its own copy of click, so its exceptions are known by their form.
        if type(error).__name__ == "Abort":
            fail("interrupted", code=130)
        if not hasattr(error, "format_message"):
            raise
        if not error.format_message():  # The help was printed instead.
            sys.exit(2)
        fail(error.format_message(), code=getattr(error, "exit_code", 2))
    sys.exit(code if isinstance(code, int) else 0)
