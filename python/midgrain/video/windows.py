"""Explainers of batches as explainers of a stream's windows."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from midgrain.classes import class_score, top_classes
from midgrain.clips import ClipPreprocess
from midgrain.driver import Target
from midgrain.explainer_base import Explainer
from midgrain.explanation import Explanation
from midgrain.models import LoadedModel
from midgrain.network.modules import model_device
from midgrain.pictures import Preprocess
from midgrain.regions.base import RegionExplainer
from midgrain.regions.superpixels import Superpixels
from midgrain.registry import explainer as make_explainer
from midgrain.registry import method_options
from midgrain.video.frames import Frame, HeatWindow
from midgrain.video.settings import Settings

__all__ = ["ClipWindows", "FramesPreprocess", "NetworkWindows", "usual_preprocess"]

#: From frames, uint8 [T, H, W, 3], to a network's input; of callables it is taken that they show whole frames.
FramesPreprocess: TypeAlias = ClipPreprocess | Preprocess | Callable[[npt.NDArray[np.uint8]], Tensor]

# Of methods and numbers of superpixels that were switched between.
_MOST_EXPLAINERS = 8
# torchvision's, for networks that do not say what they were trained with; the normalisation is the explainer's.
_CLIP_SIDES: tuple[tuple[int, int], int] = ((128, 171), 112)
_PICTURE_SIDES = (256, 224)


class ClipWindows:
    """Any explainer as one of windows: preprocesses each frame once, explains, reads the classes.

    Args:
        explainer: a midgrain explainer, or a callable `(x, target) -> Explanation`.
        preprocess: a `ClipPreprocess` (the explainer gets clips [1, 3, T, h, w]), a `midgrain.pictures.Preprocess` (it
            gets the frames as a batch of pictures [T, 3, h, w]), or a callable from frames, uint8 [T, H, W, 3], to
            either. By default torchvision's for clips, with the explainer's own normalisation.
        labels: class names by index.
        target: what is explained while the settings name no class; see `midgrain.driver.Target`.

    A midgrain explainer's method and number of superpixels follow the settings; other callables have neither.

    Raises:
        TypeError: an explainer that cannot be called.

    Example:
        >>> import numpy as np, torch, midgrain as mg
        >>> from midgrain.video import ClipWindows, Frame, Settings
        >>> net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool3d(1),
        ...                           torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> frames = [Frame(np.full((48, 64, 3), n, np.uint8), n, n / 25, 0.0) for n in range(4)]
        >>> ClipWindows(mg.SWAG(net))(frames, Settings()).heat.shape
        (4, 112, 112)
    """

    def __init__(
        self,
        explainer: Callable[[Tensor, Target], Explanation],
        preprocess: FramesPreprocess | None = None,
        labels: Sequence[str] | None = None,
        *,
        target: Target = None,
    ):
        if not callable(explainer):
            raise TypeError(f"explainer: expected an explainer or a callable, got {type(explainer).__name__}")
        self._given = explainer
        self._loaded = LoadedModel(getattr(explainer, "model", None), Preprocess(1, 1, (0.0,), (1.0,)), labels, "")
        self.preprocess = preprocess if preprocess is not None else usual_preprocess(explainer, clips=True)
        self._target = target
        self._device = model_device(getattr(explainer, "model", None))
        self._made: OrderedDict[tuple[str | None, int | None], Callable[[Tensor, Target], Explanation]] = OrderedDict()
        # By number, with the pixels: another stream has other frames of these numbers.
        self._ready: dict[int, tuple[npt.NDArray[np.uint8], Tensor]] = {}
        self._lock = threading.Lock()
        #: Without them frames are preprocessed by whole windows.
        self._one_by_one = isinstance(self.preprocess, ClipPreprocess | Preprocess)

    @property
    def rate(self) -> float | None:
        """Frames per second that the network was trained with, where that is known."""
        return self.preprocess.rate if isinstance(self.preprocess, ClipPreprocess) else None

    @property
    def window(self) -> int | None:
        """Frames per window that it was trained with, likewise."""
        if isinstance(self.preprocess, Preprocess):
            return 1
        return self.preprocess.frames if isinstance(self.preprocess, ClipPreprocess) else None

    @property
    def method(self) -> str:
        """The name of the explainer that was given."""
        return getattr(self._given, "name", "") or type(self._given).__name__

    @property
    def labels(self) -> Sequence[str] | None:
        """Class names by index, where they are known."""
        return self._loaded.labels

    @property
    def switchable(self) -> bool:
        """Whether the settings' method is followed."""
        return isinstance(self._given, Explainer)

    def prepare(self, frame: Frame) -> None:
        """Preprocess a frame before the window that needs it; may be called from another thread."""
        if self._one_by_one:
            self._prepared(frame)

    def __call__(self, frames: Sequence[Frame], settings: Settings) -> HeatWindow:
        """Explain one window; see `WindowExplainer`."""
        return self.several([frames], settings)[0]

    def several(self, windows: Sequence[Sequence[Frame]], settings: Settings) -> list[HeatWindow]:
        """Explain windows of one length as one batch.

        Raises:
            TypeError, ValueError: settings or frames that the explainer refuses.
        """
        explain = self._explainer(settings)
        inputs = [self._input(frames) for frames in windows]
        x = (inputs[0] if len(inputs) == 1 else torch.cat(inputs)).to(self._device)
        target = self._target if settings.target is None else settings.target
        explanation = explain(x, target)
        heat = explanation.heatmap.detach().float().cpu().numpy()
        segments = None if explanation.segments is None else explanation.segments.cpu().numpy()
        length, pictures = len(windows[0]), x.ndim == 4
        expected = len(windows) * length if pictures else len(windows)
        if len(heat) != expected or (not pictures and heat.shape[1:2] != (length,)):
            raise ValueError(
                f"explainer: expected a heat map for each of {length} frames from x {list(x.shape)}, got "
                f"{list(heat.shape)}"
            )
        size = windows[0][0].pixels.shape
        region = (0.0, 0.0, float(size[1]), float(size[0]))
        if isinstance(self.preprocess, ClipPreprocess | Preprocess):
            region = self.preprocess.region((size[1], size[0]))
        result = []
        for item, frames in enumerate(windows):
            # Of pictures the newest frame's class is told.
            part = slice(item * length, (item + 1) * length) if pictures else item
            sample = (item + 1) * length - 1 if pictures else item
            found = HeatWindow(
                tuple(frame.number for frame in frames),
                heat[part],
                region,
                None if segments is None else segments[part],
                method=explanation.method or type(self._given).__name__,
            )
            result.append(self._with_classes(found, explanation, sample))
        return result

    def _with_classes(self, window: HeatWindow, explanation: Explanation, sample: int) -> HeatWindow:
        if explanation.outputs is None:
            return window
        logits, label = explanation.outputs[sample].cpu(), self._loaded.label
        target = None
        if explanation.target is not None:
            target = class_score(logits, int(explanation.target[sample]), label)
        return replace(window, target=target, classes=tuple(top_classes(logits, label)))

    def _input(self, frames: Sequence[Frame]) -> Tensor:
        """The network's input for a window."""
        if not self._one_by_one:
            assert not isinstance(self.preprocess, Preprocess)
            return self.preprocess(np.stack([frame.pixels for frame in frames]))
        with self._lock:
            for number in [number for number in self._ready if number < frames[0].number]:
                del self._ready[number]
        prepared = [self._prepared(frame) for frame in frames]
        return torch.stack(prepared) if isinstance(self.preprocess, Preprocess) else torch.stack(prepared, 1)[None]

    def _prepared(self, frame: Frame) -> Tensor:
        """One frame as the network sees it, float32 [3, h, w]; made once."""
        ready = self._ready.get(frame.number)
        if ready is not None and ready[0] is frame.pixels:
            return ready[1]
        if isinstance(self.preprocess, Preprocess):
            made = self.preprocess.of_array(frame.pixels)[0]
        else:
            assert isinstance(self.preprocess, ClipPreprocess)
            made = self.preprocess(frame.pixels[None])[0, :, 0]
        with self._lock:
            self._ready[frame.number] = frame.pixels, made
        return made

    def _explainer(self, settings: Settings) -> Callable[[Tensor, Target], Explanation]:
        """What the settings ask for, made once."""
        key = (settings.method, settings.n_segments)
        if key not in self._made:
            self._made[key] = self._make(*key)
            while len(self._made) > _MOST_EXPLAINERS:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]

    def _make(self, method: str | None, n_segments: int | None) -> Callable[[Tensor, Target], Explanation]:
        given = self._given
        if method not in (None, getattr(given, "name", None)):
            if not isinstance(given, Explainer):
                raise ValueError(f"method: expected None for an explainer of one's own, got {method!r}")
            assert method is not None
            mean, std = given.normalisation(torch.empty(1, 3, 1, 1, 1)) or (None, None)
            options = {} if n_segments is None else {"n_segments": n_segments}
            return make_method(method, given.model, mean=mean, std=std, **options)
        if n_segments is None or not isinstance(given, RegionExplainer):
            return given
        # Everything else stays as it was given.
        other = copy.copy(given)
        choice = given.superpixels
        other.superpixels = Superpixels(choice.choice, replace(choice.options, n_segments=n_segments))
        return other


