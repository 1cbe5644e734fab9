"""`midgrain explain`: photographs or videos in, pictures and films of what the network looked at out."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midgrain.cli import shared
from midgrain.cli.explaining import (
    class_entry,
    explain_clip,
    explain_picture,
    ranking,
    save_clip,
    save_figure,
    save_picture,
)
from midgrain.cli.options import (
    Wishes,
    check_alpha,
    check_methods,
    class_number,
    load_network,
)
from midgrain.cli.output import fail_if, print_json, say, with_progress
from midgrain.cli.sources import check_there, find_sources, unused
from midgrain.files import check_writable_folder

if TYPE_CHECKING:
    from midgrain.explanation import Explanation
    from midgrain.models import LoadedModel

__all__ = ["Task", "explain"]

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
# Of a clip .webp is animated.
_SHEET_SUFFIXES = _IMAGE_SUFFIXES - {".webp"}
_FILM_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".webp", ".gif"})
# Where a folder of frames does not say how fast it is to be played.
_USUAL_RATE = 15.0


@dataclass(frozen=True)
class Task:
    """One picture or clip to explain with one method, and the files to write."""

    source: Path
    method: str
    #: The picture, of a clip some of its frames; None where only a film is wanted.
    output: Path | None
    #: Of a clip, all its frames.
    film: Path | None = None


@dataclass(frozen=True)
class Drawing:
    """How explanations are drawn and kept."""

    alpha: float
    contours: bool
    npz: bool
    #: Of videos: seconds.
    start: float | None
    end: float | None


def explain(
    pictures: Annotated[
        list[Path],
        typer.Argument(
            metavar="PHOTO...",
            help="Photographs, or folders of them; for networks that take clips videos, folders of them or of frames.",
        ),
    ],
    model: shared.Model = "demo",
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="See 'midgrain methods'; may be given several times. By default swag-ig."),
    ] = None,
    target: shared.Target = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="A folder, or a .png/.jpg/.webp file for one photograph, .mp4/.webm/.webp/.gif/.png for one video.",
        ),
    ] = Path("midgrain-out"),
    layer: shared.Layer = None,
    n_segments: shared.Segments = None,
    option: shared.MethodOptions = None,
    alpha: shared.Alpha = 0.5,
    contours: shared.Contours = True,
    size: shared.Size = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    frames: shared.Frames = None,
    rate: shared.Rate = None,
    start: Annotated[float | None, typer.Option(help="Use a video from so many seconds on.")] = None,
    end: Annotated[float | None, typer.Option(help="Up to there; the clip is taken from the middle.")] = None,
    npz: Annotated[bool, typer.Option("--npz", help="Also save each explanation as .npz.")] = False,
    device: shared.Device = "auto",
    allow_pickle: shared.AllowPickle = False,
    as_json: shared.Json = False,
) -> None:
    """Explain photographs or videos: which regions made the network say that?"""
    from midgrain.clips import ClipPreprocess

    names = method or ["swag-ig"]
    check_methods(names)
    check_alpha(alpha)
    wishes = Wishes.of(option, names, n_segments=n_segments, layer=layer)
    check_there(pictures)
    # Before the network is even loaded.
    check_writable_folder(output.parent if _is_file(output) else output, "output")
    loaded = load_network(model, device, size, mean, std, layer, frames, rate, allow_pickle=allow_pickle)
    clips = isinstance(loaded.preprocess, ClipPreprocess)
    for name, value in (("start", start), ("end", end)):
        if value is not None and not clips:
            raise ValueError(f"{name}: expected a network that takes clips, got {model}")
    tasks = _plan(find_sources(pictures, model, clips=clips), names, output, clips)
    drawing = Drawing(alpha, contours, npz, start, end)
    chosen = class_number(target, loaded)
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for task in with_progress(tasks, silent=as_json):
        options = wishes.options(task.method, progress=len(tasks) == 1 and not as_json)
        try:
            rows.append(_run(task, loaded, chosen, options, device, drawing))
        except (ValueError, TypeError, OSError) as error:
            # What is done stays done; the rest of a folder goes on without the broken picture.
            failed.append(f"{task.source}: {error}")
            if len(tasks) == 1:
                raise
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            say(
                f"{row['picture']}: {row['target']['label']} ({row['target']['probability']:.1%}), "
                f"{row['method']} -> {row['output']}"
            )
    fail_if(failed, len(tasks), "explanations")


def _is_file(output: Path) -> bool:
    return output.suffix.lower() in _IMAGE_SUFFIXES | _FILM_SUFFIXES and not output.is_dir()


def _plan(sources: Sequence[Path], methods: Sequence[str], output: Path, clips: bool) -> list[Task]:
    """Where each explanation goes."""
    if _is_file(output):
        number, suffix = len(sources) * len(methods), output.suffix.lower()
        if number > 1:
            raise ValueError(f"output: expected a folder for {number} explanations, got {str(output)!r}")
        if clips and suffix in _FILM_SUFFIXES:
            return [Task(sources[0], methods[0], None, output)]
        if not clips and suffix not in _IMAGE_SUFFIXES:
            raise ValueError(f"output: expected a folder or a .png/.jpg/.webp file for a picture, got {str(output)!r}")
        return [Task(sources[0], methods[0], output)]
    film = ".mp4" if importlib.util.find_spec("av") else ".webp"
    tasks = []
    taken: set[str] = set()
    for source in sources:
        stem = unused(source.absolute().name if source.is_dir() else source.stem, taken)
        for method in methods:
            picture = output / f"{stem}.{method}.png"
            tasks.append(Task(source, method, picture, output / f"{stem}.{method}{film}" if clips else None))
    return tasks


def _run(
    task: Task,
    loaded: LoadedModel,
    target: int | None,
    options: dict[str, Any],
    device: str,
    drawing: Drawing,
) -> dict[str, Any]:
    from midgrain.clips import ClipPreprocess

    films = isinstance(loaded.preprocess, ClipPreprocess)
    draw = _draw_clip if films else _draw_picture
    explanation, more = draw(task, loaded, target, options, device, drawing)
    written = task.output or task.film
    assert written is not None
    if drawing.npz:
        explanation.save(written.with_suffix(".npz"))
    return {
        "picture": str(task.source),
        "method": task.method,
        "output": str(written),
        **more,
        "target": vars(class_entry(explanation, loaded)),
        "top5": [vars(entry) for entry in ranking(explanation, loaded)],
    }


def _draw_picture(
    task: Task, loaded: LoadedModel, target: int | None, options: dict[str, Any], device: str, drawing: Drawing
) -> tuple[Explanation, dict[str, Any]]:
    from midgrain.pictures import open_picture

    picture = open_picture(task.source)
    explanation, shown = explain_picture(picture, loaded, task.method, target, device, **options)
    assert task.output is not None
    save_picture(explanation.overlay(image=shown, alpha=drawing.alpha, contours=drawing.contours), task.output)
    return explanation, {}


def _draw_clip(
    task: Task, loaded: LoadedModel, target: int | None, options: dict[str, Any], device: str, drawing: Drawing
) -> tuple[Explanation, dict[str, Any]]:
    """A picture of some frames above their explanation, and a film of all explained frames."""
    from midgrain.clips import ClipPreprocess, open_clip

    window = loaded.preprocess
    assert isinstance(window, ClipPreprocess)
    clip = open_clip(task.source, window.frames, rate=window.rate, start=drawing.start, end=drawing.end)
    explanation, shown = explain_clip(clip, loaded, task.method, target, device, **options)
    look: dict[str, Any] = {"image": shown, "alpha": drawing.alpha, "contours": drawing.contours}
    if task.output is not None:
        save_figure(explanation.plot(**look), task.output)
    if task.film is not None:
        save_clip(explanation.overlay(**look), task.film, clip.rate or _USUAL_RATE)
    seconds = [None if math.isnan(each) else each for each in clip.seconds.tolist()]
    more = {"film": str(task.film)} if task.film is not None else {}
    return explanation, {**more, "frames": clip.numbers.tolist(), "seconds": seconds}
