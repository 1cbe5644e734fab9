"""The commands; each lives in a file of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from midgrain.cli.bench import bench
from midgrain.cli.compare import compare
from midgrain.cli.demo import demo
from midgrain.cli.evaluate import evaluate
from midgrain.cli.explain import explain
from midgrain.cli.failures import failures
from midgrain.cli.info import info, list_methods
from midgrain.cli.live import live
from midgrain.cli.reproduce import reproduce
from midgrain.cli.video import video

__all__ = ["app"]

app = typer.Typer(
    name="midgrain",
    help="Which regions made the network say that?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(explain)
app.command()(compare)
app.command()(video)
app.command()(live)
app.command()(evaluate)
app.command()(reproduce)
app.add_typer(failures)
app.command("methods")(list_methods)
app.command()(info)
app.command()(bench)


def _print_version(value: bool) -> None:
    if value:
        from midgrain import __version__

        typer.echo(f"midgrain {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fast, region-based visual explanations of PyTorch image and video models."""
