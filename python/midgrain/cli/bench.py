"""`midgrain bench`: how fast is it on this machine, beside scikit-image?"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from midgrain.cli import shared
from midgrain.cli.output import console, errors, print_json, say
from midgrain.timing import machine, race, summary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["bench"]

# frames, height, width, wanted superpixels
_SIZES = {
    "224 x 224, 300": (1, 224, 224, 300),
    "1080 x 1920, 2000": (1, 1080, 1920, 2000),
    "16 x 112 x 112, 120": (16, 112, 112, 120),
}
_PICTURES = 3
_LEAST = 1  # calls, however long they take, after one that is not counted
_LONGEST = 60.0


def bench(
    seconds: Annotated[float, typer.Option(help="For each line of the table; slow lines take longer.")] = 1.5,
    quick: Annotated[bool, typer.Option("--quick", help="Small pictures only, a few calls each.")] = False,
    as_json: shared.Json = False,
) -> None:
    """Time superpixels, pooling and an explanation on this machine; about 20 seconds."""
    import midgrain

    if not 0.0 <= seconds <= _LONGEST:
        raise ValueError(f"seconds: expected 0 .. {_LONGEST:g}, got {seconds:g}")
    if quick:
        seconds = 0.0
    kernels = midgrain.build_info()["cpu"]
    threads = sorted({1, kernels["threads"]})
    lines: list[dict[str, Any]] = []
    waiting = contextlib.nullcontext() if as_json or not errors.is_terminal else errors.status("timing")
    with waiting:
        for name in list(_SIZES)[: 1 if quick else None]:
            lines += _superpixels(name, threads, seconds)
        network = _network(seconds, quick)
    facts = {
        "midgrain": midgrain.__version__,
        "machine": machine(),
        "kernels": kernels,
        "lines": lines,
        "network": network,
    }
    if as_json:
        print_json(facts)
        return
    _show(facts, threads)


def _superpixels(name: str, threads: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Superpixels of pictures of one size, and the mean of 16 maps over them."""
    import numpy as np

    import midgrain

    frames, height, width, wanted = _SIZES[name]
    pictures = [_picture(seed, frames, height, width) for seed in range(_PICTURES)]
    lines = [
        _line(
            f"slic, {name}",
            lambda picture, n: midgrain.slic(picture, wanted, num_threads=n),
            _skimage_slic(wanted),
            pictures,
            threads,
            seconds,
        )
    ]
    labelled = [(np.stack([p[..., 0].astype(np.float32)] * 16), midgrain.slic(p, wanted)) for p in pictures]
    lines.append(
        _line(
            f"pool, 16 x {name.partition(',')[0]}",
            lambda pair, n: midgrain.pool(*pair, spatial_dims=3 if frames > 1 else 2, num_threads=n),
            None,
            labelled,
            threads,
            seconds / 5,
        )
    )
    return lines


def _line(
    what: str,
    call: Callable[[Any, int], Any],
    peer: Callable[[Any], Any] | None,
    inputs: Sequence[Any],
    threads: Sequence[int],
    seconds: float,
) -> dict[str, Any]:
    """One thing with every thread count, and the peer's times beside it."""

    def with_threads(n: int) -> Callable[[Any], Any]:
        return lambda item: call(item, n)

    contestants = {str(n): with_threads(n) for n in threads}
    if peer is not None:
        contestants["scikit-image"] = peer
    times = race(contestants, inputs, seconds, least=_LEAST)
    figures = {name: summary(values, len(inputs)) for name, values in times.items()}
    line: dict[str, Any] = {"what": what, "threads": {n: figures[str(n)] for n in threads}}
    if peer is not None:
        other = line["scikit-image"] = figures["scikit-image"]
        line["times faster"] = {n: other["fastest"] / figures[str(n)]["fastest"] for n in threads}
    return line


def _skimage_slic(wanted: int) -> Callable[[Any], Any]:
    from skimage.segmentation import slic

    return lambda picture: slic(picture, wanted, start_label=0)


