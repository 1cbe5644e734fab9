"""SISE's table (Sattarzadeh et al., AAAI 2021)."""

from __future__ import annotations

from dataclasses import replace

from midgrain.evaluate.papers.declaration import Measure, Method, Network, Table, printed

__all__ = ["SISE", "SISE_MASKS"]

_PERCENT = 100.0
_METHODS = (
    *("Grad-CAM", "Grad-CAM++", "Extremal Perturbation", "RISE"),
    *("Score-CAM", "Integrated Gradient", "FullGrad", "SISE"),
)
# As printed, a line for each measure: the methods are its columns.
_PRINTED = {
    "VGG16": """
EBPG      55.44 46.29 61.19 33.44 46.42 36.87 38.72 60.54
mIoU      26.52 28.1 25.44 27.11 27.71 14.11 26.61 27.79
Bbox      51.7 55.59 51.2 54.59 54.98 33.97 54.17 55.68
Drop      49.47 60.63 43.90 39.62 39.79 64.74 60.78 38.40
Increase  31.08 23.89 32.65 37.76 36.42 26.17 22.73 37.96
""",
    "ResNet-50": """
EBPG      60.08 47.78 63.24 32.86 35.56 40.62 39.55 66.08
mIoU      32.16 30.16 26.29 27.4 31.0 15.41 20.2 31.37
Bbox      60.25 58.66 52.34 55.55 60.02 34.79 44.94 61.59
Drop      35.80 41.77 39.38 39.77 35.36 66.12 65.99 30.92
Increase  36.58 32.15 34.27 37.08 37.08 24.24 25.36 40.22
""",
}
# printed() reads its columns as (first key, last key): here network-wise (method, method) with measures as rows.
_BY_METHOD = {network: printed(text, [(method, method) for method in _METHODS]) for network, text in _PRINTED.items()}
_FIGURES = {
    network: {
        method: {measure: figure[method] for measure, figure in by_measure.items()}
        for method, by_measure in by_method.items()
    }
    for network, by_method in _BY_METHOD.items()
}
_WEIGHTS = (
    "the paper's network is TorchRay's, trained on VOC 2007's 20 classes: torchray.benchmark.get_model({!r}, 'voc') in "
    "a function of yours, and --model MODULE:FUNCTION"
)

SISE = Table(
    name="sise",
    title="SISE and other methods on VOC 2007, per cent",
    source="Sattarzadeh et al., Explaining CNNs through attribution-based input sampling, AAAI 2021, Table 1",
    layout="voc07",
    networks=(
        Network("ResNet-50", None, _WEIGHTS.format("resnet50")),
        Network("VGG16", None, _WEIGHTS.format("vgg16")),
    ),
    methods={
        "Grad-CAM": Method("gradcam"),
        "Grad-CAM++": Method("gradcam++"),
        "Extremal Perturbation": Method("extremal", passes=6400),
        "RISE": Method("rise", {"n_samples": 8000}, 8000, {"VGG16": ({"n_samples": 4000}, 4000)}),
        "Score-CAM": Method("scorecam", {}, 2048, {"VGG16": ({}, 512)}),
        "Integrated Gradient": Method("integrated-gradients", passes=102),
        "FullGrad": Method("fullgrad"),
        "SISE": Method("sise", passes=1900),
    },
    measures={
        "EBPG": Measure("energy_pointing_game", {}, "higher", factor=_PERCENT),
        "mIoU": Measure("mask_iou", {"share": 0.2}, "higher", factor=_PERCENT),
        "Bbox": Measure("bbox_score", {}, "higher", factor=_PERCENT),
        "Drop": Measure("drop_increase", {"share": 0.15}, factor=_PERCENT, passes=3),
        "Increase": Measure("drop_increase", {}, "higher", "increase", _PERCENT, of="Drop"),
    },
    figures=_FIGURES,
    samples="4,952 pictures, VOC 2007's test set",
    differences=(
        "the objects are their boxes, all of a class together; table sise-masks takes the few pictures with masks",
        "every class that a picture shows is explained; the paper does not say which",
        "the confidence behind Drop and Increase is the softmax, of networks that were trained for several labels",
        "pictures are whole, their shorter side 224; the paper's Keras code may have squeezed them",
    ),
    target="given",
    whole_pictures=True,
    decimals=2,
)

SISE_MASKS = replace(
    SISE,
    name="sise-masks",
    title="SISE and other methods on the pictures of VOC 2007 that have masks, per cent",
    layout="voc07-masks",
    differences=("the objects are masks, which only 210 pictures of the test set have", *SISE.differences[1:]),
)
