"""What may be changed while a stream runs."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, fields, replace
from typing import Any

__all__ = ["Controls", "Settings"]


@dataclass(frozen=True)
class Settings:
    """How a stream is explained and drawn.

    Attributes:
        method: a name of `midgrain.methods()`; None stands for the explainer that the stream was given.
        target: the class that is explained; None stands for each window's predicted one.
        n_segments: wanted superpixels; None takes the method's own.
        alpha: opacity of the heat map, 0 .. 1.
        contours: draw superpixel borders.
        side_by_side: draw the frame itself beside its explanation.

    Raises:
        TypeError, ValueError: a value of another kind or out of range.
    """

    method: str | None = None
    target: int | None = None
    n_segments: int | None = None
    alpha: float = 0.5
    contours: bool = True
    side_by_side: bool = False

    def __post_init__(self) -> None:
        if self.method is not None and not isinstance(self.method, str):
            raise TypeError(f"method: expected a name, got {type(self.method).__name__}")
        for name, low in (("target", 0), ("n_segments", 1)):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}: expected an int or None, got {type(value).__name__}")
            if value < low:
                raise ValueError(f"{name}: expected {low} or more, got {value}")
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float):
            raise TypeError(f"alpha: expected a number, got {type(self.alpha).__name__}")
        if not (math.isfinite(self.alpha) and 0.0 <= self.alpha <= 1.0):
            raise ValueError(f"alpha: expected 0 .. 1, got {self.alpha}")
        for name in ("contours", "side_by_side"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected true or false, got {getattr(self, name)!r}")


class Controls:
    """The settings of a running stream, to be changed from any thread.

    Args:
        settings: those to begin with.

    Example:
        >>> from midgrain.video.settings import Controls
        >>> controls = Controls()
        >>> controls.change(alpha=0.3).alpha, controls.now.alpha
        (0.3, 0.3)
    """

    def __init__(self, settings: Settings | None = None):
        self._settings = settings or Settings()
        self._lock = threading.Lock()

    @property
    def now(self) -> Settings:
        """The settings of this moment."""
        return self._settings

    def change(self, **changes: Any) -> Settings:
        """Change some of them, all or none; returns the new settings.

        Raises:
            TypeError, ValueError: there is no such setting, or a value does not fit; nothing is changed then.
        """
        known = [field.name for field in fields(Settings)]
        for name in changes:
            if name not in known:
                raise ValueError(f"settings: expected one of {', '.join(known)}, got {name!r}")
        with self._lock:
            self._settings = replace(self._settings, **changes)
            return self._settings
