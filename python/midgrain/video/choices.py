"""What viewers of a stream may choose from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Choices"]

# More superpixels than any picture on a page shows, and few enough for memory.
_MOST_SEGMENTS = 20_000


@dataclass(frozen=True)
class Choices:
    """Methods and classes of a stream's network.

    Attributes:
        given: the name of the explainer that the stream was given; `Settings.method` None stands for it.
        methods: what may be chosen, with one line about each; empty where the method cannot be changed.
        slow: those of them that ask the network many times for one explanation.
        classes: how many the network has; None where that is not known.
        labels: their names by index; None where they are not known.
        max_segments: superpixels that may be asked for.

    Example:
        >>> from midgrain.video.choices import Choices
        >>> choices = Choices("gradcam", {"gradcam": "Grad-CAM", "swag-ig": "SWAG"}, classes=2)
        >>> choices.check({"target": 2})
        Traceback (most recent call last):
        ...
        ValueError: target: expected a class 0 .. 1, got 2
    """

    given: str = ""
    methods: Mapping[str, str] = field(default_factory=dict)
    slow: Collection[str] = ()
    classes: int | None = None
    labels: Sequence[str] | None = None
    max_segments: int = _MOST_SEGMENTS

    def check(self, changes: Mapping[str, Any]) -> None:
        """Look at changes of `Settings` for what the settings themselves cannot know.

        Values of the wrong kind are left to `Controls.change`.

        Raises:
            ValueError: no such method or class, more superpixels than may be asked for.
        """
        method, target, n_segments = (changes.get(name) for name in ("method", "target", "n_segments"))
        if isinstance(method, str) and method not in self.methods:
            known = ", ".join(self.methods) or f"{self.given or 'the given one'} alone"
            raise ValueError(f"method: expected one of {known}, got {method!r}")
        if isinstance(target, int) and self.classes is not None and target >= self.classes:
            raise ValueError(f"target: expected a class 0 .. {self.classes - 1}, got {target}")
        if isinstance(n_segments, int) and n_segments > self.max_segments:
            raise ValueError(f"n_segments: expected at most {self.max_segments}, got {n_segments}")
