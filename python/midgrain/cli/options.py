"""What becomes of the options' texts: a network, a class, a method's options."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from midgrain.clips import ClipPreprocess
    from midgrain.models import LoadedModel
    from midgrain.pictures import Preprocess

__all__ = [
    "Wishes",
    "check_alpha",
    "check_methods",
    "class_number",
    "find_device",
    "load_network",
    "options_of_measures",
]

# Options of explainers that come from the network, or that the command sets.
_SAID_OTHERWISE = frozenset({"mean", "std", "progress"})


@dataclass(frozen=True)
class Wishes:
    """What the user wishes of the methods, by the name of the option; not all of them may take it."""

    wanted: Mapping[str, Any]

    @staticmethod
    def of(given: Sequence[str] | None, methods: Sequence[str], **named: Any) -> Wishes:
        """From `--option NAME=VALUE` and options with a name of their own.

        Args:
            given: texts "NAME=VALUE"; a value is read as JSON, and as a text where it is none.
            methods: what is to be run.
            **named: None stands for what was not given.

        Raises:
            ValueError: a text without "=", a name that none of the methods has, or that has its own option.
        """
        wanted = {name: value for name, value in named.items() if value is not None}
        for text in given or []:
            name, value = _pair(text)
            if name in named or name in _SAID_OTHERWISE:
                raise ValueError(f"option: {name!r} has an option of its own; see --help")
            _check_some_have(name, methods)
            wanted[name] = _value(value)
        return Wishes(wanted)

    def options(self, method: str, *, progress: bool = False) -> dict[str, Any]:
        """Those that this method takes, and a bar of its own where it takes long and `progress` says so."""
        from midgrain.registry import method_options

        taken = method_options(method)
        wanted = {"progress": True, **self.wanted} if progress else self.wanted
        return {name: value for name, value in wanted.items() if name in taken}


def _check_some_have(name: str, methods: Sequence[str]) -> None:
    from midgrain.registry import method_options

    known = {option for method in methods for option in method_options(method)} - _SAID_OTHERWISE
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(sorted(known))}"
        raise ValueError(f"option: {name!r} is no option of {', '.join(methods)}; {hint}")


def options_of_measures(given: Sequence[str] | None, known: Mapping[str, set[str]]) -> dict[str, dict[str, Any]]:
    """Per measure the options of `--measure-option` that it has; `known` says which options each has.

    Raises:
        ValueError: a text without "=", or a name that none of the measures has.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in known}
    for text in given or []:
        option, value = _pair(text)
        having = [name for name, options in known.items() if option in options]
        if not having:
            raise ValueError(f"measure-option: {option!r} is no option of {', '.join(known)}")
        for name in having:
            found[name][option] = _value(value)
    return found


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not name:
        raise ValueError(f"option: expected NAME=VALUE, like n_samples=500, got {text!r}")
    return name, value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


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
    spec: str,
    device: str,
    size: int | None,
    mean: str | None,
    std: str | None,
    layer: str | None = None,
    frames: int | None = None,
    rate: float | None = None,
    *,
    allow_pickle: bool = False,
) -> LoadedModel:
    """The network that `--model` means, with the preprocessing that the other options ask for.

    Raises:
        TypeError, ValueError, OSError: see `load_model`; an option that cannot be followed; no such layer.
    """
    from midgrain.models import load_model
    from midgrain.network.modules import find_module, unwrapped
    from midgrain.pictures import Preprocess

    try:
        loaded = load_model(spec, find_device(device), allow_pickle=allow_pickle)
    except ValueError as error:
        if "allow_pickle=True" not in str(error):
            raise
        # The switch as it is called here.
        raise ValueError(str(error).replace("allow_pickle=True", "--allow-pickle")) from error
    if layer is not None:
        find_module(unwrapped(loaded.model), layer)
    preprocess = loaded.preprocess
    if frames is not None or rate is not None:
        preprocess = _for_clips(spec, preprocess, frames, rate)
    if size is not None:
        if size < 1:
            raise ValueError(f"size: expected 1 or more, got {size}")
        if isinstance(preprocess, Preprocess):
            preprocess = replace(preprocess, crop=size, resize=round(size * preprocess.resize / preprocess.crop))
        else:
            preprocess = preprocess.sized(size)
    if mean is not None:
        preprocess = replace(preprocess, mean=_three_numbers(mean, "mean"))
    if std is not None:
        preprocess = replace(preprocess, std=_three_numbers(std, "std"))
    return replace(loaded, preprocess=preprocess)


def _for_clips(
    spec: str, preprocess: Preprocess | ClipPreprocess, frames: int | None, rate: float | None
) -> ClipPreprocess:
    """A preprocessing for clips of these frames; that for pictures, where a network does not say what it takes."""
    from midgrain.clips import ClipPreprocess
    from midgrain.pictures import Preprocess

    if isinstance(preprocess, Preprocess):
        if spec == "demo" or spec.startswith(("torchvision:", "timm:")):
            given = "frames" if frames is not None else "rate"
            raise ValueError(f"{given}: {spec} takes pictures; there are demo-clip and torchvision:r3d_18")
        picture = preprocess
        preprocess = ClipPreprocess(
            picture.resize, picture.crop, picture.mean, picture.std, picture.interpolation, antialias=True
        )
    return replace(
        preprocess,
        frames=preprocess.frames if frames is None else frames,
        rate=preprocess.rate if rate is None else rate,
    )


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
