"""Which regions made a segmentation network call these pixels a cat?

The score is the sum of a class's logits over the pixels where the network finds it, a callable target:

    python examples/segmentation.py photo.jpg --class-name cat -o segmentation.png

torchvision's weights are fetched once. `--untrained` runs without, to see that everything works.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.segmentation import DeepLabV3_MobileNet_V3_Large_Weights, deeplabv3_mobilenet_v3_large

import midgrain as mg
from midgrain.pictures import Preprocess, open_picture

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = DeepLabV3_MobileNet_V3_Large_Weights.DEFAULT.meta["categories"]


class Logits(nn.Module):
    """DeepLab returns a dictionary; this returns its maps [B, classes, H, W]."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The class maps."""
        return self.model(x)["out"]


def load(untrained: bool) -> nn.Module:
    """DeepLabV3 with a MobileNetV3."""
    weights = None if untrained else DeepLabV3_MobileNet_V3_Large_Weights.DEFAULT
    torch.manual_seed(0)
    return Logits(deeplabv3_mobilenet_v3_large(weights=weights, weights_backbone=None, num_classes=21)).eval()


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Explain one picture; returns the heat maps by method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--class-name", choices=CLASSES, help="by default the class of most pixels but background")
    parser.add_argument("--size", type=int, default=448, help="side of the network's input")
    parser.add_argument("--untrained", action="store_true", help="random weights")
    parser.add_argument("-o", "--out", type=Path, default=Path("segmentation.png"))
    options = parser.parse_args(arguments)

    model = load(options.untrained)
    x = Preprocess(options.size, options.size, MEAN, STD)(open_picture(options.picture))
    with torch.no_grad():
        found = model(x)[0].argmax(0)
    foreground = torch.bincount(found.flatten(), minlength=len(CLASSES))
    foreground[0] = -1  # background
    number = CLASSES.index(options.class_name) if options.class_name else int(foreground.argmax())
    mask = (found == number).float()
    if not mask.any():
        mask = torch.ones_like(mask)  # Not found anywhere: what speaks for it at all?

    def score(outputs: Tensor) -> Tensor:
        """[B, classes, H, W] -> [B]: the class's mean logit over its pixels."""
        return (outputs[:, number] * mask).sum((1, 2)) / mask.sum()

    maps, panels = {}, []
    for method in ("gradcam", "swag-ig"):
        layer = {"layer": "model.backbone"} if method == "gradcam" else {}
        explanation = mg.explainer(method, model, mean=MEAN, std=STD, **layer)(x, score)
        maps[method] = explanation.heatmap[0].numpy()
        panels.append(explanation.overlay(0))
    print(f"{CLASSES[number]}: {int(mask.sum())} of {mask.numel()} pixels")
    Image.fromarray(np.concatenate(panels, 1)).save(options.out)
    return maps


if __name__ == "__main__":
    main()
