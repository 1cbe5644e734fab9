"""Jitter-CAM's tables: T. Hartley's PhD thesis, chapter 5."""

from __future__ import annotations

from dataclasses import replace

from midgrain.evaluate.papers.declaration import CURVES, WEAK_LOCALISATION, Measure, Method, Network, Table, printed

__all__ = ["DELETION", "FAITHFULNESS", "LOCALISATION", "POINTING"]

_RESNET50 = Network("ResNet50", "torchvision:resnet50@IMAGENET1K_V1")
_DENSENET = Network("DenseNet", "torchvision:densenet121@IMAGENET1K_V1")
_INCEPTION = Network("Inception", "torchvision:inception_v3@IMAGENET1K_V1")
_PATCH_BY_PATCH = {"shared_trunk": False}

_METHODS = {
    "Random": Method("random-point", passes=0),
    "Centre": Method("centre", passes=0),
    "Grad-CAM": Method("gradcam"),
    "Grad-CAM ++": Method("gradcam++"),
    "XGrad-CAM": Method("xgradcam"),
    "Score-CAM": Method("scorecam", {}, 2048, {"DenseNet": ({}, 1024)}),
    # Channels are taken out after the layer, so it costs heads and not passes.
    "Ablation-CAM": Method("ablationcam"),
    "Jitter-CAM": Method("jittercam", _PATCH_BY_PATCH, 128, {"Inception": ({}, 162)}),
}

_DELETION_COLUMNS = tuple(
    (network, label) for network in ("ResNet50", "DenseNet", "Inception") for label in ("deletion", "insertion")
)
_DELETION = """
Random        0.303 0.413 0.280 0.382 0.287 0.425
Centre        0.177 0.420 0.172 0.374 0.165 0.460
Grad-CAM      0.142 0.576 0.137 0.536 0.128 0.585
Grad-CAM ++   0.147 0.564 0.141 0.524 0.132 0.572
XGrad-CAM     0.142 0.576 0.137 0.540 0.128 0.585
Score-CAM     0.150 0.568 0.142 0.532 0.131 0.579
Ablation-CAM  0.144 0.567 0.140 0.531 0.129 0.577
Jitter-CAM    0.118 0.551 0.120 0.522 0.107 0.570
"""

DELETION = Table(
    name="jitter-deletion",
    title="deletion and insertion AUC of Jitter-CAM and other class activation maps",
    source="T. Hartley, PhD thesis, Table 5.2",
    layout="imagenet",
    networks=(_RESNET50, _DENSENET, _INCEPTION),
    methods=_METHODS,
    measures=CURVES,
    figures=printed(_DELETION, _DELETION_COLUMNS),
    samples="50,000 pictures, ImageNet's validation set",
    differences=(
        "pixels of one value are removed together instead of in raster order",
        "Jitter-CAM runs every patch through the whole network here, as in the thesis",
    ),
)

_LOCALISATION_COLUMNS = tuple(
    (network, label) for network in ("ResNet50", "DenseNet", "Inception") for label in ("value", "mean", "energy")
)
_LOCALISATION = """
Random        57.43 58.96 57.39 57.43 58.96 57.39 57.74 59.10 57.66
Centre        47.58 48.18 47.68 47.58 48.18 47.68 48.56 48.34 47.84
Grad-CAM      45.94 45.89 44.35 45.44 44.99 43.48 44.84 45.29 44.60
Grad-CAM ++   45.76 45.83 43.85 44.89 44.88 42.88 45.05 44.94 44.87
XGrad-CAM     45.94 45.89 44.35 45.67 45.38 43.96 44.84 45.29 44.60
Ablation-CAM  45.88 45.88 44.30 45.52 45.26 43.71 45.25 45.34 45.00
Score-CAM     47.53 46.86 45.32 47.29 46.35 44.74 45.72 45.59 45.19
Jitter-CAM    39.83 42.30 40.64 40.24 41.55 40.44 38.38 39.10 39.86
"""

LOCALISATION = replace(
    DELETION,
    name="jitter-localisation",
    title="weak localisation error of Jitter-CAM and other class activation maps, per cent",
    source="T. Hartley, PhD thesis, Table 5.3",
    layout="imagenet-boxes",
    measures=WEAK_LOCALISATION,
    figures=printed(_LOCALISATION, _LOCALISATION_COLUMNS),
    differences=("the thesis does not say which class is explained; here it is the picture's own",),
    target="given",
    decimals=2,
)

_FAITHFULNESS_COLUMNS = tuple(
    (network, label) for network in ("ResNet50", "DenseNet", "Inception") for label in ("increase", "average drop")
)
_FAITHFULNESS = """
Grad-CAM     40.21 14.04 39.65 13.22 40.46 16.98
Grad-CAM ++  38.70 14.22 37.54 13.69 38.89 17.02
Constant     48.22 2.70 49.14 1.08 47.36 1.32
"""

FAITHFULNESS = replace(
    DELETION,
    name="jitter-faithfulness",
    title="increase in confidence and average drop, and the constant map that beats both, per cent",
    source="T. Hartley, PhD thesis, Table 5.1",
    methods={
        "Grad-CAM": _METHODS["Grad-CAM"],
        "Grad-CAM ++": _METHODS["Grad-CAM ++"],
        "Constant": Method("constant", passes=0),
    },
    measures={
        "increase": Measure("average_drop", {}, "higher", "increase", 100.0, of="average drop"),
        "average drop": Measure("average_drop", {}, factor=100.0, passes=3),
    },
    figures=printed(_FAITHFULNESS, _FAITHFULNESS_COLUMNS),
    differences=("the thesis shows it to warn of these measures: a map that hides nothing is best at both",),
    decimals=2,
)

_POINTING = """
Centre       24.61 17.93
Random       12.33 7.99
Grad-CAM     53.47 49.40
Grad-CAM ++  47.26 42.93
XGrad-CAM    53.46 49.39
Score-CAM    47.28 42.70
Jitter-CAM   64.08 61.10
"""

POINTING = replace(
    DELETION,
    name="pointing",
    title="pointing game on COCO, per cent of hits",
    source="T. Hartley, PhD thesis, Table 5.4",
    layout="coco2014",
    networks=(
        Network(
            "ResNet50",
            None,
            "the thesis's network is TorchRay's ResNet-50, fine-tuned on COCO's 80 categories: "
            "torchray.benchmark.get_model('resnet50', 'coco') in a function of yours, and --model MODULE:FUNCTION",
        ),
    ),
    measures={
        "all": Measure("pointing_game", {"tolerance": 15}, "higher", factor=100.0),
        "difficult": Measure("pointing_game", {"tolerance": 15}, "higher", factor=100.0, subset="difficult", of="all"),
    },
    figures=printed(_POINTING, (("ResNet50", "all"), ("ResNet50", "difficult"))),
    samples="COCO 2014's validation set, every category in each of 40,504 pictures",
    differences=(
        "pixels, and the 15 of the tolerance, are those of the network's input, whose shorter side is 224",
        "where several pixels share the maximum, more than half of them must be near the object",
        "the share of hits is over all samples, as in the thesis's equation 5.7, not a mean over categories",
    ),
    target="given",
    whole_pictures=True,
    decimals=2,
)
