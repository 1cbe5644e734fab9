"""Where a training run's drawn explanations go: to loggers that take pictures, and to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["log_pictures", "save_pictures"]

_Picture = npt.NDArray[np.uint8]


def log_pictures(logger: Any, name: str, pictures: list[_Picture], step: int) -> None:
    """Pictures [H, W, 3], or clips [T, H, W, 3], to a logger that takes pictures; others are left alone."""
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(logger, "log_image"):
        logger.log_image(key=name, images=pictures, step=step)
    elif hasattr(experiment, "add_image"):
        for i, picture in enumerate(pictures):
            experiment.add_image(f"{name}/{i}", _still(picture), step, dataformats="HWC")


def save_pictures(folder: Path, pictures: list[_Picture], epoch: int) -> None:
    """Pictures or clips to files `epoch-0003-sample-0.png` in a folder, which is made where it is missing."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(_still(picture)).save(folder / f"epoch-{epoch:04d}-sample-{i}.png")


def _still(picture: _Picture) -> _Picture:
    """The picture, of a clip its middle frame."""
    return picture if picture.ndim == 3 else picture[len(picture) // 2]
