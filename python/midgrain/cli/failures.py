"""`midgrain failures`: statistics of a training set, the report of a validation set, repairs of single pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midgrain.cli import shared
from midgrain.cli.explaining import save_picture
from midgrain.cli.failures_data import LabelledPictures
from midgrain.cli.options import (
    class_number,
    find_device,
    load_network,
)
from midgrain.cli.output import complain, fail_if, print_json, say
from midgrain.cli.sources import check_there, find_sources, unused
from midgrain.files import check_writable_folder

if TYPE_CHECKING:
    from midgrain.failures import Failure, FilterStatistics
    from midgrain.models import LoadedModel

__all__ = ["failures"]

failures = typer.Typer(
    name="failures", help="Why is a network wrong? What surprised it, and what it missed.", no_args_is_help=True
)

_DATA_HELP = "A folder of class folders, or a CSV file (path, label)."
_DataArgument = Annotated[Path, typer.Argument(metavar="DATA", help=_DATA_HELP)]
_StatsOption = Annotated[Path, typer.Option("--stats", help="What 'midgrain failures fit' wrote.")]
_TrainOption = Annotated[
    Path | None,
    typer.Option("--train", help="The data of the fit, to show the training images that speak for filters."),
]
_LowOption = Annotated[float, typer.Option(help="Percentile below which a filter is missed.")]
_HighOption = Annotated[float, typer.Option(help="Percentile above which a filter surprises.")]
_FewOption = Annotated[
    str,
    typer.Option(
        help="Classes with too few training images for these percentiles: error, or extreme (compare with the least "
        "and the greatest value there is)."
    ),
]
_ThroughOption = Annotated[
    str,
    typer.Option(
        help="The filter that repairs are searched through: the most surprising one, or the one most against the class."
    ),
]
_BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Pictures at once.")]
_GuidedOption = Annotated[bool, typer.Option("--guided", help="Guided backpropagation instead of the plain gradient.")]


@failures.command()
def fit(
    data: _DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file; a fit that was stopped goes on.")] = Path(
        "stats.npz"
    ),
    model: shared.Model = "demo",
    layer: shared.Layer = None,
    measure: Annotated[str, typer.Option(help="Of filters: grad-amap, gradcam, taylor, ...")] = "grad-amap",
    keep: Annotated[int, typer.Option(min=1, help="Greatest and least values kept per class and filter.")] = 8,
    batch_size: _BatchOption = 32,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many pictures.")] = None,
    size: shared.Size = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    device: shared.Device = "auto",
    allow_pickle: shared.AllowPickle = False,
    as_json: shared.Json = False,
) -> None:
    """Read a training set once: how do the filters react to the images of each class?"""
    from midgrain.failures import FilterStatistics

    _check_exists(data, "data")
    if output.suffix != ".npz":
        raise ValueError(f"output: expected a .npz file, got {str(output)!r}")
    check_writable_folder(output.parent, "output")
    loaded = load_network(model, device, size, mean, std, layer, allow_pickle=allow_pickle)
    pictures = LabelledPictures(data, loaded, batch_size, limit)
    # Statistics of other data may have this name: only what is unfinished goes on.
    unfinished = output.with_suffix(".unfinished.npz")
    stats = FilterStatistics.fit(
        loaded.model, pictures, measure=measure, layer=layer, keep=keep, checkpoint=unfinished, progress=not as_json
    )
    stats.save(output)
    unfinished.unlink(missing_ok=True)
    counts = stats.count[stats.count > 0]
    few = int((counts < 1000).sum())
    if as_json:
        found = {
            "output": str(output),
            "images": int(counts.sum()),
            "classes": len(counts),
            "of_classes": stats.n_classes,
            "filters": stats.n_filters,
            "layer": stats.layer,
            "measure": stats.measure,
            "fewest_images": int(counts.min()),
            "errors": pictures.errors,
        }
        print_json(found)
        return
    say(
        f"{int(counts.sum())} images of {len(counts)} of {stats.n_classes} classes, {stats.n_filters} filters of "
        f"{stats.layer} -> {output}"
    )
    if few:
        low = _nearest(int(counts.min()))
        nearer = f"nearer ones (--low {low} --high {round(100 - low, 2)}) or " if low < 50 else ""
        say(
            f"{few} of these classes have fewer than 1000 images, which percentiles 0.1 and 99.9 need: give the report "
            f"{nearer}--few extreme"
        )
    _note(pictures)


@failures.command()
def report(
    data: _DataArgument,
    stats: _StatsOption,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the report; an unfinished one goes on.")
    ] = Path("failures"),
    train: _TrainOption = None,
    model: shared.Model = "demo",
    limit: Annotated[
        int,
        typer.Option("--limit", min=0, help="Errors to explain, half with the lowest and half with the highest beta."),
    ] = 100,
    every: Annotated[bool, typer.Option("--all", help="Explain all errors.")] = False,
    drawn: Annotated[int, typer.Option(min=0, help="How many of these are drawn.")] = 24,
    low: _LowOption = 0.1,
    high: _HighOption = 99.9,
    few: _FewOption = "error",
    repair: Annotated[bool, typer.Option(help="Search for repairs, which takes longest.")] = True,
    through: _ThroughOption = "surprising",
    guided: _GuidedOption = False,
    batch_size: _BatchOption = 32,
    size: shared.Size = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    device: shared.Device = "auto",
    allow_pickle: shared.AllowPickle = False,
    as_json: shared.Json = False,
) -> None:
    """Which pictures of a validation set are predicted wrongly, how typical are they, and why are they wrong?"""
    from midgrain.failures import report as make_report

    _check_exists(data, "data")
    known, loaded = _prepared(stats, model, device, size, mean, std, allow_pickle)
    pictures = LabelledPictures(data, loaded, batch_size)
    found = make_report(
        loaded.model,
        pictures,
        known,
        output,
        images=_images(train, loaded),
        classes=loaded.labels,
        limit=None if every else limit,
        drawn=drawn,
        low=low,
        high=high,
        few=few,
        repair=repair,
        through=through,
        guided=guided,
        mean=loaded.preprocess.mean,
        std=loaded.preprocess.std,
        progress=not as_json,
    )
    summary = found.summary()
    page = found.folder / "report.html"
    if as_json:
        print_json({**summary, "unreadable": pictures.errors, "output": str(output), "report": str(page)})
        return
    for line in _lines(summary):
        say(line)
    say(f"-> {page}")
    _note(pictures)


@failures.command()
def fix(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures that are predicted wrongly.")],
    class_: Annotated[str, typer.Option("--class", help="What they show: a class's number or name.")],
    stats: _StatsOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the drawings.")] = Path("fixed"),
    train: _TrainOption = None,
    model: shared.Model = "demo",
    low: _LowOption = 0.1,
    high: _HighOption = 99.9,
    few: _FewOption = "error",
    through: _ThroughOption = "surprising",
    guided: _GuidedOption = False,
    size: shared.Size = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    device: shared.Device = "auto",
    allow_pickle: shared.AllowPickle = False,
    as_json: shared.Json = False,
) -> None:
    """Explain wrong predictions, and remove regions until they come right."""
    from midgrain.clips import ClipPreprocess
    from midgrain.evaluate.samples import ClassNames, Sample, prepare
    from midgrain.failures import explain
    from midgrain.failures.report_pictures import failure_figure
    from midgrain.normalisation import Normalisation

    check_there(pictures)
    check_writable_folder(output, "output")
    known, loaded = _prepared(stats, model, device, size, mean, std, allow_pickle)
    files = find_sources(pictures, model, clips=isinstance(loaded.preprocess, ClipPreprocess))
    true = class_number(class_, loaded)
    assert true is not None
    library = _images(train, loaded)
    normalisation = Normalisation(loaded.preprocess.mean, loaded.preprocess.std)
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    taken: set[str] = set()
    for file in files:
        try:
            sample = Sample(file.name, file)
            x = prepare(sample, loaded.preprocess, ClassNames(loaded.labels)).x.to(find_device(device))
            (found,) = explain(
                loaded.model,
                x,
                true,
                known,
                images=library,
                low=low,
                high=high,
                few=few,
                through=through,
                guided=guided,
                mean=loaded.preprocess.mean,
                std=loaded.preprocess.std,
            )
            destination = output / f"{unused(file.stem, taken)}.failure.png"
            save_picture(failure_figure(x[0], found, normalisation), destination)
            rows.append(_fixed(file, found, loaded, destination))
        except (ValueError, TypeError, OSError) as error:
            failed.append(f"{file}: {error}")
            if len(files) == 1:
                raise
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            say(_told(row))
    fail_if(failed, len(files), "pictures")


def _prepared(
    stats: Path, model: str, device: str, size: int | None, mean: str | None, std: str | None, allow_pickle: bool
) -> tuple[FilterStatistics, LoadedModel]:
    """The statistics and the network, which belong together."""
    from midgrain.failures import FilterStatistics

    try:
        known = FilterStatistics.load(stats)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(str(error).replace("path:", "stats:", 1)) from error
    loaded = load_network(model, device, size, mean, std, allow_pickle=allow_pickle)
    known.check_model(loaded.model)
    return known, loaded


def _images(train: Path | None, loaded: LoadedModel) -> Any:
    if train is None:
        return None
    _check_exists(train, "train")
    return LabelledPictures(train, loaded, 1).picture


def _check_exists(path: Path, name: str) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{name}: there is no file or folder {str(path)!r}")


def _nearest(images: int) -> float:
    """The lowest percentile that so many images of a class allow, as it would be typed."""
    return round(-(-10_000 // max(images, 2)) / 100, 2)


def _note(pictures: LabelledPictures) -> None:
    if pictures.errors:
        name, problem = next(iter(pictures.errors.items()))
        complain(f"{len(pictures.errors)} picture(s) left out, the first {name}: {problem}")


def _lines(summary: dict[str, Any]) -> list[str]:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    negative, repairs = summary["negative_beta"], summary["repairs"]
    found = [
        f"{summary['samples']} samples, {summary['errors']} predicted wrongly",
        f"negative beta: {share(negative['errors'])} of the errors, {share(negative['correct'])} of the others",
    ]
    correlation = summary["spearman"]["logit"]["mean"]
    if correlation is not None:
        found.append(f"rank correlation of beta and logit within classes: {correlation:.3f}")
    if repairs is not None:
        found.append(
            f"repaired: {share(repairs['filtered']['share'])} through a filter, "
            f"{share(repairs['unfiltered']['share'])} without filtering, of {repairs['searched']} errors"
        )
    return found


def _fixed(file: Path, found: Failure, loaded: LoadedModel, destination: Path) -> dict[str, Any]:
    def search(repair: Any) -> dict[str, Any] | None:
        if repair is None:
            return None
        fixed = bool(repair.fixed[0])
        segments, removed = repair.setting[0].tolist()
        more = {"n_segments": segments, "removed": removed, "share": float(repair.share[0])} if fixed else {}
        return {"fixed": fixed, **more}

    return {
        "picture": str(file),
        "class": {"index": found.true_class, "label": loaded.label(found.true_class)},
        "predicted": {"index": found.predicted, "label": loaded.label(found.predicted)},
        "probability": found.probability,
        "logit": found.logit,
        "beta": found.beta,
        "surprising": [
            {"filter": each.filter, "score": each.score, "mean": each.mean, "limit": each.limit}
            for each in found.surprising
        ],
        "missed": [
            {"filter": each.filter, "score": each.score, "mean": each.mean, "limit": each.limit}
            for each in found.expected
        ],
        "repair": search(found.repair),
        "unfiltered_repair": search(found.unfiltered_repair),
        "output": str(destination),
    }


def _told(row: dict[str, Any]) -> str:
    def how(repair: dict[str, Any] | None) -> str:
        if repair is None:
            return "there is none"
        return f"yes, {repair['share']:.1%} of the pixels" if repair["fixed"] else "no"

    return (
        f"{row['picture']}: {row['class']['label']} taken for {row['predicted']['label']}, beta {row['beta']:.3g}; "
        f"repaired through a filter: {how(row['repair'])}; without filtering: "
        f"{how(row['unfiltered_repair'])} -> {row['output']}"
    )