def _network(seconds: float, quick: bool) -> dict[str, Any]:
    """SWAG on the demo network beside the network's own forward and backward pass."""
    import torch

    from midgrain.models import load_model
    from midgrain.pictures import Preprocess
    from midgrain.regions import SWAG

    try:
        loaded = load_model("demo")
        assert isinstance(loaded.preprocess, Preprocess)
    except ModuleNotFoundError as error:
        return {"missing": str(error)}
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (loaded.preprocess.mean, loaded.preprocess.std))
    side = loaded.preprocess.crop
    inputs = [
        ((torch.from_numpy(_picture(seed, 1, side, side)).movedim(-1, 0) / 255 - mean) / std)[None]
        for seed in range(1 if quick else _PICTURES)
    ]

    def passes(x: torch.Tensor) -> None:
        leaf = x.clone().requires_grad_(True)
        outputs = loaded.model(leaf)
        torch.autograd.grad(outputs.amax(1).sum(), leaf)

    times = race({"passes": passes, "swag-ig": SWAG(loaded.model)}, inputs, seconds, least=_LEAST)
    plain, whole = (summary(times[name], len(inputs)) for name in ("passes", "swag-ig"))
    return {
        "name": f"EfficientNet-Lite0, {side} x {side}",
        "threads": torch.get_num_threads(),
        "forward and backward": plain,
        "swag-ig": whole,
        "ratio": whole["fastest"] / plain["fastest"],
    }


def _picture(seed: int, frames: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture, or a clip that pans over one, uint8 RGB: coarse to fine blots, edges and noise as photographs have."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    wide = width + frames - 1
    values = np.zeros((height, wide, 3))
    for level in range(round(math.log2(max(height, wide) / 3))):
        cells = 3 * 2**level
        blots = random.normal(0.0, 1.0, (cells, cells, 1)) + random.normal(0.0, 0.3, (cells, cells, 3))
        bands = [Image.fromarray(blots[..., c].astype(np.float32)) for c in range(3)]
        layer = np.stack([np.asarray(band.resize((wide, height), Image.Resampling.BICUBIC)) for band in bands], -1)
        # Some layers have edges, where they change sign.
        values += (np.sign(layer) if level in (1, 3) else layer) / math.sqrt(cells)
    low, high = np.percentile(values, (1, 99))
    noisy = (values - low) / (high - low) * 255 + random.normal(0.0, 2.0, values.shape)
    picture: npt.NDArray[np.uint8] = np.clip(noisy, 0, 255).astype(np.uint8)
    if frames == 1:
        return picture
    return np.stack([picture[:, t : t + width] for t in range(frames)])


def _show(facts: dict[str, Any], threads: Sequence[int]) -> None:
    here, kernels = facts["machine"], facts["kernels"]
    say(f"{here['processor']}, {here['cores']} cores; midgrain {facts['midgrain']}, {kernels['instruction_set']}")
    table = Table(box=None, pad_edge=False)
    table.add_column("milliseconds", no_wrap=True)
    for n in threads:
        table.add_column(f"{n} thread{'s' if n > 1 else ''}", justify="right")
    table.add_column("scikit-image", justify="right")
    table.add_column("times faster", justify="right")
    for line in facts["lines"]:
        cells = [line["what"], *(_milliseconds(line["threads"][n]) for n in threads)]
        if "scikit-image" in line:
            cells += [
                _milliseconds(line["scikit-image"]),
                " / ".join(f"{line['times faster'][n]:.3g}" for n in threads),
            ]
        table.add_row(*cells)
    console.print(table)
    network = facts["network"]
    if "missing" in network:
        say(f"no explanation timed: {network['missing']}")
        return
    say(
        f"{network['name']}, {network['threads']} threads: forward and backward pass "
        f"{_milliseconds(network['forward and backward'])} ms, whole explanation (swag-ig) "
        f"{_milliseconds(network['swag-ig'])} ms, {network['ratio']:.2f} times as long"
    )


def _milliseconds(times: dict[str, float]) -> str:
    value = times["fastest"]
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
