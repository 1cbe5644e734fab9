"""How long do superpixels take, from a uint8 picture to connected labels, beside other libraries in the same run?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import midgrain as mg
from benchmarks.common import (
    COMPACTNESS,
    ITERATIONS,
    LAB_RANGES,
    assert_connected,
    lab_features,
    parser,
    pictures,
    report,
    slope,
)
from benchmarks.floors import CASES, multiply_adds, slic_floor
from benchmarks.peers import Peer, all_peers
from midgrain.timing import race, summary
from oracles.connectivity import connect
from oracles.slic import slic_integer

THREADS = (1, 2)
GRADIENT_COMPACTNESS = 9.0
BATCH = 32


def superpixels(picture: np.ndarray, gradient: np.ndarray | None, wanted: int, threads: int) -> np.ndarray:
    """Labels by midgrain."""
    return mg.slic(
        picture,
        wanted,
        COMPACTNESS,
        ITERATIONS,
        gradient=gradient,
        gradient_compactness=GRADIENT_COMPACTNESS,
        num_threads=threads,
    )


def assert_right() -> None:
    """On a small picture and a small clip the labels are those of the slow definition, with and without gradient."""
    for frames, height, width, wanted in ((1, 60, 80, 40), (6, 20, 24, 12)):
        for picture in pictures(3, frames, height, width):
            for gradient in (None, slope(picture)):
                features = lab_features(picture)
                features = features if frames > 1 else features[:, None]
                weights, ranges = [COMPACTNESS] * 3, list(LAB_RANGES)
                if gradient is not None:
                    scaled = (gradient - gradient.min()) / np.ptp(gradient) * np.float32(100)
                    features = np.concatenate([features, scaled.reshape(1, *features.shape[1:])])
                    weights, ranges = [*weights, GRADIENT_COMPACTNESS], [*ranges, mg.ops.GRADIENT_RANGE]
                raw = slic_integer(features, weights, wanted, ITERATIONS, ranges=ranges)
                expected, _ = connect(raw, math.ceil(0.5 * raw.size / wanted))
                found = superpixels(picture, gradient, wanted, 1)
                assert np.array_equal(found.ravel(), expected.ravel()), "labels are not those of the definition"


def assert_same(items: list[tuple[np.ndarray, np.ndarray]], wanted: int) -> None:
    """Connected, and the same for every thread count."""
    for picture, gradient in items:
        for extra in (None, gradient):
            one = superpixels(picture, extra, wanted, 1)
            assert_connected(one)
            for threads in THREADS[1:]:
                assert np.array_equal(one, superpixels(picture, extra, wanted, threads)), "labels depend on threads"


def rows_of(name: str, case: tuple[int, int, int, int], count: int, seconds: float, peers: list[Peer]) -> list[Any]:
    """One row per way, on `count` different pictures of one size."""
    frames, height, width, wanted = case
    items = [(picture, slope(picture)) for picture in pictures(count, frames, height, width)]
    assert_same(items[:3], wanted)
    contestants: dict[str, Callable[[tuple[np.ndarray, np.ndarray]], Any]] = {}
    ways: dict[str, tuple[str, int]] = {}
    before = {}

    def enter(way: str, threads: int, call: Callable[[tuple[np.ndarray, np.ndarray]], Any]) -> str:
        key = f"{way}, {threads}"
        contestants[key], ways[key] = call, (way, threads)
        return key

    for threads in THREADS:
        enter("midgrain, image + gradient", threads, lambda item, t=threads: superpixels(*item, wanted, t))
        enter("midgrain, image", threads, lambda item, t=threads: superpixels(item[0], None, wanted, t))
    for peer in peers:
        if frames > 1 and not peer.volumes:
            continue
        key = enter(peer.name, peer.threads, lambda item, run=peer.run: run(item[0], wanted))
        if peer.before is not None:
            before[key] = peer.before
    # fast-slic and OpenCV have busy workers.
    times = race(contestants, items, seconds, least=2 * len(items), before=before, rest=0.01)
    figures = {key: summary(values, len(items)) for key, values in times.items()}

    base = {threads: figures[f"midgrain, image, {threads}"][_clock(threads)] for threads in THREADS}

    rows = []
    for key, (way, threads) in ways.items():
        shown = figures[key]
        rows.append(
            {
                "size, superpixels": name,
                "": way,
                "threads": threads,
                "CPU [ms]": shown["cpu"] if threads == 1 else "",
                "fastest [ms]": shown["fastest"],
                "median [ms]": shown["median"],
                "10 % .. 90 %": f"{shown['p10']:.3g} .. {shown['p90']:.3g}",
                "runs": shown["runs"],
                "x midgrain, image": shown[_clock(threads)] / base[threads],
            }
        )
    for threads in THREADS:
        floor = slic_floor(case, channels=4, rate=multiply_adds(threads, 0.1))
        rows.append(
            {
                **dict.fromkeys(rows[0], ""),
                "size, superpixels": name,
                "": "floor: arithmetic of all candidates, image + gradient",
                "threads": threads,
                "fastest [ms]": floor,
                "x midgrain, image": floor / base[threads],
            }
        )
    return rows


def _clock(threads: int) -> str:
    """One thread's time on a core is what it costs on an idle machine; several threads have only the wall's."""
    return "cpu" if threads == 1 else "fastest"


def batch_rows(count: int, seconds: float) -> list[dict[str, Any]]:
    """A batch of pictures through midgrain.ops, features ready."""
    features = []
    for picture in pictures(count, 1, 224, 224):
        gradient = slope(picture)
        scaled = (gradient - gradient.min()) / np.ptp(gradient) * np.float32(100)
        features.append(np.concatenate([lab_features(picture), scaled[None]]))
    batch = np.stack(features)
    weights = [COMPACTNESS] * 3 + [GRADIENT_COMPACTNESS]
    ranges = [*LAB_RANGES, mg.ops.GRADIENT_RANGE]

    def run(items: np.ndarray, threads: int) -> np.ndarray:
        return mg.ops.slic(items, weights, 300, max_num_iter=ITERATIONS, ranges=ranges, num_threads=threads)[0]

    assert np.array_equal(run(batch, 1), run(batch, 2)), "labels depend on threads"
    orders = [np.ascontiguousarray(np.roll(batch, shift, axis=0)) for shift in range(0, count, max(1, count // 4))]
    times = race({str(t): (lambda items, t=t: run(items, t)) for t in THREADS}, orders, seconds)
    one, two = (summary(times[str(t)], len(orders))["fastest"] / count for t in THREADS)
    return [
        {
            "batch": f"{count} of 224 x 224, 300",
            "1 thread [ms per image]": one,
            "2 threads [ms per image]": two,
            "speed-up": one / two,
            "efficiency": one / two / 2,
        }
    ]


def main() -> None:
    """Print the tables."""
    arguments = parser("slic_speed", __doc__).parse_args()
    assert_right()
    peers, missing = all_peers(THREADS)
    rows: list[Any] = []
    seconds = 0.0 if arguments.quick else 12.0
    for name, *case in CASES[:1] if arguments.quick else CASES:
        large = case[0] * case[1] * case[2] > 1_000_000
        rows += rows_of(name, tuple(case), 1 if arguments.quick else 2 if large else 8, seconds, peers)
    batch = batch_rows(4 if arguments.quick else BATCH, seconds / 4)
    report(
        arguments,
        {"Superpixels of one picture": rows, "Scaling over a batch": batch},
        [
            f"Compactness {COMPACTNESS:g}, {ITERATIONS} iterations. 'Fastest' is the median over the pictures "
            "of each one's fastest run, 'CPU' likewise the time that a single thread had a core. The last column "
            "compares with midgrain's for the image alone and as many threads: by CPU for one thread, else by "
            "fastest. scikit-image computes the same features and "
            "windows; OpenCV and fast-slic work on colours of 8 bits and windows of one step, a quarter of the "
            "candidates, fast-slic by default on every third row.",
            *missing,
        ],
    )


if __name__ == "__main__":
    main()
