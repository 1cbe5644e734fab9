"""What do filter statistics cost beside the network's own passes? Images per second, fit against forward + backward.

Three contestants take turns on the same batches: the network's forward pass and a backward pass to its input; the same
with a backward pass to all its weights, as in training; `FilterStatistics.fit`. CPU time of this process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

import midgrain as mg
from benchmarks.common import parser, report
from midgrain.failures import FilterStatistics

NETWORKS = ("vgg16", "resnet18", "resnet50", "mobilenet_v2")


def network(name: str) -> nn.Module:
    """From torchvision, with random weights; times do not depend on them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built: nn.Module = getattr(torchvision.models, name)(weights=None)
    return built.eval()


def to_input(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Forward, and backward to the input."""
    for x, y in batches:
        leaf = x.clone().requires_grad_(True)
        torch.autograd.grad(model(leaf).gather(1, y[:, None]).sum(), leaf)


def to_weights(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Forward, and backward to all weights."""
    for x, y in batches:
        torch.autograd.grad(model(x).gather(1, y[:, None]).sum(), list(model.parameters()))


def fit(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> None:
    """All of a fit, the fingerprint of the network included."""
    FilterStatistics.fit(model, batches)


def row_of(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Images per second of CPU time, medians over rounds, and the ratio of the fit's to the others'."""
    model = network(name)
    side, count = (64, 8) if arguments.quick else (224, arguments.images)
    x = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    y = torch.arange(count) * 7919 % 1000
    batches = list(zip(x.split(arguments.batch), y.split(arguments.batch), strict=True))
    contestants: dict[str, Callable[..., None]] = {"input": to_input, "weights": to_weights, "fit": fit}
    seconds: dict[str, list[float]] = {key: [] for key in contestants}
    for contestant in contestants.values():
        contestant(model, batches[:1])
    for _ in range(1 if arguments.quick else arguments.rounds):
        for key, contestant in contestants.items():
            start = time.process_time()
            contestant(model, batches)
            seconds[key].append(time.process_time() - start)
    rates = {key: count / float(np.median(each)) for key, each in seconds.items()}
    return {
        "network": name,
        "forward + backward to the input": rates["input"],
        "to the weights": rates["weights"],
        "fit": rates["fit"],
        "fit / to the input": rates["fit"] / rates["input"],
        "fit / to the weights": rates["fit"] / rates["weights"],
    }


def main() -> None:
    """Measure and print."""
    options = parser("filter_fit", __doc__)
    options.add_argument("--images", type=int, default=16, metavar="N", help="per round (default: 16)")
    options.add_argument("--batch", type=int, default=8, metavar="N", help="images at once (default: 8)")
    options.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    arguments = options.parse_args()
    rows = [row_of(name, arguments) for name in (NETWORKS[1:2] if arguments.quick else NETWORKS)]
    notes = [
        f"Images per second of CPU time, {arguments.batch} at once, {torch.get_num_threads()} threads, all images of "
        "other classes.",
        f"midgrain {mg.__version__}, torch {torch.__version__}.",
    ]
    report(arguments, {"Filter statistics, images of 3 x 224 x 224": rows}, notes)


if __name__ == "__main__":
    main()
