"""`midgrain compare`: one photograph, several methods, one picture of them all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from midgrain.cli import shared
from midgrain.cli.explaining import class_entry, explain_picture, ranking, save_figure
from midgrain.cli.options import (
    Wishes,
    check_alpha,
    check_methods,
    class_number,
    load_network,
)
from midgrain.cli.output import complain, console, print_json, say, with_progress
from midgrain.files import check_writable_folder

if TYPE_CHECKING:
    from midgrain.explanation import Explanation

__all__ = ["compare"]

_USUAL = ("gradcam", "gradcam++", "layercam", "jittercam", "swag-ig", "guided")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")


def compare(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A photograph.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=f"The file to write: {', '.join(_SUFFIXES)}.")] = Path(
        "comparison.png"
    ),
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="See 'midgrain methods'; may be given several times. By default six usual ones."),
    ] = None,
    model: shared.Model = "demo",
    target: shared.Target = None,
    layer: shared.Layer = None,
    n_segments: shared.Segments = None,
    option: shared.MethodOptions = None,
    alpha: shared.Alpha = 0.5,
    contours: shared.Contours = True,
    size: shared.Size = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    device: shared.Device = "auto",
    allow_pickle: shared.AllowPickle = False,
    as_json: shared.Json = False,
) -> None:
    """Draw what several methods say about one photograph side by side."""
    from midgrain.pictures import Preprocess, open_picture
    from midgrain.plots import plot_comparison

    names = _names(method)
    check_alpha(alpha)
    wishes = Wishes.of(option, names, n_segments=n_segments, layer=layer)
    _check_output(output)
    picture = open_picture(photo)
    loaded = load_network(model, device, size, mean, std, layer, allow_pickle=allow_pickle)
    if not isinstance(loaded.preprocess, Preprocess):
        raise ValueError(f"model: expected one for pictures, and {model} takes clips; midgrain explain draws these")
    # The class is the same for all methods; this pass also loads what torch loads lazily, outside of their times.
    seen, shown = explain_picture(picture, loaded, "centre", class_number(target, loaded), device)
    explained = class_entry(seen, loaded)
    made: dict[str, Explanation] = {}
    seconds: dict[str, float] = {}
    for name in with_progress(names, silent=as_json):
        options = wishes.options(name)
        started = time.perf_counter()
        try:
            made[name], _ = explain_picture(picture, loaded, name, explained.index, device, **options)
        except (ValueError, TypeError) as error:
            # What nobody asked for by name is left out where the network does not suit it.
            if method or options:
                raise
            complain(f"{name} left out: {error}")
        seconds[name] = time.perf_counter() - started
    if not made:
        raise ValueError(f"method: none of {', '.join(names)} suits this network; see 'midgrain methods'")
    overlays = {name: each.overlay(image=shown, alpha=alpha, contours=contours) for name, each in made.items()}
    title = f"{explained.label} ({explained.probability:.1%})"
    save_figure(plot_comparison(shown, overlays, title), output)
    if as_json:
        print_json(
            {
                "picture": str(photo),
                "output": str(output),
                "target": vars(explained),
                "top5": [vars(entry) for entry in ranking(seen, loaded)],
                "methods": [{"method": name, "seconds": seconds[name]} for name in made],
            }
        )
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("method")
    table.add_column("seconds, first run", justify="right")
    for name in made:
        table.add_row(name, f"{seconds[name]:.2f}")
    console.print(table)
    say(f"{photo}: {title} -> {output}")


def _names(given: Sequence[str] | None) -> list[str]:
    from midgrain.registry import methods

    if not given:
        return [name for name in _USUAL if name in methods()]
    check_methods(given)
    return list(dict.fromkeys(given))


def _check_output(output: Path) -> None:
    if output.suffix.lower() not in _SUFFIXES or output.is_dir():
        raise ValueError(f"output: expected a file ending in {', '.join(_SUFFIXES)}, got {str(output)!r}")
    check_writable_folder(output.parent, "output")
