"""Where should Jitter-CAM's shared trunk end, and how many windows does it need?

Networks with ImageNet weights from packages, the packages' photographs. Correlation with exact Jitter-CAM before maps
are resized, and time beside it, for trunks that end earlier and for windows left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import midgrain as mg
from benchmarks.cam_quality import Network, networks, pearson
from benchmarks.common import parser, report
from benchmarks.photographs import packaged

#: Network -> ends of the trunk from the last on; None is the one that is found.
SPLITS: dict[str, tuple[str | None, ...]] = {
    "EfficientNet-Lite0": (None, "_blocks.9", "_blocks.8"),
    "MobileNetV2": (None, "features.12", "features.11"),
}
STEPS = (1, 2, 3)


def explained(explainer: Any, inputs: Sequence[Tensor], targets: Sequence[int]) -> tuple[list[Tensor], float]:
    """The maps, and the fastest explanation's seconds of a core."""
    explainer(inputs[0], targets[0])  # finds the layers
    maps, seconds = [], []
    for x, target in zip(inputs, targets, strict=True):
        started = time.thread_time()
        maps.append(explainer(x, target).cam)
        seconds.append(time.thread_time() - started)
    return maps, min(seconds)


def rows(network: Network, photos: Sequence[Any], splits: Sequence[str | None]) -> list[dict[str, Any]]:
    """Correlation and speed of every split and step."""
    inputs = [network.preprocess(photo.picture) for photo in photos]
    with torch.no_grad():
        targets = [int(network.model(x).argmax()) for x in inputs]
    exact, slow = explained(mg.explainer("jittercam", network.model, shared_trunk=False), inputs, targets)
    result = []
    for split in splits:
        for step in STEPS:
            explainer = mg.explainer("jittercam", network.model, shared_trunk=True, split=split, window_step=step)
            maps, seconds = explained(explainer, inputs, targets)
            values = [pearson(mine, theirs) for mine, theirs in zip(maps, exact, strict=True)]
            result.append(
                {
                    "trunk ends at": split or "the last layer that is finer",
                    "window step": step,
                    "mean correlation": f"{np.mean(values):.3f}",
                    "worst": f"{min(values):.3f}",
                    "times as fast as exact": slow / seconds,
                }
            )
    return result


def main() -> None:
    """Print the tables."""
    arguments = parser("jitter_splits", __doc__).parse_args()
    torch.set_num_threads(1)
    nets, photos = networks(), packaged()
    if arguments.quick:
        nets, photos = nets[:1], photos[:1]
    tables = {
        f"{network.name}, {len(photos)} photographs": rows(
            network, photos, SPLITS[network.name][: 1 if arguments.quick else None]
        )
        for network in nets
    }
    report(arguments, tables, ["Fastest explanation of each, seconds of one core; one thread."])


if __name__ == "__main__":
    main()
