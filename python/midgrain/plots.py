"""Matplotlib figures of explanations. They use no pyplot state, so nothing needs closing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from midgrain.explanation import Explanation

__all__ = ["plot_comparison", "plot_explanation"]

_PANEL_INCHES = 3.2
_PANELS_PER_ROW = 5


def _show(axes: Any, picture: Any, title: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


def plot_explanation(explanation: Explanation, i: int = 0, *, max_frames: int = 8, **overlay_options: Any) -> Figure:
    """The picture of sample `i` beside its overlay; of a clip, up to `max_frames` frames in two rows.

    Raises:
        TypeError, ValueError: `max_frames` that is no positive int; see `Explanation.overlay` for the rest.
    """
    if isinstance(max_frames, bool) or not isinstance(max_frames, int):
        raise TypeError(f"max_frames: expected an int, got {type(max_frames).__name__}")
    if max_frames < 1:
        raise ValueError(f"max_frames: expected 1 or more, got {max_frames}")
    overlay = explanation.overlay(i, **overlay_options)
    picture = overlay_options.get("image")
    if picture is None:
        assert explanation.image is not None
        picture = explanation.image[i].cpu().numpy()
    frames = [0] if overlay.ndim == 3 else sorted({*np.linspace(0, len(overlay) - 1, max_frames).round().astype(int)})
    clip = overlay.ndim == 4
    rows, columns = (2, len(frames)) if clip else (1, 2)
    figure = Figure(figsize=(columns * _PANEL_INCHES + 0.8, rows * _PANEL_INCHES + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    if clip:
        for column, frame in enumerate(frames):
            _show(axes[0, column], picture[frame], f"frame {frame}")
            _show(axes[1, column], overlay[frame], "")
    else:
        _show(axes[0, 0], picture, "input")
        _show(axes[0, 1], overlay, explanation.method)
    heat = explanation.heatmap[i]
    scale = Normalize(float(heat.min()), float(heat.max()))
    colours = ScalarMappable(scale, cmap=overlay_options.get("colormap", "turbo"))
    figure.colorbar(colours, ax=list(axes[-1]), shrink=0.8, label="score")
    return figure


def plot_comparison(picture: Any, overlays: Mapping[str, Any], title: str = "") -> Figure:
    """One picture and several overlays of it, in rows of up to five panels that are as even as can be.

    Args:
        picture: uint8 [H, W, 3].
        overlays: panel title -> uint8 [H, W, 3].
        title: above everything.
    """
    panels = {"input": picture, **overlays}
    rows = math.ceil(len(panels) / _PANELS_PER_ROW)
    columns = math.ceil(len(panels) / rows)
    height = rows * _PANEL_INCHES + 0.6
    figure = Figure(figsize=(columns * _PANEL_INCHES, height), layout="constrained")
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (name, panel) in zip(places, panels.items(), strict=False):
        _show(axes, panel, name)
    for axes in places[len(panels) :]:
        axes.remove()
    if title:
        figure.suptitle(title, fontsize=12)
    return figure
