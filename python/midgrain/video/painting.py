"""Explained frames as pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from midgrain.drawing import overlay_part
from midgrain.video.frames import DrawnFrame, ExplainedFrame
from midgrain.video.settings import Settings

__all__ = ["draw_frame"]


def draw_frame(explained: ExplainedFrame, settings: Settings | None = None, *, colormap: str = "turbo") -> DrawnFrame:
    """Draw the heat over the part of the frame that the network saw; the rest of the frame stays as it is.

    Args:
        explained: a frame; one that nothing explains yet stays as it is.
        settings: `alpha`, `contours` and `side_by_side` of them.
        colormap: a Matplotlib colour map.

    Returns:
        uint8 [H, W, 3], or [H, 2 W, 3] with the frame itself at the left.

    Example:
        >>> import numpy as np
        >>> from midgrain.video import ExplainedFrame, Frame, draw_frame
        >>> frame = Frame(np.zeros((48, 64, 3), np.uint8), 0, 0.0, 0.0)
        >>> heat = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
        >>> draw_frame(ExplainedFrame(frame, heat, (8.0, 0.0, 56.0, 48.0))).pixels[0, [0, 8]].tolist()
        [[0, 0, 0], [24, 9, 30]]
    """
    settings = settings or Settings()
    frame = explained.frame.pixels
    height, width = frame.shape[:2]
    drawn = np.empty((height, 2 * width if settings.side_by_side else width, 3), np.uint8)
    drawn[:, :width] = frame
    if settings.side_by_side:
        drawn[:, width:] = frame
    if explained.heat is not None:
        shift = drawn.shape[1] - width
        top, left, bottom, right = _part(explained.region, height, width)
        labels = explained.segments if settings.contours else None
        heat = _scaled(explained.heat, explained.limits)
        part = (top, left + shift, bottom, right + shift)
        overlay_part(drawn, part, heat, labels, alpha=settings.alpha, colormap=colormap)
    return DrawnFrame(explained, drawn)


def _part(region: tuple[float, float, float, float], height: int, width: int) -> tuple[int, int, int, int]:
    """The region in whole pixels, one at least: top, left, bottom, right, the last two excluded."""
    x0, y0, x1, y1 = (round(each) for each in region)
    left, top = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    return top, left, max(top + 1, min(y1, height)), max(left + 1, min(x1, width))


def _scaled(heat: npt.NDArray[np.float32], limits: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Scores as 0 .. 1 between the limits; all of them 0 where there is nothing between."""
    low, high = limits
    span = high - low
    if not span > 0:
        return np.zeros_like(heat)
    scaled: npt.NDArray[np.float32] = (heat - np.float32(low)) * np.float32(1.0 / span)
    return np.clip(scaled, 0.0, 1.0, out=scaled)
