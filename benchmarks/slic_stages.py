"""Where does the time of superpixels and their scores go? Each public operation alone, beside its like elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.measure import label
from skimage.segmentation import slic

import midgrain as mg
from benchmarks.common import (
    COMPACTNESS,
    ITERATIONS,
    LAB_RANGES,
    lab_features,
    parser,
    pictures,
    report,
    slope,
)
from benchmarks.floors import CASES
from midgrain.timing import race, summary

WEIGHTS = [COMPACTNESS] * 3 + [9.0]
RANGES = [*LAB_RANGES, mg.ops.GRADIENT_RANGE]
PLANES = 24
WHOLE = "whole mg.slic"

Call = Callable[[dict[str, Any]], Any]


def prepare(picture: np.ndarray, wanted: int) -> dict[str, Any]:
    """What every stage takes, computed by the stage before it."""
    gradient = slope(picture)
    scaled = (gradient - gradient.min()) / np.ptp(gradient) * np.float32(100)
    features = np.concatenate([lab_features(picture), scaled[None]])[None]
    raw, _ = mg.ops.slic(features, WEIGHTS, wanted, ranges=RANGES, enforce_connectivity=False)
    labels = mg.slic(picture, wanted, gradient=gradient)
    values = np.random.default_rng(0).standard_normal((PLANES, *labels.shape), np.float32)
    return {
        "wanted": wanted,
        "picture": picture,
        "gradient": gradient,
        "features": features,
        "raw": raw,
        "labels": labels,
        "values": values,
        "scores": mg.pool(values, labels),
    }


def ours(threads: int) -> dict[str, Call]:
    """Stages of midgrain by name; the last one is the whole of those before pooling."""

    def cluster(item: dict[str, Any]) -> Any:
        return mg.ops.slic(
            item["features"],
            WEIGHTS,
            item["wanted"],
            max_num_iter=ITERATIONS,
            ranges=RANGES,
            enforce_connectivity=False,
            num_threads=threads,
        )

    def connect(item: dict[str, Any]) -> Any:
        size = -(-item["raw"].size // (2 * item["wanted"]))
        return mg.ops.enforce_connectivity(item["raw"], size, num_threads=threads)

    return {
        "Lab": lambda item: mg.ops.rgb_to_lab(item["picture"][None], channel_axis=-1, num_threads=threads),
        "clustering": cluster,
        "connectivity": connect,
        "pool: mean, 1 plane": lambda item: mg.pool(item["values"][0], item["labels"], num_threads=threads),
        f"pool: mean, {PLANES} planes": lambda item: mg.pool(item["values"], item["labels"], num_threads=threads),
        "pool: max, 1 plane": lambda item: mg.pool(item["values"][0], item["labels"], "max", num_threads=threads),
        "pool: median, 1 plane": lambda item: mg.pool(item["values"][0], item["labels"], "median", num_threads=threads),
        "paint, 1 plane": lambda item: mg.paint(item["scores"][0], item["labels"], num_threads=threads),
        f"paint, {PLANES} planes": lambda item: mg.paint(item["scores"], item["labels"], num_threads=threads),
        WHOLE: lambda item: mg.slic(
            item["picture"], item["wanted"], COMPACTNESS, ITERATIONS, gradient=item["gradient"], num_threads=threads
        ),
    }


def theirs() -> dict[str, tuple[str, Call]]:
    """By the name of our stage: whose it is, and the call, all on one thread."""

    def index(item: dict[str, Any]) -> np.ndarray:
        return np.arange(item["scores"].shape[1])

    def means(item: dict[str, Any]) -> np.ndarray:
        flat = item["labels"].ravel()
        sizes = np.bincount(flat)
        return np.stack([np.bincount(flat, plane.ravel()) for plane in item["values"]]) / sizes

    return {
        "Lab": ("skimage.color.rgb2lab", lambda item: rgb2lab(item["picture"])),
        "clustering": (
            "skimage slic, image only, with its Lab",
            lambda item: slic(
                item["picture"], item["wanted"], COMPACTNESS, max_num_iter=ITERATIONS, enforce_connectivity=False
            ),
        ),
        "connectivity": (
            "skimage.measure.label: pieces, nothing merged",
            lambda item: label(item["raw"][0], background=-1, connectivity=1),
        ),
        "pool: mean, 1 plane": (
            "scipy.ndimage.mean",
            lambda item: ndimage.mean(item["values"][0], item["labels"], index(item)),
        ),
        f"pool: mean, {PLANES} planes": ("numpy.bincount per plane", means),
        "pool: max, 1 plane": (
            "scipy.ndimage.maximum",
            lambda item: ndimage.maximum(item["values"][0], item["labels"], index(item)),
        ),
        "pool: median, 1 plane": (
            "scipy.ndimage.median",
            lambda item: ndimage.median(item["values"][0], item["labels"], index(item)),
        ),
        "paint, 1 plane": ("numpy.take", lambda item: np.take(item["scores"][0], item["labels"])),
        f"paint, {PLANES} planes": ("numpy.take", lambda item: np.take(item["scores"], item["labels"], axis=1)),
    }


def assert_right(item: dict[str, Any]) -> None:
    """What is timed beside another library gives what it gives."""
    stages = ours(1)
    for name, (_, call) in theirs().items():
        if name.startswith(("pool", "paint")):
            np.testing.assert_allclose(stages[name](item), call(item), rtol=1e-4, atol=1e-4, err_msg=name)
    lab = np.moveaxis(rgb2lab(item["picture"]), -1, 0)
    np.testing.assert_allclose(stages["Lab"](item)[0], lab, atol=0.02)
    for one, two in zip(stages.values(), ours(2).values(), strict=True):
        np.testing.assert_array_equal(np.asarray(one(item)[0]), np.asarray(two(item)[0]))


def rows_of(name: str, case: tuple[int, int, int, int], count: int, seconds: float) -> list[dict[str, Any]]:
    """One row per stage."""
    frames, height, width, wanted = case
    items = [prepare(picture, wanted) for picture in pictures(count, frames, height, width)]
    assert_right(items[0])
    stages = {threads: ours(int(threads)) for threads in ("1", "2")}
    peers = theirs()
    fastest: dict[tuple[str, str], float] = {}
    after = [stage for stage in stages["1"] if stage.startswith(("pool", "paint"))]
    for group in ([stage for stage in stages["1"] if stage not in after], after):
        calls = {(stage, threads): stages[threads][stage] for stage in group for threads in stages}
        calls |= {(stage, "peer"): peers[stage][1] for stage in group if stage in peers}
        times = race({" ".join(key): call for key, call in calls.items()}, items, seconds)
        figures = {key: summary(times[" ".join(key)], len(items)) for key in calls}
        fastest |= {key: value["fastest" if key[1] == "2" else "cpu"] for key, value in figures.items()}
    rows = []
    for stage in stages["1"]:
        one, two = (fastest[stage, threads] for threads in stages)
        shares = (f"{fastest[stage, threads] / fastest[WHOLE, threads]:.0%}" for threads in stages)
        theirs_ms = fastest.get((stage, "peer"))
        rows.append(
            {
                "size, superpixels": name,
                "stage": stage,
                "1 thread [ms]": one,
                "2 threads [ms]": two,
                "share of mg.slic": "" if stage in after else ", ".join(shares),
                "beside, 1 thread": peers[stage][0] if stage in peers else "",
                "[ms]": "" if theirs_ms is None else theirs_ms,
                "ratio, 1 thread": "" if theirs_ms is None else theirs_ms / one,
            }
        )
    return rows


def main() -> None:
    """Print the table."""
    arguments = parser("slic_stages", __doc__).parse_args()
    rows: list[dict[str, Any]] = []
    for name, *case in CASES[:1] if arguments.quick else CASES:
        frames, height, width, _ = case
        count = 2 if arguments.quick or frames * height * width > 1_000_000 else 7
        rows += rows_of(name, tuple(case), count, 0.0 if arguments.quick else 8.0)
    report(
        arguments,
        {"Stages": rows},
        [
            "Medians over the pictures of each one's fastest run; for one thread by its time on a core. Shares are for "
            "1 and 2 threads. What the stages leave of the whole is the gradient's scaling, checks and copies. Planes "
            "are float32 values of the picture's size."
        ],
    )


if __name__ == "__main__":
    main()
