"""Are the superpixels as good as scikit-image's, and as the same algorithm in float64?

The same float features, wanted number, weights and iterations for all. There is no truth but for one photograph with
measured depth; elsewhere boundary recall and undersegmentation error take the other library's result as the truth, at
an equal number of superpixels: alike values mean that neither misses what the other finds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.segmentation import find_boundaries, slic

import midgrain as mg
from benchmarks.common import (
    COMPACTNESS,
    ITERATIONS,
    LAB_RANGES,
    SKIMAGE_DATA,
    lab_features,
    parser,
    photographs,
    pictures,
    pieces,
    report,
    resized,
    slope,
)
from benchmarks.peers import all_peers
from oracles.slic import make_plan, objective, slic_integer, slic_textbook

COMPACTNESSES = (5.0, 10.0, 20.0, 40.0)
COUNTS = (50, 100, 300, 1000, 2000)
SIDES = (112, 224)
GRADIENT_COMPACTNESS = 9.0
LEAST_PIXELS = 16  # per superpixel, in the sweep
UNROUNDED = "equal labels, float64 with the picture's rounding undone"


@dataclass(frozen=True)
class Features:
    """Channels that share one weight: a gradient is scaled so that it counts with its own."""

    values: np.ndarray  # float32 [C, (T,) H, W]
    ranges: list[tuple[float, float]]
    weight: float

    @property
    def volume(self) -> np.ndarray:
        """The values as [C, T, H, W]."""
        return self.values if self.values.ndim == 4 else self.values[:, None]

    @property
    def weights(self) -> list[float]:
        """One per channel."""
        return [self.weight] * len(self.values)


def features_of(picture: np.ndarray, weight: float, *, gradient: bool = False) -> Features:
    """Colours, and with them the slope of the brightness where a gradient is wanted."""
    lab = lab_features(picture)
    if not gradient:
        return Features(lab, list(LAB_RANGES), weight)
    steepness = slope(picture)
    scale = weight / GRADIENT_COMPACTNESS
    scaled = (steepness - steepness.min()) / np.ptp(steepness) * np.float32(100 * scale)
    return Features(np.concatenate([lab, scaled[None]]), [*LAB_RANGES, (0.0, 100 * scale)], weight)


def dithered(picture: np.ndarray, weight: float) -> Features:
    """Colours of the same picture before it was rounded to bytes, as far as anybody can know."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, picture.shape)
    unit = np.clip((picture + noise) / 255, 0.0, 1.0).astype(np.float32)
    return Features(mg.ops.rgb_to_lab(np.moveaxis(unit, -1, 0)[None])[0], list(LAB_RANGES), weight)


def ours(features: Features, wanted: int, *, connected: bool = True, smallest: float = 0.5) -> np.ndarray:
    """Labels by midgrain."""
    labels, _ = mg.ops.slic(
        features.values[None],
        features.weights,
        wanted,
        max_num_iter=ITERATIONS,
        ranges=features.ranges,
        enforce_connectivity=connected,
        min_size_factor=smallest,
    )
    return labels[0]


def theirs(features: Features, wanted: int, *, connected: bool = True) -> np.ndarray:
    """Labels by scikit-image; it rescales what it gets to 0 .. 1, which the compactness undoes."""
    return slic(
        features.values.astype(np.float64),
        wanted,
        features.weight / float(np.ptp(features.values)),
        max_num_iter=ITERATIONS,
        convert2lab=False,
        enforce_connectivity=connected,
        start_label=0,
        channel_axis=0,
    )


def with_count(features: Features, target: int, smallest: float = 0.5) -> np.ndarray:
    """Superpixels by midgrain, asked for as many as it takes to get close to `target`."""
    wanted, best = target, None
    for _ in range(4):
        labels = ours(features, wanted, smallest=smallest)
        count = int(labels.max()) + 1
        if best is None or abs(count - target) < abs(int(best.max()) + 1 - target):
            best = labels
        wanted = max(1, round(wanted * target / count))
    assert best is not None
    return best


