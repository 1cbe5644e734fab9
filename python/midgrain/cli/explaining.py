"""What commands do with one photograph or video: explain it, say what the network saw, write a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from midgrain.classes import class_score, top_classes
from midgrain.cli.options import find_device
from midgrain.files import write_whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure
    from PIL import Image
    from torch import Tensor

    from midgrain.classes import ClassScore
    from midgrain.clips import Clip
    from midgrain.explanation import Explanation
    from midgrain.models import LoadedModel

__all__ = [
    "class_entry",
    "explain_clip",
    "explain_picture",
    "ranking",
    "save_clip",
    "save_figure",
    "save_picture",
]

_SHOWN_SIDE = 1024
_SHOWN_CLIP_SIDE = 512
_DOTS_PER_INCH = 110


def explain_picture(
    picture: Image.Image, loaded: LoadedModel, method: str, target: int | None, device: str, **options: Any
) -> tuple[Explanation, npt.NDArray[np.uint8]]:
    """One explanation, and the network's crop of the picture to draw it on."""
    from midgrain.pictures import Preprocess

    preprocess = loaded.preprocess
    assert isinstance(preprocess, Preprocess)
    explanation = _explained(preprocess(picture), loaded, method, target, device, options)
    return explanation, preprocess.shown(picture, _SHOWN_SIDE)


def explain_clip(
    clip: Clip, loaded: LoadedModel, method: str, target: int | None, device: str, **options: Any
) -> tuple[Explanation, npt.NDArray[np.uint8]]:
    """Likewise of a clip, and the network's crop of its frames, [T, H, W, 3]."""
    from midgrain.clips import ClipPreprocess

    preprocess = loaded.preprocess
    assert isinstance(preprocess, ClipPreprocess)
    explanation = _explained(preprocess(clip), loaded, method, target, device, options)
    return explanation, preprocess.shown(clip, _SHOWN_CLIP_SIDE)


def _explained(
    x: Tensor, loaded: LoadedModel, method: str, target: int | None, device: str, options: dict[str, Any]
) -> Explanation:
    from midgrain.registry import explainer

    run = explainer(method, loaded.model, mean=loaded.preprocess.mean, std=loaded.preprocess.std, **options)
    explanation: Explanation = run(x.to(find_device(device)), target)
    return explanation


def ranking(explanation: Explanation, loaded: LoadedModel, k: int = 5) -> list[ClassScore]:
    """The k most probable classes."""
    assert explanation.outputs is not None
    return top_classes(explanation.outputs[0], loaded.label, k)


def class_entry(explanation: Explanation, loaded: LoadedModel) -> ClassScore:
    """The class that is explained."""
    assert explanation.target is not None
    assert explanation.outputs is not None
    return class_score(explanation.outputs[0], int(explanation.target[0]), loaded.label)


def save_picture(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    """Write uint8 [H, W, 3] in the format of the path's ending, whole or not at all; makes its folder."""
    from PIL import Image

    format_ = Image.registered_extensions()[path.suffix.lower()]
    _write(path, lambda file: Image.fromarray(pixels).save(file, format=format_))


def save_figure(figure: Figure, path: Path) -> None:
    """Likewise a Matplotlib figure."""
    _write(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=_DOTS_PER_INCH))


def save_clip(frames: npt.NDArray[np.uint8], path: Path, rate: float) -> None:
    """Write uint8 [T, H, W, 3] as a film in the format of the path's ending, whole or not at all; makes its folder."""
    from midgrain.clips import write_clip

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(frames, path, rate)
    except OSError as error:
        raise OSError(f"output: cannot write {str(path)!r} ({error.strerror or error})") from error


def _write(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
    except OSError as error:
        raise OSError(f"output: cannot write {str(path)!r} ({error.strerror or error})") from error
