"""`midgrain explain`: photographs in, pictures of what the network looked at out."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midgrain.cli.output import console, errors, fail, print_json
from midgrain.files import check_writable_folder, write_whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from midgrain.explanation import Explanation
    from midgrain.models import LoadedModel

__all__ = ["Ranking", "Task", "explain", "explain_picture", "ranking", "save_picture"]

_SHOWN_SIDE = 1024
_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True)
class Ranking:
    """One class that the network considered."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Task:
    """One picture to explain with one method, and the file to write."""

    picture: Path
    method: str
    output: Path


def explain(
    pictures: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Photographs, or folders of them.")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="demo, torchvision:NAME, timm:NAME, FILE.pt2, FILE.pt, FILE.onnx or MODULE:FUNCTION.",
        ),
    ] = "demo",
    method: Annotated[
        list[str] | None, typer.Option("--method", help="See 'midgrain methods'; may be given several times. [swag-ig]")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Class number or name; by default the predicted class.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder, or a .png/.jpg/.webp file for one photograph.")
    ] = Path("midgrain-out"),
    n_segments: Annotated[int | None, typer.Option("--n-segments", help="Wanted superpixels. [300]")] = None,
    alpha: Annotated[float, typer.Option(help="Opacity of the heat map, 0 to 1.")] = 0.5,
    contours: Annotated[bool, typer.Option(help="Draw superpixel borders.")] = True,
    size: Annotated[int | None, typer.Option(help="Side of the network's input, where the model does not say.")] = None,
    mean: Annotated[str | None, typer.Option(help="Normalisation of RGB in 0..1: three numbers with commas.")] = None,
    std: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    npz: Annotated[bool, typer.Option("--npz", help="Also save each explanation as .npz.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Explain photographs: which regions made the network say that?"""
    from midgrain.pictures import list_pictures
    from midgrain.registry import methods

    names = method or ["swag-ig"]
    for name in names:
        if name not in methods():
            raise ValueError(f"method: expected one of {', '.join(methods())}, got {name!r}")
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha: expected 0 .. 1, got {alpha}")
    files = list_pictures(pictures)
    tasks = _plan(files, names, output)
    loaded = _load(model, device, size, mean, std)
    chosen = _class_number(target, loaded)
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for task in _with_progress(tasks, silent=as_json):
        try:
            rows.append(_run(task, loaded, chosen, n_segments, device, alpha, contours, npz))
        except (ValueError, TypeError, OSError) as error:
            # What is done stays done; the rest of a folder goes on without the broken picture.
            failed.append(f"{task.picture}: {error}")
            if len(tasks) == 1:
                raise
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            console.print(
                f"{row['picture']}: {row['target']['label']} ({row['target']['probability']:.1%}), "
                f"{row['method']} -> {row['output']}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
    if failed:
        for line in failed:
            errors.print(f"midgrain: {line}", highlight=False, markup=False, soft_wrap=True)
        fail(f"{len(failed)} of {len(tasks)} explanations failed")


def explain_picture(
    picture: Image.Image, loaded: LoadedModel, method: str, target: int | None, device: str, **options: Any
) -> tuple[Explanation, npt.NDArray[np.uint8]]:
    """One explanation, and the network's crop of the picture to draw it on."""
    from midgrain.registry import explainer

    run = explainer(method, loaded.model, mean=loaded.preprocess.mean, std=loaded.preprocess.std, **options)
    explanation = run(loaded.preprocess(picture).to(_device(device)), target)
    return explanation, loaded.preprocess.shown(picture, _SHOWN_SIDE)


def ranking(explanation: Explanation, loaded: LoadedModel, k: int = 5) -> list[Ranking]:
    """The k most probable classes."""
    assert explanation.outputs is not None
    probabilities = explanation.outputs[0].float().softmax(0)
    top = probabilities.topk(min(k, len(probabilities)))
    return [
        Ranking(index, loaded.label(index), value)
        for value, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]


def save_picture(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    """Write uint8 [H, W, 3] in the format of the path's ending, whole or not at all; makes its folder."""
    from PIL import Image

    format_ = Image.registered_extensions()[path.suffix.lower()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: Image.fromarray(pixels).save(file, format=format_))
    except OSError as error:
        raise OSError(f"output: cannot write {str(path)!r} ({error.strerror or error})") from error


def _plan(files: Sequence[Path], methods: Sequence[str], output: Path) -> list[Task]:
    """Where each explanation goes; checks that it can be written before the network is even loaded."""
    if output.suffix.lower() in _IMAGE_SUFFIXES and not output.is_dir():
        if len(files) * len(methods) > 1:
            raise ValueError(
                f"output: expected a folder for {len(files) * len(methods)} explanations, got {str(output)!r}"
            )
        check_writable_folder(output.parent, "output")
        return [Task(files[0], methods[0], output)]
    check_writable_folder(output, "output")
    tasks = []
    taken: set[str] = set()
    for file in files:
        # a.jpg and a.png, or the same name from two folders, must not overwrite each other.
        stem, number = file.stem, 2
        while stem in taken:
            stem, number = f"{file.stem}-{number}", number + 1
        taken.add(stem)
        tasks += [Task(file, method, output / f"{stem}.{method}.png") for method in methods]
    return tasks


def _load(spec: str, device: str, size: int | None, mean: str | None, std: str | None) -> LoadedModel:
    from midgrain.models import load_model

    loaded = load_model(spec, _device(device))
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


def _three_numbers(text: str, name: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise ValueError(f"{name}: expected three numbers with commas, like 0.485,0.456,0.406, got {text!r}")
    return numbers


def _device(name: str) -> Any:
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


def _class_number(target: str | None, loaded: LoadedModel) -> int | None:
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


def _with_progress(tasks: Sequence[Task], *, silent: bool) -> Any:
    from rich.progress import track

    silent = silent or not errors.is_terminal
    return track(tasks, description="explaining", console=errors, transient=True, disable=silent)


def _run(
    task: Task,
    loaded: LoadedModel,
    target: int | None,
    n_segments: int | None,
    device: str,
    alpha: float,
    contours: bool,
    npz: bool,
) -> dict[str, Any]:
    from midgrain.pictures import open_picture

    options = {"n_segments": n_segments} if n_segments is not None and task.method.startswith("swag") else {}
    explanation, shown = explain_picture(open_picture(task.picture), loaded, task.method, target, device, **options)
    save_picture(explanation.overlay(image=shown, alpha=alpha, contours=contours), task.output)
    if npz:
        explanation.save(task.output.with_suffix(".npz"))
    assert explanation.target is not None
    assert explanation.outputs is not None
    index = int(explanation.target[0])
    probability = float(explanation.outputs[0].float().softmax(0)[index])
    return {
        "picture": str(task.picture),
        "method": task.method,
        "output": str(task.output),
        "target": {"index": index, "label": loaded.label(index), "probability": probability},
        "top5": [vars(entry) for entry in ranking(explanation, loaded)],
    }
