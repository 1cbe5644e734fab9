"""What does SWAG cost beyond the network's own forward and backward pass?

Real photographs; networks with random weights, whose speed is that of trained ones.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
import torchvision

import midgrain as mg
from benchmarks.common import parser, pictures, report
from midgrain.stopwatch import network_seconds
from midgrain.timing import race, summary

CASES = [
    ("ResNet-50, 224 x 224", torchvision.models.resnet50, (1, 3, 224, 224)),
    ("VGG16, 224 x 224", torchvision.models.vgg16, (1, 3, 224, 224)),
    ("R(2+1)D-18, 16 x 112 x 112", torchvision.models.video.r2plus1d_18, (1, 3, 16, 112, 112)),
]


def normalised(picture: np.ndarray) -> torch.Tensor:
    """uint8 [H, W, 3] or [T, H, W, 3] as a network's input [1, 3, (T,) H, W]."""
    return (torch.from_numpy(picture).movedim(-1, 0)[None] / 255 - 0.45) / 0.225


def row(case: str, network: Any, shape: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """Times of one network."""
    torch.manual_seed(0)
    model = network(weights=None).eval()
    frames = shape[2] if len(shape) == 5 else 1
    inputs = [normalised(picture) for picture in pictures(3, frames, *shape[-2:])]
    assert all(x.shape == shape for x in inputs)
    swag, guided = mg.SWAG(model), mg.explainer("guided", model)
    own: list[float] = []

    def timed_swag(x: torch.Tensor) -> None:
        networks, start = network_seconds(), time.perf_counter()
        swag(x)
        own.append(time.perf_counter() - start - (network_seconds() - networks))

    for x in inputs[:2]:
        assert torch.equal(swag(x).target, model(x).argmax(1)), "another class was explained"

    def forward_backward(x: torch.Tensor) -> None:
        leaf = x.clone().requires_grad_(True)
        outputs = model(leaf)
        torch.autograd.grad(outputs.gather(1, outputs.argmax(1, keepdim=True)).sum(), leaf)

    times = race({"plain": forward_backward, "guided": guided, "swag": timed_swag}, inputs, seconds)
    plain, guided_ms, swag_ms = (summary(times[name], len(inputs)) for name in ("plain", "guided", "swag"))
    outside = 1000 * statistics.median(own)
    return {
        "network": case,
        "forward + backward [ms]": plain["fastest"],
        "guided [ms]": guided_ms["fastest"],
        "swag-ig [ms]": swag_ms["fastest"],
        "10 % .. 90 % of runs": f"{swag_ms['p10']:.3g} .. {swag_ms['p90']:.3g}",
        "runs": swag_ms["runs"],
        "swag-ig / plain": swag_ms["fastest"] / plain["fastest"],
        "outside the network, median [ms]": outside,
        "of plain's median [%]": 100 * outside / plain["median"],
    }


def main() -> None:
    """Print the table."""
    arguments = parser("swag_overhead", __doc__).parse_args()
    cases = CASES[:1] if arguments.quick else CASES
    rows = [row(*case, seconds=0.0 if arguments.quick else 15.0) for case in cases]
    report(
        arguments,
        {"SWAG beside the network's own passes": rows},
        [
            "Medians over the pictures of each one's fastest run. What SWAG does outside the network's passes is timed "
            "run by run; the clamping of gradients on their way back is part of the passes.",
            f"{torch.get_num_threads()} threads for the network and for midgrain.",
        ],
    )


if __name__ == "__main__":
    main()
