"""Streams explained by image networks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from midgrain import driver
from midgrain.classes import class_score, top_classes
from midgrain.explainer_base import Explainer
from midgrain.explanation import Explanation
from midgrain.models import LoadedModel
from midgrain.network.modules import model_device
from midgrain.ops.checks import check_int
from midgrain.pictures import Preprocess
from midgrain.registry import explainer as make_explainer
from midgrain.registry import method_options, methods
from midgrain.video.frame_scores import FrameScore, score_frames
from midgrain.video.frames import Frame, HeatWindow
from midgrain.video.linked import LinkedFrames
from midgrain.video.settings import Settings

__all__ = ["ImageStream"]

_LINKED = {"swag-i": "image", "swag-g": "gradient", "swag-ig": "image+gradient"}


@dataclass
class _Known:
    """What is known of a frame."""

    frame: Frame
    x: Tensor
    #: What the network said of it, by the class that it was asked about.
    scores: dict[int | None, FrameScore] = field(default_factory=dict)
    #: In which way it was asked.
    asked: object = None


class ImageStream:
    """Explains the frames of a stream with an image network; a `WindowExplainer`.

    What the network said of a frame is kept as long as the stream's windows hold the frame, so that a window that
    moves by one frame costs one forward and one backward pass, and the superpixels. "swag-ig", "swag-i" and "swag-g"
    have superpixels that reach through the window (`LinkedFrames`); all other methods explain every frame by itself.

    The class that is explained is that of the mean logits of the window's frames. Where it changes, the frames are
    scored again for the new one.

    Args:
        loaded: an image network with its preprocessing.
        method: a name of `midgrain.methods()`, where the settings name none.
        linked: False makes superpixels frame by frame, too.
        batch_size: frames that are scored at once, where several are new.
        **options: of the method; they do not apply to another one that the settings name.

    Raises:
        TypeError, ValueError: a network for clips, an unknown method, options that it does not have.

    Example:
        >>> import numpy as np
        >>> from midgrain.models import load_model
        >>> from midgrain.video import Frame, ImageStream, Settings
        >>> explain = ImageStream(load_model("demo"))
        >>> frames = [Frame(np.zeros((240, 320, 3), np.uint8), i, i / 25, 0.0) for i in range(2)]
        >>> window = explain(frames, Settings(n_segments=50))
        >>> window.heat.shape, window.numbers, [round(edge) for edge in window.region]
        ((2, 224, 224), (0, 1), [54, 15, 265, 225])
    """

    #: Frames per window that keep heat steady without dragging it behind what moves; see docs/video_images.md.
    window = 8
    #: Whether the settings' method is followed; see `ClipWindows`.
    switchable = True

    def __init__(
        self, loaded: LoadedModel, method: str = "swag-ig", *, linked: bool = True, batch_size: int = 1, **options: Any
    ):
        if not isinstance(loaded, LoadedModel):
            raise TypeError(f"loaded: expected a LoadedModel, got {type(loaded).__name__}")
        if not isinstance(loaded.preprocess, Preprocess):
            raise ValueError("loaded: expected a network for images, got one for clips")
        self.loaded, self.preprocess = loaded, loaded.preprocess
        self.method, self.linked, self.options = method, linked, options
        self.batch_size = check_int(batch_size, "batch_size", 1)
        self._known: dict[int, _Known] = {}
        self._ready: dict[int, tuple[Frame, Tensor]] = {}
        self._lock = threading.Lock()
        self._made: tuple[object, Explainer] | None = None
        self._explainer(Settings())  # Refuses options now, not in the middle of a stream.

    @property
    def labels(self) -> Sequence[str] | None:
        """Class names by index, where they are known."""
        return self.loaded.labels

    def __call__(self, frames: Sequence[Frame], settings: Settings) -> HeatWindow:
        """Explain a window, see `WindowExplainer`.

        Raises:
            TypeError, ValueError: no frames, frames of different sizes, settings that cannot be followed.
        """
        if not frames:
            raise ValueError("frames: expected at least one frame, got none")
        shape = frames[0].pixels.shape
        for frame in frames:
            if frame.pixels.shape != shape:
                raise ValueError(
                    f"frames: expected frames of one size, got {list(shape)} and {list(frame.pixels.shape)}"
                )
        explainer = self._explainer(settings)
        window = self._window(frames)
        x = torch.cat([each.x for each in window]).to(model_device(self.loaded.model))
        scores = self._scores(explainer, x, window, settings)
        if isinstance(explainer, LinkedFrames):
            with driver.preserved(self.loaded.model, x):
                found = explainer.linked(x.movedim(0, 1)[None].contiguous(), [scores])
            heat, segments = found.heatmap[0], None if found.segments is None else found.segments[0]
        else:
            heat = torch.stack([score.map for score in scores])
            alone = [score.segments for score in scores if score.segments is not None]
            segments = torch.stack(alone) if len(alone) == len(scores) else None
        logits = [score.logits for score in scores if score.logits is not None]
        mean = torch.stack(logits).mean(0) if len(logits) == len(scores) else None
        target, label = scores[0].target, self.loaded.label
        return HeatWindow(
            tuple(frame.number for frame in frames),
            heat.cpu().numpy(),
            self.preprocess.region((shape[1], shape[0])),
            None if segments is None else segments.cpu().numpy(),
            None if mean is None or target is None else class_score(mean, target, label),
            () if mean is None else tuple(top_classes(mean, label)),
            settings.method or self.method,
        )

    def prepare(self, frame: Frame) -> None:
        """Preprocess a frame before the window that needs it; may be called from another thread."""
        x = self._preprocessed(frame)
        with self._lock:
            self._ready[frame.number] = frame, x

    def _preprocessed(self, frame: Frame) -> Tensor:
        return self.preprocess.of_array(frame.pixels)

    def _explainer(self, settings: Settings) -> Explainer:
        method = self.method if settings.method is None else settings.method
        if method not in methods():
            raise ValueError(f"method: expected one of {', '.join(methods())}, got {method!r}")
        n_segments = settings.n_segments if "n_segments" in method_options(method) else None
        if self._made is None or self._made[0] != (method, n_segments):
            options = dict(self.options) if method == self.method else {}
            options = {"mean": self.preprocess.mean, "std": self.preprocess.std} | options
            if n_segments is not None:
                options["n_segments"] = n_segments
            model = self.loaded.model
            if self.linked and method in _LINKED:
                made: Explainer = LinkedFrames(model, _LINKED[method], batch_size=self.batch_size, **options)
            else:
                made = make_explainer(method, model, **options)
            self._made = (method, n_segments), made
        return self._made[1]

    def _window(self, frames: Sequence[Frame]) -> list[_Known]:
        """What is known of the frames; of all others it is forgotten."""
        known: dict[int, _Known] = {}
        for frame in frames:
            # A source that begins anew counts anew: the same number may be another frame.
            before = known.get(frame.number) or self._known.get(frame.number)
            if before is None or before.frame.pixels is not frame.pixels:
                before = _Known(frame, self._prepared(frame))
            known[frame.number] = before
        self._known = known
        last = max(known)
        with self._lock:
            self._ready = {number: ready for number, ready in self._ready.items() if number > last}
        return [known[frame.number] for frame in frames]

    def _prepared(self, frame: Frame) -> Tensor:
        with self._lock:
            ready = self._ready.pop(frame.number, None)
        return ready[1] if ready is not None and ready[0].pixels is frame.pixels else self._preprocessed(frame)

    def _scores(self, explainer: Explainer, x: Tensor, window: list[_Known], settings: Settings) -> list[FrameScore]:
        """What the network says of every frame, taken from what is known where it was asked in the same way."""
        method = settings.method or self.method
        if isinstance(explainer, LinkedFrames):  # The number of superpixels does not matter to the network.
            asked: object = ("linked", self.options.get("scorer", "guided") if method == self.method else "guided")
        else:
            asked = explainer
        for each in window:
            if each.asked != asked:
                each.scores, each.asked = {}, asked

        def score_some(which: list[int], wanted: int | None) -> list[FrameScore]:
            # What was scored for a class before is still known when the window is of that class again.
            new = [index for index in which if wanted not in window[index].scores]
            for index, score in zip(new, self._ask(explainer, x[new], wanted) if new else (), strict=True):
                window[index].scores[score.target] = score
                window[index].scores.setdefault(wanted, score)
            return [window[index].scores[wanted] for index in which]

        known = [next(iter(each.scores.values()), None) for each in window]
        return score_frames(score_some, known, settings.target, self.batch_size)

    def _ask(self, explainer: Explainer, frames: Tensor, target: int | None) -> list[FrameScore]:
        if isinstance(explainer, LinkedFrames):
            with driver.preserved(self.loaded.model, frames):
                return explainer.frame_scores(frames, target)
        return _alone(explainer(frames, target))


def _alone(found: Explanation) -> list[FrameScore]:
    """The frames of a batch of explanations."""
    return [
        FrameScore(
            found.heatmap[place],
            None if found.target is None else int(found.target[place]),
            None if found.outputs is None else found.outputs[place],
            None if found.segments is None else found.segments[place],
        )
        for place in range(len(found))
    ]