def boundary_recall(labels: np.ndarray, borders: np.ndarray, tolerance: int = 2) -> float:
    """Share of the true border pixels with a border of `labels` within `tolerance` pixels."""
    near = ndimage.distance_transform_cdt(~find_boundaries(labels, mode="inner"), "chessboard") <= tolerance
    return float(near[borders].mean())


def undersegmentation_error(labels: np.ndarray, truth: np.ndarray) -> float:
    """Pixels that leak: sum over overlaps of min(inside, outside) / pixels (Neubert and Protzel 2012)."""
    width = int(truth.max()) + 1
    joint = np.bincount(labels.ravel() * width + truth.ravel(), minlength=(int(labels.max()) + 1) * width)
    overlap = joint.reshape(-1, width)
    outside = overlap.sum(1, keepdims=True) - overlap
    return float(np.where(overlap > 0, np.minimum(overlap, outside), 0).sum() / labels.size)


def compactness(labels: np.ndarray) -> float:
    """Mean isoperimetric quotient weighted by size, 1 for discs (Schick et al. 2012)."""
    perimeter = np.zeros(labels.max() + 1)
    padded = np.pad(labels, 1, constant_values=-1)
    centre = padded[1:-1, 1:-1]
    for neighbour in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        perimeter += np.bincount(centre.ravel(), (neighbour != centre).ravel(), minlength=len(perimeter))
    size = np.bincount(labels.ravel())
    return float((size / labels.size * 4 * np.pi * size / perimeter**2).sum())


def squared_distances(features: Features, labels: np.ndarray, count: int) -> float:
    """The objective, the sum of D'^2 over all pixels, with the grid step of `count` superpixels."""
    volume = features.volume
    step = make_plan(volume.shape[1:], count, (1.0, 1.0, 1.0), [1.0]).step
    return objective(volume, labels.reshape(volume.shape[1:]), features.weights, step)


def beside_skimage(picture: np.ndarray, wanted: int, gradient: bool) -> dict[str, tuple[float, float]]:
    """Measures of one picture: (midgrain's, scikit-image's)."""
    features = features_of(picture, COMPACTNESS, gradient=gradient)
    other = theirs(features, wanted)
    count = int(other.max()) + 1
    own = with_count(features, count)
    raw_other = theirs(features, wanted, connected=False)
    centres = len(np.unique(raw_other))
    raw_own = ours(features, centres, connected=False)
    reference = squared_distances(features, raw_other, centres)
    result = {
        "superpixels / wanted": ((int(ours(features, wanted).max()) + 1) / wanted, count / wanted),
        "boundary recall of the other's": (
            boundary_recall(own, find_boundaries(other, mode="inner")),
            boundary_recall(other, find_boundaries(own, mode="inner")),
        ),
        "undersegmentation error over the other's": (
            undersegmentation_error(own, other),
            undersegmentation_error(other, own),
        ),
        "sum of squared distances, scikit-image = 1": (
            squared_distances(features, raw_own, centres) / reference,
            1.0,
        ),
    }
    if picture.ndim == 3:
        result["compactness"] = (compactness(own), compactness(other))
    return result


def comparison(
    name: str, photos: Sequence[np.ndarray], wanted: Callable[[int], int], gradient: bool = False
) -> tuple[list[Any], list[Any]]:
    """Rows of means and worst cases, and all values."""
    runs = [beside_skimage(photo, wanted(photo[..., 0].size), gradient) for photo in photos]
    rows = []
    for measure in runs[0]:
        both = np.array([run[measure] for run in runs])
        if measure.startswith("superpixels"):
            worst = both[np.abs(both - 1).argmax(0), [0, 1]]
        elif measure.startswith(("boundary", "compactness")):
            worst = both.min(0)
        else:
            worst = both.max(0)
        rows.append(
            {
                "pictures": f"{len(runs)} of {name}",
                "measure": measure,
                "midgrain, mean": float(both[:, 0].mean()),
                "midgrain, worst": float(worst[0]),
                "scikit-image, mean": float(both[:, 1].mean()),
                "scikit-image, worst": float(worst[1]),
            }
        )
    return rows, [{"pictures": name, **run} for run in runs]


