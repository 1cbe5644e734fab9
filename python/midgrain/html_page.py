"""HTML pages that need nothing else: no scripts, no fonts, no pictures from elsewhere; every text is escaped."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["JPEG", "NONE", "SHADES", "jpeg_uri", "make_table", "number", "page", "plain", "svg_axes", "svg_uri", "text"]

#: What stands for a number that is not there.
NONE = "&ndash;"
#: How many shades of green (classes "g1", "g2", ...) and red ("r1", ...) the style has.
SHADES = 5
#: Of a picture as `jpeg_uri` makes it.
JPEG = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+")
_SIZE = (6.4, 4.0)
# Where the format is defined, who wrote it, and every text again as a comment.
_SUPERFLUOUS = re.compile(rb"<!DOCTYPE[^>]*>|<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2126; background: #fff; margin: 2rem auto; max-width: 70rem;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #57606a; padding-bottom: .3rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #d8dee4; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.best { font-weight: 650; } .quiet { color: #57606a; } .wide { overflow-x: auto; }
figure { margin: .6rem .8rem .6rem 0; display: inline-block; vertical-align: top; }
figcaption { font-size: .85rem; color: #57606a; } img { max-width: 100%; } .example img { width: 11rem; }
details { margin: .3rem 0; } .small td, .small th { padding: 0 .2rem; font-size: .68rem; }
.small thead th { writing-mode: vertical-rl; text-align: left; }
SHADES.plots img { width: 34rem; } pre { background: #f6f8fa; padding: .8rem; overflow-x: auto; font-size: .8rem; }
"""
_STYLE = _STYLE.replace(
    "SHADES",
    "".join(
        f".{sign}{step} {{ background: rgba({colour}, {0.45 * step / SHADES:.2f}); }}\n"
        for sign, colour in (("g", "46, 160, 67"), ("r", "207, 34, 46"))
        for step in range(1, SHADES + 1)
    ),
)


def page(title: str, parts: Iterable[str]) -> str:
    """A page of parts that are HTML already; empty ones are left out."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{text(title)}</h1>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def text(value: Any) -> str:
    """Anything as a text that is shown and never run."""
    # Names of files and classes may hold what UTF-8 cannot.
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode(), quote=True)


def number(value: Any, digits: int = 3) -> str:
    """With so many digits after the point; a dash for what is missing, NaN or infinite."""
    return f"{value:.{digits}f}" if isinstance(value, float | int) and math.isfinite(value) else NONE


def make_table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table of cells that are HTML already; its head and caption are texts."""
    top = "".join(f"<th>{text(cell)}</th>" for cell in head)
    body = "\n".join(
        "<tr>" + "".join(cell if cell[:3] == "<td" else f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows
    )
    said = f"<caption>{text(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{said}<thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def plain(label: str) -> str:
    """A text that Matplotlib neither takes for mathematics nor for one to leave out of the legend."""
    label = label.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")
    return " " + label if label.startswith("_") else label


def svg_axes(scale: float = 1.0) -> tuple[Figure, Any]:
    """A figure with a grid, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_SIZE[0] * scale, _SIZE[1] * scale), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def svg_uri(figure: Figure) -> str:
    """A figure as a data URI of an SVG, the same on every call."""
    from matplotlib import rc_context

    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "midgrain", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    drawing = _SUPERFLUOUS.sub(b"", file.getvalue())
    return "data:image/svg+xml;base64," + base64.b64encode(drawing).decode("ascii")


def jpeg_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """Pixels uint8 [H, W, 3], of a clip [T, H, W, 3] its frame in the middle, as a data URI of a JPEG."""
    from PIL import Image

    frame = pixels[len(pixels) // 2] if pixels.ndim == 4 else pixels
    file = io.BytesIO()
    Image.fromarray(frame).save(file, format="jpeg", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
