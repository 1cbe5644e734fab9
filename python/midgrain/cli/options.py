"""Options that several commands have, and what becomes of their texts: a network, a class, a method's options."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from midgrain.models import LoadedModel

__all__ = [
    "AlphaOption",
    "ContoursOption",
    "DeviceOption",
    "JsonOption",
    "LayerOption",
    "MeanOption",
    "ModelOption",
    "SegmentsOption",
    "SizeOption",
    "StdOption",
    "TargetOption",
    "Wishes",
    "check_alpha",
    "check_methods",
    "class_number",
    "find_device",
    "load_network",
]

ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="demo, torchvision:NAME, timm:NAME, FILE.pt2, FILE.pt, FILE.onnx or MODULE:FUNCTION."
    ),
]
TargetOption = Annotated[
    str | None, typer.Option("--target", "-t", help="Class number or name; by default the predicted class.")
]
LayerOption = Annotated[
    str | None,
    typer.Option(
        "--layer", help="Dotted name of the layer that class activation maps look at; by default the last spatial one."
    ),
]
SegmentsOption = Annotated[int | None, typer.Option("--n-segments", help="Wanted superpixels. [300]")]
AlphaOption = Annotated[float, typer.Option(help="Opacity of the heat map, 0 to 1.")]
ContoursOption = Annotated[bool, typer.Option(help="Draw superpixel borders.")]
SizeOption = Annotated[int | None, typer.Option(help="Side of the network's input, where the model does not say.")]
MeanOption = Annotated[str | None, typer.Option(help="Normalisation of RGB in 0..1: three numbers with commas.")]
StdOption = Annotated[str | None, typer.Option(help="Likewise.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@dataclass(frozen=True)
class Wishes:
    """What the user wishes of the methods; None leaves it to each of them."""

    n_segments: int | None = None
    layer: str | None = None

    def options(self, method: str) -> dict[str, Any]:
        """Those that this method takes."""
        from midgrain.registry import method_options

        taken = method_options(method)
        return {name: value for name, value in vars(self).items() if value is not None and name in taken}


def check_methods(names: Sequence[str]) -> None:
    """Raises ValueError at the first name that is no method's."""
    from midgrain.registry import methods

    for name in names:
        if name not in methods():
            raise ValueError(f"method: expected one of {', '.join(methods())}, got {name!r}")


def check_alpha(alpha: float) -> None:
    """Raises ValueError unless it is 0 .. 1."""
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha: expected 0 .. 1, got {alpha}")


def load_network(
    spec: str, device: str, size: int | None, mean: str | None, std: str | None, layer: str | None = None
) -> LoadedModel:
    """The network that `--model` means, with the preprocessing that the other options ask for.

    Raises:
        TypeError, ValueError, OSError: see `load_model`; an option that cannot be followed; no such layer.
    """
    from midgrain.models import load_model
    from midgrain.network.modules import find_module, unwrapped

    loaded = load_model(spec, find_device(device))
    if layer is not None:
        find_module(unwrapped(loaded.model), layer)
    preprocess = loaded.preprocess
    if size is not None:
        if size < 1:
            raise ValueError(f"size: expected 1 or more, got {size}")
        preprocess = replace(preprocess, crop=size, resize=round(size * preprocess.resize / preprocess.crop))
    if mean is not None:
        preprocess = replace(preprocess, mean=_three_numbers(mean, "mean"))
    if std is not None:
        preprocess = replace(preprocess, std=_three_numbers(std, "std"))
    return replace(loaded, preprocess=preprocess)


def find_device(name: str) -> Any:
    """The torch device that `--device` means.

    Raises:
        ValueError: no device's name, or a GPU where there is none.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:1, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {name!r} was asked for, but torch finds no usable GPU here")
    return device


def class_number(target: str | None, loaded: LoadedModel) -> int | None:
    """The class that `--target` means; None where it is not given.

    Raises:
        ValueError: a name that is no class's.
    """
    if target is None:
        return None
    if target.lstrip("-").isdecimal():
        return int(target)
    if loaded.labels is None:
        raise ValueError(f"target: the classes of {loaded.name} have no names; expected a number, got {target!r}")
    lowered = [label.lower() for label in loaded.labels]
    if target.lower() in lowered:
        return lowered.index(target.lower())
    close = difflib.get_close_matches(target.lower(), lowered, n=3)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise ValueError(f"target: {loaded.name} has no class {target!r}{hint}")


def _three_numbers(text: str, name: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise ValueError(f"{name}: expected three numbers with commas, like 0.485,0.456,0.406, got {text!r}")
    return numbers