def peer_rows(photos: Sequence[np.ndarray], wanted: int) -> list[dict[str, Any]]:
    """What the libraries that are timed beside midgrain give for their time: means over the photographs."""
    rows = []
    for peer in all_peers((1,))[0]:
        counts, objectives, split = [], [], []
        for photo in photos:
            features = features_of(photo, COMPACTNESS)
            values, labels = np.unique(peer.run(photo, wanted), return_inverse=True)
            labels = labels.reshape(photo.shape[:2])
            own = with_count(features, len(values), peer.smallest)
            counts.append(len(values))
            objectives.append(squared_distances(features, labels, wanted) / squared_distances(features, own, wanted))
            split.append(np.mean(np.array(pieces(labels)) > 1))
        rows.append(
            {
                "": peer.name,
                "superpixels / wanted": float(np.mean(counts)) / wanted,
                "sum of squared distances, midgrain with as many and as small = 1": float(np.mean(objectives)),
                "worst": float(max(objectives)),
                "labels in several pieces": f"{np.mean(split):.1%}",
                "smallest, of the expected size": peer.smallest,
            }
        )
    return rows


def depth_rows(counts: Sequence[int]) -> list[dict[str, Any]]:
    """Borders of measured depth (Middlebury's motorcycle) that superpixels' borders follow within 2 pixels."""
    photo = photographs()["motorcycle"]
    disparity = np.load(SKIMAGE_DATA / "motorcycle_disp.npz")["arr_0"]
    known = np.isfinite(disparity)
    borders = np.zeros(known.shape, bool)
    for axis in (0, 1):
        near = [np.take(a, range(1, a.shape[axis]), axis) for a in (disparity, known)]
        far = [np.take(a, range(a.shape[axis] - 1), axis) for a in (disparity, known)]
        with np.errstate(invalid="ignore"):
            jump = (np.abs(near[0] - far[0]) > 2) & near[1] & far[1]
        borders[tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))] |= jump
    features = features_of(photo, COMPACTNESS)
    rows = []
    for wanted in counts:
        other = theirs(features, wanted)
        own = with_count(features, int(other.max()) + 1)
        rows.append(
            {
                "superpixels, midgrain": int(own.max()) + 1,
                "scikit-image": int(other.max()) + 1,
                "recall of depth borders, midgrain": boundary_recall(own, borders),
                "recall, scikit-image": boundary_recall(other, borders),
            }
        )
    return rows


def agreement(
    name: str, photo: np.ndarray, wanted: int, weight: float, *, gradient: bool = False, exact: bool = False
) -> dict[str, Any]:
    """One setting against the textbook in float64, and the integer definition's slow twin where `exact`."""
    features = features_of(photo, weight, gradient=gradient)
    volume, weights = features.volume, features.weights
    raw = ours(features, wanted, connected=False).reshape(volume.shape[1:])
    if exact:
        twin = slic_integer(volume, weights, wanted, ITERATIONS, ranges=features.ranges)
        assert np.array_equal(raw, twin), "labels are not those of the definition"
    textbook = slic_textbook(volume, weights, wanted, ITERATIONS)
    ratio = squared_distances(features, raw, wanted) / squared_distances(features, textbook, wanted)
    again = None
    if not gradient:
        other = slic_textbook(dithered(photo, weight).volume, weights, wanted, ITERATIONS)
        again = float((other == textbook).mean())
    return {
        "photograph": name,
        "shape": list(photo.shape[:-1]),
        "wanted": wanted,
        "features": "image + gradient" if gradient else "image",
        "compactness": weight,
        "equal labels": float((raw == textbook).mean()),
        "objective / float64 - 1": ratio - 1,
        UNROUNDED: again,
    }


