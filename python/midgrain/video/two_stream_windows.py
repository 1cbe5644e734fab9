"""Streams explained by two-stream networks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from midgrain.classes import class_score, top_classes
from midgrain.clips import ClipPreprocess
from midgrain.maps import min_max
from midgrain.network.modules import model_device
from midgrain.pictures import Preprocess
from midgrain.video.flow import check_flow
from midgrain.video.frames import Frame, HeatWindow
from midgrain.video.settings import Settings
from midgrain.video.two_stream import TwoStream, TwoStreamExplanation

__all__ = ["TwoStreamWindows"]

_SHOWN = ("rgb", "flow", "both")
_METHODS = {f"two-stream-{name}": name for name in _SHOWN}


class TwoStreamWindows:
    """A `TwoStream` as a `WindowExplainer`; optical flow is made once for each new frame.

    Args:
        explainer: the two networks. Its flow function is asked for two frames at a time.
        preprocess: of the appearance's network: a `ClipPreprocess`, or a `Preprocess` for single frames.
        labels: class names by index.
        shown: whose heat map is shown: "rgb", "flow", or "both": the mean of the two, each rescaled to 0 .. 1 over the
            window. The settings may change it with the methods "two-stream-rgb", "two-stream-flow" and
            "two-stream-both".

    Raises:
        TypeError, ValueError: another explainer, preprocessing or name.

    Example:
        >>> import numpy as np, torch
        >>> from midgrain.clips import ClipPreprocess
        >>> from midgrain.video import Frame, Settings, TwoStream, TwoStreamWindows
        >>> rgb = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool3d(1),
        ...                           torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> flow = torch.nn.Sequential(torch.nn.Conv2d(6, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                            torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> still = lambda frames: np.zeros((len(frames) - 1, *frames.shape[1:3], 2), np.float32)
        >>> explain = TwoStreamWindows(TwoStream(rgb, flow, flow=still), ClipPreprocess(32, 24, (0.4,) * 3, (0.2,) * 3))
        >>> frames = [Frame(np.full((48, 64, 3), 20 * i, np.uint8), i, i / 25, 0.0) for i in range(4)]
        >>> explain(frames, Settings()).heat.shape
        (4, 24, 24)
    """

    def __init__(
        self,
        explainer: TwoStream,
        preprocess: ClipPreprocess | Preprocess,
        labels: Sequence[str] | None = None,
        *,
        shown: str = "rgb",
    ):
        if not isinstance(explainer, TwoStream):
            raise TypeError(f"explainer: expected a TwoStream, got {type(explainer).__name__}")
        if not isinstance(preprocess, ClipPreprocess | Preprocess):
            raise TypeError(f"preprocess: expected a ClipPreprocess or Preprocess, got {type(preprocess).__name__}")
        if shown not in _SHOWN:
            raise ValueError(f"shown: expected one of {', '.join(_SHOWN)}, got {shown!r}")
        self.explainer, self.preprocess, self.labels, self.shown = explainer, preprocess, labels, shown
        # By a frame's number, with the pixels that it belongs to: a source that begins anew counts anew.
        self._inputs: dict[int, tuple[npt.NDArray[np.uint8], Tensor]] = {}
        self._flows: dict[tuple[int, int], tuple[Tensor, Tensor, npt.NDArray[np.float32]]] = {}

    def __call__(self, frames: Sequence[Frame], settings: Settings) -> HeatWindow:
        """Explain a window, see `WindowExplainer`.

        Raises:
            TypeError, ValueError: fewer than two frames, frames of different sizes, settings that cannot be followed.
        """
        if len(frames) < 2:
            raise ValueError(f"frames: expected two frames or more, for the flow between them, got {len(frames)}")
        shape = frames[0].pixels.shape
        for frame in frames:
            if frame.pixels.shape != shape:
                raise ValueError(
                    f"frames: expected frames of one size, got {list(shape)} and {list(frame.pixels.shape)}"
                )
        if settings.method is not None and settings.method not in _METHODS:
            raise ValueError(f"method: expected one of {', '.join(_METHODS)}, got {settings.method!r}")
        shown = self.shown if settings.method is None else _METHODS[settings.method]
        inputs = self._preprocessed(frames)
        x = torch.stack(inputs, 1)[None]
        flow = torch.from_numpy(self._motion(frames, inputs))[None]
        explainer = self.explainer
        if settings.n_segments is not None:
            explainer = copy.copy(explainer)
            explainer.superpixels = copy.copy(explainer.superpixels)
            explainer.superpixels.options = replace(explainer.superpixels.options, n_segments=settings.n_segments)
        e = explainer(x.to(model_device(explainer.rgb_network)), settings.target, flow=flow)
        return self._window(frames, e, shown)

    def _preprocessed(self, frames: Sequence[Frame]) -> list[Tensor]:
        """Every frame as the network's input, [3, h, w]."""
        known: dict[int, tuple[npt.NDArray[np.uint8], Tensor]] = {}
        for frame in frames:
            before = self._inputs.get(frame.number) or known.get(frame.number)
            if before is None or before[0] is not frame.pixels:
                if isinstance(self.preprocess, ClipPreprocess):
                    made = self.preprocess(frame.pixels[None])[0, :, 0]
                else:
                    made = self.preprocess(Image.fromarray(frame.pixels))[0]
                before = frame.pixels, made
            known[frame.number] = before
        self._inputs = known
        return [known[frame.number][1] for frame in frames]

    def _motion(self, frames: Sequence[Frame], inputs: Sequence[Tensor]) -> npt.NDArray[np.float32]:
        """The flow from each frame to the next, [T - 1, h, w, 2]."""
        known: dict[tuple[int, int], tuple[Tensor, Tensor, npt.NDArray[np.float32]]] = {}
        found = []
        for index in range(len(frames) - 1):
            pair = frames[index].number, frames[index + 1].number
            before, after = inputs[index], inputs[index + 1]
            there = self._flows.get(pair) or known.get(pair)
            if there is None or there[0] is not before or there[1] is not after:
                both = self.explainer.pictures(torch.stack([before, after], 1)[None])[0].numpy()
                there = before, after, check_flow(self.explainer.make_flow(both), *both.shape[:3])[0]
            known[pair] = there
            found.append(there[2])
        self._flows = known
        return np.stack(found)

    def _window(self, frames: Sequence[Frame], e: TwoStreamExplanation, shown: str) -> HeatWindow:
        one = e.flow if shown == "flow" else e.rgb
        heat = (min_max(e.rgb.heatmap) + min_max(e.flow.heatmap)) / 2 if shown == "both" else one.heatmap
        height, width = frames[0].pixels.shape[:2]
        label: Callable[[int], str] = self._label
        logits: Any = None
        if e.probabilities is not None:
            logits = e.probabilities[0].clamp_min(1e-30).log()  # Their softmax is the probabilities.
        elif one.outputs is not None:
            logits = one.outputs[0]
        known = logits is not None
        return HeatWindow(
            tuple(frame.number for frame in frames),
            heat[0].float().cpu().numpy(),
            self.preprocess.region((width, height)),
            e.segments[0].cpu().numpy(),
            class_score(logits, int(one.target[0]), label) if known and one.target is not None else None,
            tuple(top_classes(logits, label)) if known else (),
            f"two-stream-{shown}",
        )

    def _label(self, index: int) -> str:
        return self.labels[index] if self.labels is not None and index < len(self.labels) else f"class {index}"
