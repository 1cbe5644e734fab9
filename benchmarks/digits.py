"""Digits on photographs: a set whose true explanation is known to the pixel, and a plain ReLU network trained on it.

See `midgrain.evaluate.synthetic`, where both are made; here are their names for the other benchmarks.

    python -m benchmarks.digits [--weights FILE]    trains, and says how well
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import parser, report
from benchmarks.photographs import packaged
from midgrain.evaluate.synthetic import DigitPictures, digits, held_out, network, paste, predicted, train, trained

__all__ = ["DigitPictures", "digits", "held_out", "network", "paste", "predicted", "train", "trained"]


def main() -> None:
    """Train and print the accuracy."""
    options = parser("digits", __doc__)
    options.add_argument("--weights", type=Path, metavar="FILE", help="read the trained network here, or write it")
    arguments = options.parse_args()
    photos = [photograph.picture for photograph in packaged()]
    start = time.perf_counter()
    model = train(photos, limit=100) if arguments.quick else trained(arguments.weights, photos)
    seconds = time.perf_counter() - start
    data = held_out(photos, 100 if arguments.quick else None)
    right = predicted(model, data.inputs).numpy() == data.labels
    area = data.masks.sum((1, 2))
    row = {
        "test pictures": len(right),
        "right": f"{right.mean():.1%}",
        "of the half with the smaller digits": f"{right[area < np.median(area)].mean():.1%}",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds to train or read": seconds,
    }
    report(arguments, {"Digits on photographs": [row]}, [f"{torch.get_num_threads()} threads."])


if __name__ == "__main__":
    main()
