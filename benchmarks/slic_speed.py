"""How long do superpixels take, from a uint8 picture to connected labels, beside scikit-image in the same run?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from skimage.segmentation import slic

import midgrain as mg
from benchmarks.common import milliseconds, photographs, report, resized

# name, frames, height, width, wanted superpixels, repeats over all inputs
CASES = [
    ("224 x 224, 300", 1, 224, 224, 300, 8),
    ("1080 x 1920, 2000", 1, 1080, 1920, 2000, 1),
    ("16 x 112 x 112, 120", 16, 112, 112, 120, 3),
]


def inputs(frames: int, height: int, width: int) -> list[np.ndarray]:
    """Several photographs; a clip is a slow pan over one."""
    pictures = []
    for photo in photographs().values():
        wide = resized(photo, height, width + frames - 1)
        clip = np.stack([wide[:, t : t + width] for t in range(frames)])
        pictures.append(np.ascontiguousarray(clip if frames > 1 else clip[0]))
    return pictures


def row(case: str, frames: int, height: int, width: int, wanted: int, repeats: int) -> dict[str, Any]:
    """Times of one size."""
    pictures = inputs(frames, height, width)
    for picture in pictures:
        one = mg.slic(picture, wanted, num_threads=1)
        assert np.array_equal(one, mg.slic(picture, wanted, num_threads=2)), "labels depend on threads"

    def ours(threads: int) -> list[Callable[[], Any]]:
        return [lambda p=p: mg.slic(p, wanted, num_threads=threads) for p in pictures]

    theirs = milliseconds([lambda p=p: slic(p, wanted, start_label=0) for p in pictures], max(1, repeats // 3))
    one_thread, two_threads = milliseconds(ours(1), repeats), milliseconds(ours(2), repeats)
    return {
        "size, superpixels": case,
        "1 thread [ms]": one_thread["median"],
        "2 threads [ms]": two_threads["median"],
        "min .. max, 2 threads": f"{two_threads['min']:.3g} .. {two_threads['max']:.3g}",
        "scikit-image [ms]": theirs["median"],
        "ratio, 1 thread": theirs["median"] / one_thread["median"],
        "ratio, 2 threads": theirs["median"] / two_threads["median"],
    }


if __name__ == "__main__":
    rows = [row(*case) for case in CASES]
    report("slic_speed", list(rows[0]), rows, "Medians; scikit-image has one thread.")
