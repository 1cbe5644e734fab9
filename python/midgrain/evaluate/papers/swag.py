"""SWAG's tables: T. Hartley's PhD thesis, chapter 3."""

from __future__ import annotations

from dataclasses import replace

from midgrain.evaluate.papers.declaration import CURVES, WEAK_LOCALISATION, Method, Network, Table, printed

__all__ = ["DELETION", "LOCALISATION"]

# The weights of the thesis: its top-1 accuracies are those of torchvision's first ones.
_VGG16 = Network("VGG16", "torchvision:vgg16@IMAGENET1K_V1")
_RESNET50 = Network("ResNet50", "torchvision:resnet50@IMAGENET1K_V1")
_LIME = {"n_samples": 1000}
# SLIC's usual weight of the colour: Table 3.1 has SWAG I's 0.092 and 0.119 for scikit-image's defaults.
_COLOUR = {"compactness": 10.0}

_METHODS = {
    "Random": Method("random-point", passes=0),
    "Centre": Method("centre", passes=0),
    "Grad-CAM": Method("gradcam"),
    "Grad-CAM ++": Method("gradcam++"),
    "XGrad-CAM": Method("xgradcam"),
    "LIME": Method("lime", _LIME, 1000),
    "RISE": Method("rise", {"n_samples": 4000}, 4000, {"ResNet50": ({"n_samples": 8000}, 8000)}),
    "XRAI": Method("xrai", passes=400),
    "SWAG I": Method("swag-i", _COLOUR),
    "SWAG I+G": Method("swag-ig"),
    "SWAG G": Method("swag-g"),
    "Guided Backprop": Method("guided"),
    "LIME I": Method("lime-i", {**_LIME, **_COLOUR}, 1000),
    "LIME I+G": Method("lime-ig", _LIME, 1002),
    "LIME G": Method("lime-g", _LIME, 1002),
}

_DELETION_COLUMNS = (("VGG16", "deletion"), ("ResNet50", "deletion"))
_DELETION = """
Random           0.274 0.303
Centre           0.153 0.177
Grad-CAM         0.105 0.142
Grad-CAM ++      0.111 0.147
XGrad-CAM        0.105 0.142
LIME             0.105 0.125
RISE             0.116 0.124
XRAI             0.105 0.137
SWAG I           0.092 0.119
SWAG I+G         0.084 0.109
SWAG G           0.073 0.095
Guided Backprop  0.051 0.074
LIME I           0.107 0.126
LIME I+G         0.090 0.108
LIME G           0.082 0.099
"""

DELETION = Table(
    name="swag-deletion",
    title="deletion AUC of SWAG and other methods on images",
    source="T. Hartley, PhD thesis, Table 3.7 (ImageNet) and Table 3.9 (LIME I, I+G, G)",
    layout="imagenet",
    networks=(_VGG16, _RESNET50),
    methods=_METHODS,
    measures={"deletion": CURVES["deletion"]},
    figures=printed(_DELETION, _DELETION_COLUMNS),
    samples="50,000 pictures, ImageNet's validation set",
    differences=(
        "the thesis ran the authors' code of LIME, RISE and XRAI; these are midgrain's, with the same settings",
        "pixels of one value are removed together instead of in raster order",
        "the thesis's colour weight for SWAG I+G on images is not stated: 20, and 9 for the gradient, as for its clips",
    ),
)

_LOCALISATION_COLUMNS = tuple(
    (network, label) for network in ("VGG16", "ResNet50") for label in ("value", "mean", "energy")
)
_LOCALISATION = """
Random           57.43 58.96 57.39 57.43 58.96 57.39
Centre           47.57 48.18 47.68 47.57 48.18 47.68
Grad-CAM         52.06 49.76 51.80 45.94 45.89 44.35
Grad-CAM ++      47.32 47.25 46.08 45.76 45.83 43.85
LIME             54.82 52.40 52.82 53.08 50.77 51.19
RISE             55.01 57.94 49.68 52.73 53.82 50.53
SWAG I           55.06 46.10 45.01 56.73 52.50 50.65
SWAG I+G         54.57 46.44 44.95 56.33 52.10 50.70
SWAG G           54.16 45.95 44.86 56.69 52.07 52.02
Guided Backprop  55.28 46.32 49.63 56.44 51.53 52.35
"""

LOCALISATION = replace(
    DELETION,
    name="swag-localisation",
    title="weak localisation error of SWAG and other methods on images, per cent",
    source="T. Hartley, PhD thesis, Table 3.10",
    layout="imagenet-boxes",
    measures=WEAK_LOCALISATION,
    figures=printed(_LOCALISATION, _LOCALISATION_COLUMNS),
    differences=(
        DELETION.differences[0],
        "the thesis does not say which class is explained; here it is the picture's own",
    ),
    target="given",
    decimals=2,
)
