"""Are the superpixels as good as scikit-image's, and as the same algorithm in float64?

Same photographs, same wanted number, compactness 10, 10 iterations. Boundary recall and undersegmentation error take
each other's result as the truth, since there is none: alike values mean neither misses what the other finds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.segmentation import find_boundaries, slic

import midgrain as mg
from benchmarks.common import photographs, report, resized

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from oracles.slic import objective, slic_integer, slic_textbook

WANTED = 300
SIDE = 224
COMPACTNESS = 10.0
LAB_RANGES = list(mg.ops.LAB_RANGES)


def boundary_recall(labels: np.ndarray, truth: np.ndarray, tolerance: int = 2) -> float:
    """Share of the truth's borders with a border of `labels` within `tolerance` pixels."""
    wanted = find_boundaries(truth, mode="inner")
    near = ndimage.distance_transform_cdt(~find_boundaries(labels, mode="inner"), "chessboard") <= tolerance
    return float(near[wanted].mean())


def undersegmentation_error(labels: np.ndarray, truth: np.ndarray) -> float:
    """Pixels that leak: sum over overlaps of min(inside, outside) / pixels (Neubert and Protzel 2012)."""
    overlap = np.zeros((labels.max() + 1, truth.max() + 1), np.int64)
    np.add.at(overlap, (labels.ravel(), truth.ravel()), 1)
    outside = overlap.sum(1, keepdims=True) - overlap
    return float(np.where(overlap > 0, np.minimum(overlap, outside), 0).sum() / labels.size)


def compactness(labels: np.ndarray) -> float:
    """Mean isoperimetric quotient weighted by size, 1 for discs (Schick et al. 2012)."""
    perimeter = np.zeros(labels.max() + 1)
    padded = np.pad(labels, 1, constant_values=-1)
    centre = padded[1:-1, 1:-1]
    for neighbour in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        np.add.at(perimeter, centre.ravel(), (neighbour != centre).ravel())
    size = np.bincount(labels.ravel())
    return float((size / labels.size * 4 * np.pi * size / perimeter**2).sum())


def measure(name: str, photo: np.ndarray) -> dict[str, Any]:
    """One row."""
    ours = mg.slic(photo, WANTED, COMPACTNESS)
    theirs = slic(photo, WANTED, COMPACTNESS, start_label=0)
    lab = mg.ops.rgb_to_lab(photo[None], channel_axis=-1)
    weights = [COMPACTNESS] * 3
    raw, _ = mg.ops.slic(lab, weights, WANTED, ranges=LAB_RANGES, enforce_connectivity=False)
    volume = lab[0][:, None]
    assert np.array_equal(raw, slic_integer(volume, weights, WANTED, ranges=LAB_RANGES)), "kernel differs from oracle"
    textbook = slic_textbook(volume, weights, WANTED)
    raw_theirs = slic(photo, WANTED, COMPACTNESS, start_label=0, enforce_connectivity=False)
    step = (photo.shape[0] * photo.shape[1] / WANTED) ** 0.5
    ours_objective = objective(volume, raw, weights, step)
    return {
        "photograph": name,
        "count": int(ours.max()) + 1,
        "count (skimage)": int(theirs.max()) + 1,
        "recall of theirs": boundary_recall(ours, theirs),
        "recall of ours": boundary_recall(theirs, ours),
        "leak over theirs": undersegmentation_error(ours, theirs),
        "leak over ours": undersegmentation_error(theirs, ours),
        "compactness": compactness(ours),
        "compactness (skimage)": compactness(theirs),
        "objective / skimage": ours_objective / objective(volume, raw_theirs[None], weights, step),
        "objective / float64": ours_objective / objective(volume, textbook, weights, step),
        "labels = float64": float((raw == textbook).mean()),
    }


if __name__ == "__main__":
    rows = [measure(name, resized(photo, SIDE, SIDE)) for name, photo in photographs().items()]
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "photograph"}
    rows.append({"photograph": "mean", **mean})
    report(
        "slic_quality",
        list(rows[0]),
        rows,
        f"{SIDE} x {SIDE}, {WANTED} wanted. Every kernel result equals the integer oracle bit for bit (asserted).",
    )
