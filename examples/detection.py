"""Which regions made a detector find this box?

The score is how well the detector still finds the box: the overlap of the best fitting box of the same label plus its
score, a callable target on the list of dictionaries that the detector returns:

    python examples/detection.py photo.jpg -o detection.png

torchvision's weights are fetched once. `--untrained` runs without, to see that everything works.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import (
    FasterRCNN_MobileNet_V3_Large_320_FPN_Weights,
    fasterrcnn_mobilenet_v3_large_320_fpn,
)

import midgrain as mg
from midgrain.compat.gradcam import FasterRCNNBoxScoreTarget
from midgrain.pictures import Preprocess, open_picture

CLASSES = FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.DEFAULT.meta["categories"]
# Detectors normalise inside: their input is RGB in 0 .. 1.
MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def load(untrained: bool) -> nn.Module:
    """Faster R-CNN with a MobileNetV3."""
    torch.manual_seed(0)
    if untrained:
        return fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None,
            weights_backbone=None,
            box_score_thresh=0.0,
            box_detections_per_img=10,
            num_classes=len(CLASSES),
        ).eval()
    return fasterrcnn_mobilenet_v3_large_320_fpn(weights=FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.DEFAULT).eval()


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Explain the best box of one picture; returns the heat maps by method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--box", type=int, default=0, help="which of the boxes found, the best first")
    parser.add_argument("--size", type=int, default=320, help="side of the network's input")
    parser.add_argument("--untrained", action="store_true", help="random weights")
    parser.add_argument("-o", "--out", type=Path, default=Path("detection.png"))
    options = parser.parse_args(arguments)

    model = load(options.untrained)
    x = Preprocess(options.size, options.size, MEAN, STD)(open_picture(options.picture))
    with torch.no_grad():
        (found,) = model(x)
    if len(found["boxes"]) <= options.box:
        raise SystemExit(f"the detector finds {len(found['boxes'])} boxes in {options.picture}")
    label, box = int(found["labels"][options.box]), found["boxes"][options.box].numpy()
    target = FasterRCNNBoxScoreTarget([label], box[None])

    def score(outputs: list[dict[str, Any]]) -> Tensor:
        """A list of dictionaries, one per picture -> [B]."""
        return torch.cat([target(output) for output in outputs])

    print(f"{CLASSES[label]} ({float(found['scores'][options.box]):.2f}) at {box.round().astype(int).tolist()}")
    explainers = {
        # All levels of the feature pyramid are made from this layer. Its maps are of the picture as resized inside.
        "gradcam": {"layer": "backbone.body.16", "reshape": lambda maps: maps},
        "occlusion": {"window": options.size // 4, "stride": options.size // 4},
    }
    maps, panels = {}, []
    for method, more in explainers.items():
        explanation = mg.explainer(method, model, mean=MEAN, std=STD, **more)(x, score)
        maps[method] = explanation.heatmap[0].numpy()
        panels.append(explanation.overlay(0))
    Image.fromarray(np.concatenate(panels, 1)).save(options.out)
    return maps


if __name__ == "__main__":
    main()
