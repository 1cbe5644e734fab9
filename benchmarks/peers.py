"""The other libraries' superpixels, each from a uint8 RGB picture to connected labels, and why one is missing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from skimage.segmentation import slic

from benchmarks.common import COMPACTNESS, ITERATIONS


@dataclass(frozen=True)
class Peer:
    """One way to call another library."""

    name: str
    run: Callable[[np.ndarray, int], np.ndarray]  # (picture, wanted superpixels) -> labels
    threads: int = 1
    volumes: bool = False
    smallest: float = 0.5  # superpixels below this share of the expected size are merged away
    before: Callable[[], Any] | None = None  # unmeasured: sets the threads


def skimage_slic(picture: np.ndarray, wanted: int) -> np.ndarray:
    """scikit-image, the same features, weights, windows and iterations; it has one thread."""
    return slic(picture, wanted, COMPACTNESS, max_num_iter=ITERATIONS, start_label=0)


def all_peers(threads: tuple[int, ...] = (1, 2)) -> tuple[list[Peer], list[str]]:
    """The peers that are installed, and a sentence for each that is not."""
    peers = [Peer("scikit-image", skimage_slic, volumes=True)]
    missing: list[str] = []
    for find in (_opencv, _fast_slic):
        try:
            peers += find(threads)
        except ImportError as error:
            missing.append(str(error))
    return peers, missing


def _opencv(threads: tuple[int, ...]) -> list[Peer]:
    try:
        import cv2
        from cv2 import ximgproc
        from cv2.ximgproc import createSuperpixelSLIC
    except ImportError as error:
        raise ImportError(
            "OpenCV's superpixels are missing: pip install --force-reinstall opencv-contrib-python-headless (its other "
            "packages leave them out, and the one installed last counts)"
        ) from error
    small = np.zeros((64, 64, 3), np.uint8)

    def use(count: int) -> None:
        cv2.setNumThreads(count)
        cv2.cvtColor(small, cv2.COLOR_RGB2LAB)  # starts the threads

    def run(algorithm: int, picture: np.ndarray, wanted: int) -> np.ndarray:
        side = round(math.sqrt(picture.shape[0] * picture.shape[1] / wanted))
        lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
        superpixels = createSuperpixelSLIC(lab, algorithm, side, COMPACTNESS)
        superpixels.iterate(ITERATIONS)
        superpixels.enforceLabelConnectivity(25)
        return np.asarray(superpixels.getLabels())

    return [
        Peer(
            f"OpenCV {name}",
            lambda p, n, a=algorithm: run(a, p, n),
            count,
            smallest=0.25,
            before=lambda c=count: use(c),
        )
        for name, algorithm in (("SLIC", ximgproc.SLIC), ("SLICO", ximgproc.SLICO))
        for count in threads
    ]


def _fast_slic(threads: tuple[int, ...]) -> list[Peer]:
    try:
        import fast_slic
    except ImportError as error:
        raise ImportError(
            "fast-slic is missing: pip install setuptools wheel 'cython<3', then "
            "pip install --no-build-isolation fast-slic"
        ) from error
    try:
        from fast_slic.avx2 import SlicAvx2 as Fastest
    except ImportError:
        Fastest = fast_slic.Slic  # noqa: N806
    # Its windows are one step to each side, a quarter of the candidates; its fast path has colours in 8 bits and
    # sums of absolute differences for distances. Only SlicRealDistL2 has squared ones.
    ways = {
        "fast-slic": (Fastest, {}),
        "fast-slic, every row": (Fastest, {"subsample_stride": 1, "min_size_factor": 0.5}),
        "fast-slic, every row, squared distances": (
            fast_slic.SlicRealDistL2,
            {"subsample_stride": 1, "min_size_factor": 0.5, "manhattan_spatial_dist": False},
        ),
    }

    def run(kind: Any, options: dict[str, Any], count: int, picture: np.ndarray, wanted: int) -> np.ndarray:
        # A new one each time: it would go on from its last centres.
        model = kind(num_components=wanted, compactness=COMPACTNESS, num_threads=count, **options)
        return np.asarray(model.iterate(picture, ITERATIONS))

    return [
        Peer(
            name,
            lambda p, n, k=kind, o=options, c=count: run(k, o, c, p, n),
            count,
            smallest=options.get("min_size_factor", 0.25),
        )
        for name, (kind, options) in ways.items()
        for count in threads
    ]
