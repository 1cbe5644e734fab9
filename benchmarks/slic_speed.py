"""How long do superpixels take, from a uint8 picture to connected labels, beside scikit-image in the same run?"""

from __future__ import annotations

from typing import Any

import numpy as np
from skimage.segmentation import slic

import midgrain as mg
from benchmarks.common import photographs, pictures_or_clips, race, report

# name, frames, height, width, wanted superpixels, repeats over all inputs
CASES = [
    ("224 x 224, 300", 1, 224, 224, 300, 4),
    ("1080 x 1920, 2000", 1, 1080, 1920, 2000, 1),
    ("16 x 112 x 112, 120", 16, 112, 112, 120, 3),
]


def row(case: str, frames: int, height: int, width: int, wanted: int, repeats: int) -> dict[str, Any]:
    """Times of one size."""
    pictures = pictures_or_clips(photographs().values(), frames, height, width)
    for picture in pictures:
        one = mg.slic(picture, wanted, num_threads=1)
        assert np.array_equal(one, mg.slic(picture, wanted, num_threads=2)), "labels depend on threads"

    times = race(
        {
            "one": [lambda p=p: mg.slic(p, wanted, num_threads=1) for p in pictures],
            "two": [lambda p=p: mg.slic(p, wanted, num_threads=2) for p in pictures],
            "theirs": [lambda p=p: slic(p, wanted, start_label=0) for p in pictures],
        },
        repeats,
    )
    one, two, theirs = times["one"], times["two"], times["theirs"]
    return {
        "size, superpixels": case,
        "1 thread [ms]": one["median"],
        "2 threads [ms]": two["median"],
        "min .. max, 2 threads": f"{two['min']:.3g} .. {two['max']:.3g}",
        "scikit-image [ms]": theirs["median"],
        "ratio, 1 thread": theirs["median"] / one["median"],
        "ratio, 2 threads": theirs["median"] / two["median"],
    }


if __name__ == "__main__":
    rows = [row(*case) for case in CASES]
    report("slic_speed", list(rows[0]), rows, "Medians; scikit-image has one thread.")
