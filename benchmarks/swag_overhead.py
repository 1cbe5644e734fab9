"""What does SWAG cost beyond the network's own forward and backward pass?

Networks with random weights: their speed is that of trained ones.
"""

from __future__ import annotations

from typing import Any

import torch
import torchvision

import midgrain as mg
from benchmarks.common import milliseconds, report

CASES = [
    ("ResNet-50, 224 x 224", torchvision.models.resnet50, (1, 3, 224, 224), 15),
    ("VGG16, 224 x 224", torchvision.models.vgg16, (1, 3, 224, 224), 7),
    ("R(2+1)D-18, 16 x 112 x 112", torchvision.models.video.r2plus1d_18, (1, 3, 16, 112, 112), 5),
]


def row(case: str, network: Any, shape: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Times of one network."""
    torch.manual_seed(0)
    model = network(weights=None).eval()
    pictures = [torch.randn(shape) for _ in range(3)]
    swag, guided = mg.SWAG(model), mg.explainer("guided", model)
    for x in pictures:
        assert torch.equal(swag(x).target, model(x).argmax(1)), "another class was explained"

    def forward_backward(x: torch.Tensor) -> None:
        leaf = x.clone().requires_grad_(True)
        outputs = model(leaf)
        torch.autograd.grad(outputs.gather(1, outputs.argmax(1, keepdim=True)).sum(), leaf)

    times = {
        name: milliseconds([lambda x=x, call=call: call(x) for x in pictures], repeats)["median"]
        for name, call in (("plain", forward_backward), ("guided", guided), ("swag", swag))
    }
    return {
        "network": case,
        "forward + backward [ms]": times["plain"],
        "guided [ms]": times["guided"],
        "swag-ig [ms]": times["swag"],
        "swag-ig / plain": times["swag"] / times["plain"],
    }


if __name__ == "__main__":
    rows = [row(*case) for case in CASES]
    report("swag_overhead", list(rows[0]), rows, f"Medians; {torch.get_num_threads()} threads.")
