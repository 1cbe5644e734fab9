"""How long does connectivity take on what SLIC leaves, beside scikit-image in the same run?

scikit-image has no public function for it: its `label` finds the connected pieces only, and the merging of small ones
is part of its `slic`, from where the private function is taken. That one merges in scan order, so its result differs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from skimage.measure import label
from skimage.segmentation._slic import _enforce_label_connectivity_cython

import midgrain as mg
from benchmarks.common import parser, pictures, race_calls, report
from midgrain.ops.slic import min_superpixel_size

# name, frames, height, width, wanted superpixels
CASES = [
    ("224 x 224, 300", 1, 224, 224, 300),
    ("1080 x 1920, 2000", 1, 1080, 1920, 2000),
    ("16 x 112 x 112, 120", 16, 112, 112, 120),
]

PICTURES = 7
SECONDS = 4.0  # per size


def connected(labels: np.ndarray, min_size: int, threads: int) -> np.ndarray:
    """One item [Z, Y, X]."""
    return mg.ops.enforce_connectivity(labels[None], min_size, num_threads=threads)[0][0]


def row(seconds: float, case: str, frames: int, height: int, width: int, wanted: int) -> dict[str, Any]:
    """Times of one size."""
    inputs = [
        mg.slic(picture, wanted, enforce_connectivity=False).reshape(frames, height, width)
        for picture in pictures(PICTURES if seconds > 0 else 1, frames, height, width)
    ]
    min_size = min_superpixel_size(frames * height * width, wanted, 0.5)
    pieces = []
    for labels in inputs:
        found = connected(labels, 1, 1)
        # Both number the pieces in raster order.
        assert np.array_equal(found, label(labels, background=-1, connectivity=1) - 1), "not the connected pieces"
        pieces.append(int(found.max()) + 1)
        assert np.array_equal(connected(labels, min_size, 1), connected(labels, min_size, 2)), "depends on threads"

    wide = [labels.astype(np.intp) for labels in inputs]
    most = 3 * frames * height * width // wanted  # scikit-image's default limit of a superpixel
    times = race_calls(
        {
            "one": [lambda i=i: connected(i, min_size, 1) for i in inputs],
            "two": [lambda i=i: connected(i, min_size, 2) for i in inputs],
            "pieces": [lambda i=i: connected(i, 1, 1) for i in inputs],
            "their pieces": [lambda i=i: label(i, background=-1, connectivity=1) for i in inputs],
            "theirs": [lambda w=w: _enforce_label_connectivity_cython(w, min_size, most) for w in wide],
        },
        seconds,
    )
    fastest = {name: t["fastest"] for name, t in times.items()}
    return {
        "size, superpixels": case,
        "pieces": f"{min(pieces)} .. {max(pieces)}",
        "1 thread [ms]": fastest["one"],
        "2 threads [ms]": fastest["two"],
        "10 % .. 90 %, 1 thread": f"{times['one']['p10']:.3g} .. {times['one']['p90']:.3g}",
        "scikit-image's slic [ms]": fastest["theirs"],
        "ratio": fastest["theirs"] / fastest["one"],
        "pieces only [ms]": fastest["pieces"],
        "skimage.measure.label [ms]": fastest["their pieces"],
        "ratio, pieces": fastest["their pieces"] / fastest["pieces"],
    }


def main() -> None:
    """Time all sizes, or the first one only."""
    arguments = parser("connectivity_speed", __doc__).parse_args()
    cases, seconds = (CASES[:1], 0.0) if arguments.quick else (CASES, SECONDS)
    note = "Medians over the inputs of each one's fastest run; scikit-image has one thread."
    report(arguments, {"Connectivity": [row(seconds, *case) for case in cases]}, [note])


if __name__ == "__main__":
    main()