def agreement_rows(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means and worst cases per size, per compactness, per count and over all."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        size = " x ".join(map(str, run["shape"])) if run["photograph"] == "clip" or run["shape"][0] in SIDES else "full"
        names = (
            run["features"],
            f"size {size}",
            f"compactness {run['compactness']:g}",
            f"wanted {run['wanted']}",
            "all",
        )
        for group in names:
            groups.setdefault(group, []).append(run)
    order = sorted(groups, key=lambda group: (group == "all", group.split()[0]))
    rows = []
    for group in order:
        equal = [run["equal labels"] for run in groups[group]]
        again = [run[UNROUNDED] for run in groups[group] if run[UNROUNDED] is not None]
        excess = [100 * run["objective / float64 - 1"] for run in groups[group]]
        rows.append(
            {
                "settings": group,
                "runs": len(equal),
                "equal labels, mean": f"{np.mean(equal):.2%}",
                "worst": f"{min(equal):.2%}",
                "float64 before rounding to bytes, mean": f"{np.mean(again):.2%}" if again else "",
                "worst of it": f"{min(again):.2%}" if again else "",
                "objective against float64, mean [%]": f"{np.mean(excess):+.3f}",
                "worst [%]": f"{max(excess):+.3f}",
                "best [%]": f"{min(excess):+.3f}",
            }
        )
    return rows


def sweep(quick: bool) -> list[dict[str, Any]]:
    """Every photograph, small and middling, in all settings; full size and clips in some."""
    photos = dict(list(photographs().items())[: 1 if quick else None])
    runs = []
    for name, photo in photos.items():
        for side in SIDES[:1] if quick else SIDES:
            small = resized(photo, side, side)
            settings = itertools.product(COMPACTNESSES[: 1 if quick else None], COUNTS[: 1 if quick else None])
            runs += [
                agreement(name, small, wanted, weight, exact=weight == COMPACTNESS)
                for weight, wanted in settings
                if wanted * LEAST_PIXELS <= side * side
            ]
        if not quick:
            runs.append(agreement(name, photo, 300, COMPACTNESS))
            small = resized(photo, 224, 224)
            runs += [agreement(name, small, wanted, 20.0, gradient=True, exact=True) for wanted in (100, 300)]
    if not quick:
        for clip in pictures(2, 16, 112, 112):
            runs += [agreement("clip", clip, 120, weight, exact=True) for weight in (10.0, 20.0)]
    return runs


def main() -> None:
    """Print the tables."""
    arguments = parser("slic_quality", __doc__).parse_args()
    quick = arguments.quick
    photos = list(photographs().values())[: 1 if quick else None]
    small = [resized(photo, 224, 224) for photo in photos]
    sets: list[tuple[Any, ...]] = [("224 x 224, 300 wanted", small, lambda _: 300)]
    if not quick:
        sets.append(("224 x 224, 300 wanted, image + gradient", small, lambda _: 300, True))
        sets.append(("full size, 1 per 167 pixels wanted", photos, lambda pixels: round(pixels / 167)))
        sets.append(("16 x 112 x 112, 120 wanted", pictures(3, 16, 112, 112), lambda _: 120))
    rows: list[Any] = []
    details: list[Any] = []
    for each in sets:
        some_rows, runs = comparison(*each)
        rows += some_rows
        details += runs
    settings = sweep(quick)
    report(
        arguments,
        {
            "Beside scikit-image": rows,
            "What the others' superpixels are worth, 224 x 224, 300 wanted": peer_rows(small, 300),
            "Borders of measured depth": depth_rows((300,) if quick else (150, 300, 600, 1200)),
            "Against the textbook in float64": agreement_rows(settings),
        },
        [
            f"Compactness {COMPACTNESS:g} where nothing else is said, {ITERATIONS} iterations. Recall, "
            "undersegmentation error and compactness are of connected superpixels, as many for both libraries; sums of "
            "squared distances and equal labels are before connectivity. Results were compared bit for bit with the "
            "slow integer definition where compactness is 10 (but for full size) and on the clips."
        ],
        {"beside scikit-image": details, "against the textbook": settings},
    )


if __name__ == "__main__":
    main()
