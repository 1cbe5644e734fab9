"""The table of Gradient Weighted Superpixels (Hartley et al., BMVC 2019 workshop)."""

from __future__ import annotations

from typing import Any

from midgrain.evaluate.papers.declaration import Measure, Method, Network, Table, printed
from midgrain.evaluate.papers.random_regions import RandomRegions

__all__ = ["REMOVAL"]


def _lime(n_samples: int) -> Method:
    return Method("lime", {"n_samples": n_samples, "baseline": "median"}, n_samples)


def _weighted(scorer: str, passes: int = 2) -> Method:
    return Method("gws", {"scorer": scorer}, passes)


def _removal(order: str, better: str) -> Measure:
    # About half of some 40 superpixels, one pass for each.
    return Measure("superpixel_removal", {"order": order}, better, factor=100.0, passes=20)


_COLUMNS = tuple((network, label) for network in ("VGG16", "ResNet50", "C3D") for label in ("worst", "best"))
_REMOVAL = """
Random                 34.48 34.50 40.45 40.47 25.49 25.66
LIME 50                60.78 13.07 68.83 15.77 42.44 12.14
LIME 75                64.02 11.16 71.69 13.54 45.25 10.30
LIME 100               66.15 9.87 73.59 12.35 47.93 9.12
LIME 500               74.79 7.20 79.84 9.20 59.97 5.92
LIME 1000              76.16 6.94 80.85 8.81 63.20 5.54
Vanilla                61.50 14.21 66.18 19.36 45.91 14.95
Guided Vanilla         66.60 11.40 72.01 14.85 49.96 11.92
Input x Gradient       59.38 16.53 64.14 21.57 43.90 16.29
Grad-CAM               65.83 12.24 71.84 14.75 48.49 14.69
Guided Grad-CAM        66.31 13.09 74.35 14.19 51.19 12.53
Grad-CAM++             64.89 12.25 69.91 15.39 47.95 14.75
Act Grad-CAM           67.28 11.31 70.54 15.09 47.85 15.50
Guided Act Grad-CAM    67.30 11.68 73.51 14.33 50.99 13.07
ReLU Activation        63.70 12.64 66.26 17.70 42.32 20.86
"""
_LIMES: dict[str, Any] = {f"LIME {n}": _lime(n) for n in (50, 75, 100, 500, 1000)}

REMOVAL = Table(
    name="gws-removal",
    title="superpixels removed, worst or best first, until the class changes, per cent",
    source="Hartley et al., Gradient Weighted Superpixels, BMVC workshop 2019, Table 1",
    layout="imagenet",
    networks=(
        Network("VGG16", "torchvision:vgg16@IMAGENET1K_V1"),
        Network("ResNet50", "torchvision:resnet50@IMAGENET1K_V1"),
        Network("C3D", None, "the paper's network is its own C3D for Kinetics-400's clips, which need other data"),
    ),
    methods={
        "Random": Method(RandomRegions, passes=0),
        **_LIMES,
        "Vanilla": _weighted("vanilla"),
        "Guided Vanilla": _weighted("guided"),
        "Input x Gradient": _weighted("input-x-gradient"),
        "Grad-CAM": _weighted("gradcam"),
        "Guided Grad-CAM": _weighted("guided-gradcam", 4),
        "Grad-CAM++": _weighted("gradcam++"),
        "Act Grad-CAM": _weighted("act-gradcam"),
        "Guided Act Grad-CAM": _weighted("guided-act-gradcam", 4),
        "ReLU Activation": _weighted("relu-activation", 1),
    },
    measures={"worst": _removal("worst", "higher"), "best": _removal("best", "lower")},
    figures=printed(_REMOVAL, _COLUMNS),
    samples="50,000 pictures, ImageNet's validation set",
    differences=(
        "the paper does not say what a removed superpixel becomes: 0, the mean colour",
        "removal goes on until the network's own decision changes, whether it was right or not",
        "LIME switches superpixels off to the picture's median, as the paper describes it",
    ),
    decimals=2,
)
