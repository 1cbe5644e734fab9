"""The report's figures, as data URIs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps

from midgrain.html_page import plain, svg_axes, svg_uri

__all__ = ["cost_figure", "curve_figure"]

# More names than this need room.
_MANY = 12
_DASHED = (0, (4, 2))


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
    figure, axes = svg_axes()
    for name, colour in _colours(curves).items():
        values = curves[name]
        style = _DASHED if name in dashed else "-"
        axes.plot(np.linspace(0, 1, len(values)), values, linestyle=style, color=colour, label=plain(name))
    axes.set_title(plain(title))
    axes.set_xlabel("share of the way")
    axes.set_ylabel(ylabel)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg_uri(figure)


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
    figure, axes = svg_axes(scale)
    for name, colour in _colours(points).items():
        seconds, value = points[name]
        axes.scatter([seconds], [value], color=colour, facecolors="none" if name in dashed else colour, zorder=2)
        axes.annotate(plain(name), (seconds, value), textcoords="offset points", xytext=(5, 4), fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("seconds of an explanation, median")
    axes.set_ylabel(plain(ylabel))
    return svg_uri(figure)


def _colours(names: Mapping[str, Any]) -> dict[str, Any]:
    palette = colormaps["tab10"] if len(names) <= 10 else colormaps["tab20"]
    return {name: palette(place % palette.N) for place, name in enumerate(names)}
