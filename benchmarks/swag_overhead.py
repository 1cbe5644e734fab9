"""What does SWAG cost beyond the network's own forward and backward pass?

Real photographs; networks with random weights, whose speed is that of trained ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchvision

import midgrain as mg
from benchmarks.common import photographs, pictures_or_clips, race, report

CASES = [
    ("ResNet-50, 224 x 224", torchvision.models.resnet50, (1, 3, 224, 224), 15),
    ("VGG16, 224 x 224", torchvision.models.vgg16, (1, 3, 224, 224), 7),
    ("R(2+1)D-18, 16 x 112 x 112", torchvision.models.video.r2plus1d_18, (1, 3, 16, 112, 112), 5),
]


def normalised(picture: np.ndarray) -> torch.Tensor:
    """uint8 [H, W, 3] or [T, H, W, 3] as a network's input [1, 3, (T,) H, W]."""
    return (torch.from_numpy(picture).movedim(-1, 0)[None] / 255 - 0.45) / 0.225


def row(case: str, network: Any, shape: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Times of one network."""
    torch.manual_seed(0)
    model = network(weights=None).eval()
    frames = shape[2] if len(shape) == 5 else 1
    photos = list(photographs().values())[:3]
    pictures = [normalised(picture) for picture in pictures_or_clips(photos, frames, *shape[-2:])]
    assert all(x.shape == shape for x in pictures)
    swag, guided = mg.SWAG(model), mg.explainer("guided", model)
    for x in pictures:
        assert torch.equal(swag(x).target, model(x).argmax(1)), "another class was explained"

    def forward_backward(x: torch.Tensor) -> None:
        leaf = x.clone().requires_grad_(True)
        outputs = model(leaf)
        torch.autograd.grad(outputs.gather(1, outputs.argmax(1, keepdim=True)).sum(), leaf)

    calls = {"plain": forward_backward, "guided": guided, "swag": swag}
    times = race({name: [lambda x=x, call=call: call(x) for x in pictures] for name, call in calls.items()}, repeats)
    plain, guided_ms, swag_ms = (times[name]["median"] for name in calls)
    return {
        "network": case,
        "forward + backward [ms]": plain,
        "guided [ms]": guided_ms,
        "swag-ig [ms]": swag_ms,
        "swag-ig / plain": swag_ms / plain,
    }


if __name__ == "__main__":
    rows = [row(*case) for case in CASES]
    report("swag_overhead", list(rows[0]), rows, f"Medians; {torch.get_num_threads()} threads.")
