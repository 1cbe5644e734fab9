"""`midgrain demo`: a real photograph, a real ImageNet network, three explanations."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from midgrain.cli.explaining import explain_picture, ranking, save_figure, save_picture
from midgrain.cli.output import console, say
from midgrain.files import check_writable_folder

__all__ = ["demo"]

_PANELS = {"swag-i": "swag-i: picture", "swag-ig": "swag-ig: picture + gradient", "swag-g": "swag-g: gradient"}


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path("midgrain-demo"),
) -> None:
    """Explain a packaged photograph with a packaged network; nothing is downloaded."""
    from midgrain.models import load_model
    from midgrain.pictures import open_picture
    from midgrain.plots import plot_comparison

    check_writable_folder(output, "output")
    loaded = load_model("demo")
    picture = open_picture(_photograph())
    explanations = {}
    seconds = []
    for method in _PANELS:
        started = time.perf_counter()
        explanations[method], shown = explain_picture(picture, loaded, method, None, "cpu")
        seconds.append(time.perf_counter() - started)

    table = Table(title="EfficientNet-Lite0 says", title_justify="left", box=None, pad_edge=False)
    table.add_column("class")
    table.add_column("probability", justify="right")
    classes = ranking(explanations["swag-ig"], loaded)
    for entry in classes:
        table.add_row(entry.label, f"{entry.probability:.1%}")
    console.print(table)

    overlays = {method: explanations[method].overlay(image=shown) for method in _PANELS}
    overlay_path, comparison_path = output / "overlay.png", output / "comparison.png"
    save_picture(overlays["swag-ig"], overlay_path)
    figure = plot_comparison(
        shown,
        {title: overlays[method] for method, title in _PANELS.items()},
        f'Which regions made the network say "{classes[0].label}"?',
    )
    save_figure(figure, comparison_path)
    # The first one also loads what torch loads lazily.
    console.print(f"{min(seconds):.2f} s per explanation, the network's passes included", highlight=False)
    say(f"{overlay_path}\n{comparison_path}")


def _photograph() -> Path:
    """A cat, CC0, from scikit-image's package."""
    import skimage

    return Path(skimage.__file__).parent / "data" / "chelsea.png"
