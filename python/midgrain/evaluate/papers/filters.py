"""The removal of filters: T. Hartley's PhD thesis, chapter 6."""

from __future__ import annotations

from midgrain.evaluate.papers.declaration import Measure, Method, Network, Table, printed

__all__ = ["FILTERS"]

_FILTERS = """
Random          0.685 0.733
Grad-CAM++      0.147 0.230
Grad-CAM        0.079 0.225
XGrad-CAM       0.119 0.225
l1-norm         0.057 0.618
Taylor          0.132 0.629
Taylor (class)  0.052 0.392
Grad-AMap       0.042 0.146
"""

FILTERS = Table(
    name="filters",
    title="accuracy while filters of the last convolution are removed, most important first: normalised AUC",
    source="T. Hartley, PhD thesis, Table 6.1",
    layout="imagenet",
    networks=(
        Network("VGG16", "torchvision:vgg16@IMAGENET1K_V1"),
        Network("ResNet18", "torchvision:resnet18@IMAGENET1K_V1"),
    ),
    # Names of filter measures, see midgrain.failures.
    methods={
        "Random": Method("random", passes=1),
        "Grad-CAM++": Method("gradcam++"),
        "Grad-CAM": Method("gradcam"),
        "XGrad-CAM": Method("xgradcam"),
        "l1-norm": Method("l1", passes=1),
        "Taylor": Method("taylor"),
        "Taylor (class)": Method("taylor-class"),
        "Grad-AMap": Method("grad-amap"),
    },
    measures={"removal": Measure("filter_removal", {"step": 16}, passes=33)},
    figures=printed(_FILTERS, (("VGG16", "removal"), ("ResNet18", "removal"))),
    samples="50,000 pictures, ImageNet's validation set",
    differences=(
        "the area is divided by the accuracy with all filters, as the thesis's accuracy is normalised to 0 .. 1",
        "the class is the picture's own",
    ),
    target="given",
    kind="filters",
)
