"""`midgrain explain`: photographs in, pictures of what the network looked at out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midgrain.cli.explaining import class_entry, explain_picture, ranking, save_picture
from midgrain.cli.options import (
    AlphaOption,
    ContoursOption,
    DeviceOption,
    JsonOption,
    LayerOption,
    MeanOption,
    MethodOption,
    ModelOption,
    SegmentsOption,
    SizeOption,
    StdOption,
    TargetOption,
    Wishes,
    check_alpha,
    check_methods,
    class_number,
    load_network,
)
from midgrain.cli.output import console, errors, fail, print_json, with_progress
from midgrain.files import check_writable_folder

if TYPE_CHECKING:
    from midgrain.models import LoadedModel

__all__ = ["Task", "explain"]

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True)
class Task:
    """One picture to explain with one method, and the file to write."""

    picture: Path
    method: str
    output: Path


def explain(
    pictures: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Photographs, or folders of them.")],
    model: ModelOption = "demo",
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="See 'midgrain methods'; may be given several times. By default swag-ig."),
    ] = None,
    target: TargetOption = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder, or a .png/.jpg/.webp file for one photograph.")
    ] = Path("midgrain-out"),
    layer: LayerOption = None,
    n_segments: SegmentsOption = None,
    option: MethodOption = None,
    alpha: AlphaOption = 0.5,
    contours: ContoursOption = True,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    npz: Annotated[bool, typer.Option("--npz", help="Also save each explanation as .npz.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Explain photographs: which regions made the network say that?"""
    from midgrain.pictures import list_pictures

    names = method or ["swag-ig"]
    check_methods(names)
    check_alpha(alpha)
    wishes = Wishes.of(option, names, n_segments=n_segments, layer=layer)
    tasks = _plan(list_pictures(pictures), names, output)
    loaded = load_network(model, device, size, mean, std, layer)
    chosen = class_number(target, loaded)
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for task in with_progress(tasks, silent=as_json):
        options = wishes.options(task.method, progress=len(tasks) == 1 and not as_json)
        try:
            rows.append(_run(task, loaded, chosen, options, device, alpha, contours, npz))
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


def _run(
    task: Task,
    loaded: LoadedModel,
    target: int | None,
    options: dict[str, Any],
    device: str,
    alpha: float,
    contours: bool,
    npz: bool,
) -> dict[str, Any]:
    from midgrain.pictures import open_picture

    picture = open_picture(task.picture)
    explanation, shown = explain_picture(picture, loaded, task.method, target, device, **options)
    save_picture(explanation.overlay(image=shown, alpha=alpha, contours=contours), task.output)
    if npz:
        explanation.save(task.output.with_suffix(".npz"))
    return {
        "picture": str(task.picture),
        "method": task.method,
        "output": str(task.output),
        "target": vars(class_entry(explanation, loaded)),
        "top5": [vars(entry) for entry in ranking(explanation, loaded)],
    }
