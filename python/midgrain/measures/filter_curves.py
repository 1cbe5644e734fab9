"""Filter removal curves over a data set, of several measures of filters at once."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midgrain.cams.layers import Layer
from midgrain.files import check_writable_folder, write_whole
from midgrain.identity import differences, fingerprint
from midgrain.measures.filters import FilterRemoval, FilterRemover
from midgrain.network.batches import Consumed, labelled_batches
from midgrain.network.modules import model_device
from midgrain.ops.checks import check_bool
from midgrain.progress import progress_bar

__all__ = ["filter_removal_curves"]

_FORMAT = "midgrain filter removal 1"
_SECONDS_BETWEEN_WRITES = 30.0


def filter_removal_curves(
    model: Any,
    loader: Iterable[Any],
    score: Callable[[Tensor, Tensor], Tensor | Mapping[str, Tensor]],
    *,
    step: int = 16,
    order: str = "most",
    layer: Layer | None = None,
    after_norm: bool = False,
    batch_size: int | None = None,
    out: str | Path | None = None,
    progress: bool = False,
) -> dict[str, FilterRemoval]:
    """`filter_removal` over a data set, of several measures of filters in the same passes.

    Args:
        model: see `filter_removal`.
        loader: gives batches (x, y): floats [B, C, *S] and true classes [B], in the same order every time where `out`
            is to be continued. Batches go to the device that the model is on.
        score: `(x, y) -> scores [B, filters]`, or a mapping from names to such scores.
        step: see `filter_removal`.
        order: see `filter_removal`.
        layer: see `filter_removal`.
        after_norm: see `filter_removal`.
        batch_size: see `filter_removal`.
        out: a file (.npz) for what has been measured, written from time to time and at the end. Where it is there
            already, the batches in it are not measured again; one of another network or with other options is refused.
        progress: show a bar.

    Returns:
        Name -> the curves of all samples, on the CPU; of a score that is a tensor the name is "scores". One row per
        sample, so `midgrain.measures.bootstrap_interval` can be had of `.correct`.

    Raises:
        TypeError, ValueError: see `filter_removal`; batches of another kind; an `out` that is of something else, or
            whose batches the loader does not repeat.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(8, 4))
        >>> x = torch.rand(6, 3, 16, 16)
        >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, model(x).argmax(1)), batch_size=3)
        >>> score = lambda x, y: mg.failures.filter_scores(model, x, y, ["grad-amap", "random"])
        >>> curves = mg.measures.filter_removal_curves(model, loader, score, step=4)
        >>> sorted(curves), curves["random"].correct.shape
        (['grad-amap', 'random'], torch.Size([6, 3]))
    """
    if not callable(score):
        raise TypeError(f"score: expected a callable (x, y) -> scores, got {type(score).__name__}")
    remover = FilterRemover(model, step=step, order=order, layer=layer, after_norm=after_norm, batch_size=batch_size)
    shown = check_bool(progress, "progress")
    file = None if out is None else Path(out)
    made_with: dict[str, Any] = {}
    done = Consumed()
    parts: dict[str, list[FilterRemoval]] = {}
    if file is not None:
        check_writable_folder(file.parent, "out")
        file.parent.mkdir(parents=True, exist_ok=True)
        made_with = {
            "model": fingerprint(remover.network),
            "step": remover.step,
            "order": order,
            "layer": layer if layer is None or isinstance(layer, str) else fingerprint(layer),
            "after_norm": after_norm,
        }
        if file.exists():
            done, parts = _read(file, made_with)
    before = written = done.batches
    last, whole = time.monotonic(), True  # Not whole: interrupted while a batch was being noted.
    total = len(loader) if isinstance(loader, Sized) else None
    try:
        with progress_bar("removing filters", total, shown=shown) as advance:
            advance(before)
            for batch in labelled_batches(loader, model_device(model), Consumed(**vars(done)) if before else None):
                y = batch.y.to(batch.x.device)
                found = remover(batch.x, _named(score(batch.x, y), parts), y)
                whole = False
                for name, each in found.items():
                    parts.setdefault(name, []).append(each)
                done.add(batch)
                whole = True
                advance(1)
                if file is not None and time.monotonic() - last > _SECONDS_BETWEEN_WRITES:
                    _write(file, done, parts, made_with)
                    written, last = done.batches, time.monotonic()
    finally:
        if file is not None and whole and done.batches > written:
            _write(file, done, parts, made_with)
    return {name: _joined(each) for name, each in parts.items()}


def _named(scores: Tensor | Mapping[str, Tensor], parts: Mapping[str, Any]) -> Mapping[str, Tensor]:
    named = scores if isinstance(scores, Mapping) else {"scores": scores}
    if not named or (parts and set(parts) != set(named)):
        raise ValueError(f"score: expected the same measures in every batch, {list(parts)}, got {list(named)}")
    return named


def _joined(parts: list[FilterRemoval]) -> FilterRemoval:
    first = parts[0]
    if any(not torch.equal(part.counts, first.counts) for part in parts):
        raise ValueError("score: expected the same filters in every batch; does the layer change with the inputs?")
    return FilterRemoval(
        torch.cat([part.correct.cpu() for part in parts]),
        torch.cat([part.probability.cpu() for part in parts]),
        first.counts.cpu(),
        torch.cat([part.target.cpu() for part in parts]),
    )


def _write(file: Path, done: Consumed, parts: Mapping[str, list[FilterRemoval]], made_with: dict[str, Any]) -> None:
    joined = {name: _joined(each) for name, each in parts.items()}
    first = next(iter(joined.values()))
    about = {"format": _FORMAT, "made_with": made_with, "names": list(joined), "done": vars(done)}
    arrays = {"about": np.array(json.dumps(about)), "counts": first.counts.numpy(), "target": first.target.numpy()}
    for number, each in enumerate(joined.values()):
        arrays |= {f"correct{number}": each.correct.numpy(), f"probability{number}": each.probability.numpy()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_whole(file, lambda to: to.write(buffer.getbuffer()))


def _read(file: Path, made_with: dict[str, Any]) -> tuple[Consumed, dict[str, list[FilterRemoval]]]:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            if about["format"] != _FORMAT:
                raise ValueError(f"format {about['format']!r}")
            counts, target = (torch.from_numpy(arrays[name]) for name in ("counts", "target"))
            parts = {
                name: [
                    FilterRemoval(
                        torch.from_numpy(arrays[f"correct{number}"]),
                        torch.from_numpy(arrays[f"probability{number}"]),
                        counts,
                        target,
                    )
                ]
                for number, name in enumerate(about["names"])
            }
            done = Consumed(**about["done"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(
            f"out: expected curves that were written here before, or no file, got {file} ({error})"
        ) from error
    changed = differences(about["made_with"], made_with)
    if changed:
        raise ValueError(f"out: {file} was made in another way ({'; '.join(changed)}); choose another file")
    return done, parts
