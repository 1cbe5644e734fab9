"""The report's figures, as data URIs."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure

__all__ = ["cost_figure", "curve_figure"]

_SIZE = (6.4, 4.0)
# More names than this need room.
_MANY = 12
_DASHED = (0, (4, 2))
# Where the format is defined, who wrote it, and every text again as a comment.
_SUPERFLUOUS = re.compile(rb"<!DOCTYPE[^>]*>|<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)


def curve_figure(curves: Mapping[str, npt.NDArray[np.float64]], dashed: frozenset[str], title: str, ylabel: str) -> str:
    """Mean curves over the share of pixels, one line each.

    Args:
        curves: name -> mean values at equal steps.
        dashed: names of baselines.
        title: above.
        ylabel: of the values.

    Returns:
        A data URI of an SVG.
    """
    figure, axes = _axes()
    for name, colour in _colours(curves).items():
        values = curves[name]
        style = _DASHED if name in dashed else "-"
        axes.plot(np.linspace(0, 1, len(values)), values, linestyle=style, color=colour, label=_plain(name))
    axes.set_title(_plain(title))
    axes.set_xlabel("share of the way")
    axes.set_ylabel(ylabel)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _data_uri(figure)


def cost_figure(points: Mapping[str, tuple[float, float]], dashed: frozenset[str], ylabel: str) -> str:
    """Quality against seconds, one point each, seconds on a logarithmic axis.

    Args:
        points: name -> (seconds, mean value).
        dashed: names of baselines, drawn hollow.
        ylabel: of the values.

    Returns:
        A data URI of an SVG.
    """
    scale = 1.0 if len(points) <= _MANY else 1.6
    figure, axes = _axes(scale)
    for name, colour in _colours(points).items():
        seconds, value = points[name]
        axes.scatter([seconds], [value], color=colour, facecolors="none" if name in dashed else colour, zorder=2)
        axes.annotate(_plain(name), (seconds, value), textcoords="offset points", xytext=(5, 4), fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("seconds of an explanation, median")
    axes.set_ylabel(_plain(ylabel))
    return _data_uri(figure)


def _axes(scale: float = 1.0) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_SIZE[0] * scale, _SIZE[1] * scale), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _colours(names: Mapping[str, Any]) -> dict[str, Any]:
    palette = colormaps["tab10"] if len(names) <= 10 else colormaps["tab20"]
    return {name: palette(place % palette.N) for place, name in enumerate(names)}


def _plain(text: str) -> str:
    """A text that Matplotlib neither takes for mathematics nor for one to leave out of the legend."""
    return text.replace("$", r"\$") if not text.startswith("_") else " " + text.replace("$", r"\$")


def _data_uri(figure: Figure) -> str:
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "midgrain", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    drawing = _SUPERFLUOUS.sub(b"", file.getvalue())
    return "data:image/svg+xml;base64," + base64.b64encode(drawing).decode("ascii")
