"""Which scores are drawn as cold and as hot."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["LIMITS", "ColourLimits"]

#: "running": follow the scores slowly; "window": each window has its own.
LIMITS = ("running", "window")
# Seconds after which running limits have made 63 % of the way to new scores.
_SLOWNESS = 1.0


class ColourLimits:
    """Limits of the colour scale, window by window.

    A window's own lowest and highest score make the picture flicker: each window has other ones, and every frame
    changes its colours with them. Running limits go a part of the way to each new window's, 1 - exp(-s / 1 s) for one
    that ends s seconds later, so that they follow the scene and not the single window, whatever the stride is.

    Args:
        kind: one of `LIMITS`.

    Raises:
        ValueError: another kind.

    Example:
        >>> import numpy as np
        >>> from midgrain.video.limits import ColourLimits
        >>> limits = ColourLimits("running")
        >>> limits.of(np.array([0.0, 1.0]), 0.0, "gradcam")
        (0.0, 1.0)
        >>> low, high = limits.of(np.array([0.0, 2.0]), 0.5, "gradcam")
        >>> round(high, 3)
        1.393
    """

    def __init__(self, kind: str = "running"):
        if kind not in LIMITS:
            raise ValueError(f"limits: expected {' or '.join(LIMITS)}, got {kind!r}")
        self.kind = kind
        self._now: tuple[float, float] | None = None
        self._seconds = 0.0
        self._scale: object = None

    def of(self, heat: npt.NDArray[np.floating], seconds: float, scale: object) -> tuple[float, float]:
        """The limits for a window.

        Args:
            heat: its scores.
            seconds: when its last frame begins.
            scale: what the scores are comparable within, the method's name say; another one begins anew.
        """
        low, high = float(heat.min()), float(heat.max())
        if self.kind == "window" or self._now is None or scale != self._scale:
            self._now = low, high
        else:
            part = -math.expm1(-max(0.0, seconds - self._seconds) / _SLOWNESS)
            self._now = self._now[0] + part * (low - self._now[0]), self._now[1] + part * (high - self._now[1])
        self._seconds, self._scale = seconds, scale
        return self._now
