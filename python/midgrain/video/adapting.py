"""What a stream was given to explain with, as an explainer of windows."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from midgrain.driver import Target
from midgrain.explainer_base import Explainer
from midgrain.models import LoadedModel
from midgrain.pictures import Preprocess
from midgrain.video.frames import WindowExplainer
from midgrain.video.image_stream import ImageStream
from midgrain.video.windows import ClipWindows, FramesPreprocess, NetworkWindows, usual_preprocess

__all__ = ["network_explainer", "window_explainer"]


def network_explainer(
    loaded: LoadedModel, method: str = "swag-ig", *, target: Target = None, **options: Any
) -> ImageStream | NetworkWindows:
    """A loaded network as an explainer of windows: of clips by `NetworkWindows`, of pictures by `ImageStream`.

    Args:
        loaded: the network with its preprocessing and class names.
        method: one of `midgrain.methods()`, while the settings name none.
        target: a callable, or classes; with it networks for pictures are given frames one by one, without superpixels
            that reach through the window.
        **options: of the method.

    Raises:
        TypeError, ValueError: no loaded network, no such method, options that do not fit it.

    Example:
        >>> import midgrain as mg
        >>> mg.video.network_explainer(mg.models.load_model("demo-clip"), "gradcam").window
        16
    """
    if isinstance(loaded, LoadedModel) and isinstance(loaded.preprocess, Preprocess) and target is None:
        return ImageStream(loaded, method, **options)
    return NetworkWindows(loaded, method, target=target, **options)


def window_explainer(
    explainer: Any,
    window: int | None,
    *,
    preprocess: FramesPreprocess | None = None,
    labels: Sequence[str] | None = None,
    target: Target = None,
) -> WindowExplainer:
    """What `explain_stream` was given, as an explainer of windows.

    Args:
        explainer: a `LoadedModel`; a midgrain explainer; a `WindowExplainer`, known by the names of its parameters,
            `frames` and `settings`; any other callable `(x, target) -> Explanation`.
        window: 1 says of an explainer without a preprocessing that it takes pictures.
        preprocess: see `ClipWindows`.
        labels: likewise.
        target: a callable target, or classes.

    Raises:
        TypeError: none of these; a preprocessing, labels or a target for a `WindowExplainer`, which has its own.
    """
    if isinstance(explainer, LoadedModel):
        changed = replace(
            explainer,
            preprocess=explainer.preprocess if preprocess is None else preprocess,  # type: ignore[arg-type]
            labels=explainer.labels if labels is None else labels,
        )
        return network_explainer(changed, target=target)
    if not callable(explainer):
        raise TypeError(
            f"explainer: expected an explainer, a loaded network or a callable, got {type(explainer).__name__}"
        )
    if isinstance(explainer, nn.Module):
        raise TypeError("explainer: expected an explainer, got a network; pass midgrain.SWAG(network)")
    if not _takes_windows(explainer):
        if preprocess is None:
            preprocess = usual_preprocess(explainer, clips=window != 1)
        return ClipWindows(explainer, preprocess, labels, target=target)
    for name, value in (("preprocess", preprocess), ("labels", labels), ("target", target)):
        if value is not None:
            raise TypeError(f"{name}: expected None for a WindowExplainer, which has its own, got {value!r}")
    takes_windows: WindowExplainer = explainer
    return takes_windows


def _takes_windows(explainer: Any) -> bool:
    if isinstance(explainer, Explainer):
        return False
    try:
        parameters = [*inspect.signature(explainer).parameters]
    except (TypeError, ValueError):  # Of callables written in C.
        return False
    return parameters[:2] == ["frames", "settings"]