class NetworkWindows(ClipWindows):
    """A network as an explainer of windows whose method can be changed while a stream runs.

    Args:
        loaded: the network with its preprocessing and class names; one that takes pictures is given each window's
            frames one by one.
        method: one of `midgrain.methods()`, while the settings name none.
        target: see `ClipWindows`.
        **options: of the methods; each takes those that it has.

    Raises:
        TypeError, ValueError: no such method, options that do not fit it.

    Example:
        >>> import midgrain as mg
        >>> explain = mg.video.NetworkWindows(mg.models.load_model("demo-clip"), "gradcam")
        >>> explain.window, explain.rate
        (16, 15.0)
    """

    def __init__(self, loaded: LoadedModel, method: str = "swag-ig", *, target: Target = None, **options: Any):
        if not isinstance(loaded, LoadedModel):
            raise TypeError(f"loaded: expected a LoadedModel (midgrain.models.load_model), got {type(loaded).__name__}")
        self._network, self._method, self._options = loaded.model, method, options
        self._normalisation = {"mean": loaded.preprocess.mean, "std": loaded.preprocess.std}
        unknown = options.keys() - method_options(method)
        if unknown:
            raise TypeError(f"{method!r} has no option {', '.join(sorted(unknown))}")
        first = make_method(method, loaded.model, **self._normalisation, **options)
        super().__init__(first, loaded.preprocess, loaded.labels, target=target)

    def _make(self, method: str | None, n_segments: int | None) -> Callable[[Tensor, Target], Explanation]:
        options = {**self._options, **({} if n_segments is None else {"n_segments": n_segments})}
        return make_method(method or self._method, self._network, **self._normalisation, **options)


def make_method(method: str, model: Any, **options: Any) -> Explainer:
    """The explainer of this name with those of the options that it has.

    Raises:
        TypeError, ValueError: see `midgrain.explainer`.
    """
    taken = method_options(method)
    return make_explainer(method, model, **{name: value for name, value in options.items() if name in taken})


def usual_preprocess(explainer: Any, *, clips: bool) -> ClipPreprocess | Preprocess:
    """The sizes that torchvision takes, with the normalisation that the explainer goes by."""
    like = torch.empty(1, 3, 1, 1, 1) if clips else torch.empty(1, 3, 1, 1)
    known = explainer if isinstance(explainer, Explainer) else Explainer(lambda x: x)
    mean, std = known.normalisation(like) or ((0.0,) * 3, (1.0,) * 3)
    if not clips:
        return Preprocess(*_PICTURE_SIDES, mean, std)
    return ClipPreprocess(*_CLIP_SIDES, mean, std, rate=None)
