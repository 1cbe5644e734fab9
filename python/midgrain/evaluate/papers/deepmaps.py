"""DeepMaps' figures (XAI4Debugging at NeurIPS 2021): the paper draws them, and says some numbers in its text."""

from __future__ import annotations

from midgrain.evaluate.measuring import MEASURES
from midgrain.evaluate.papers.declaration import Measure, Method, Network, Table, printed

__all__ = ["DEEPMAPS"]

_PERCENT = 100.0
# Label -> measure, options, factor, passes.
_PLAIN = {
    "AOPC": Measure("aopc", {"share": 0.1, "order": "morf"}, "higher", passes=11),
    "AFOC MoRF": Measure("afoc", {"share": 0.1, "order": "morf"}, "higher", passes=11),
    "AFOC LeRF": Measure("afoc", {"share": 0.1, "order": "lerf"}, "lower", passes=11),
    "n MoRF": Measure("n_morf", {}, "lower", factor=_PERCENT, passes=20),
    "n LeRF": Measure("n_lerf", {}, "higher", factor=_PERCENT, passes=60),
}
_OTHERS = 5


def _delta(measure: Measure) -> Measure:
    """The measure minus its mean over maps of other pictures, where this version has it."""
    of_its_own = f"delta_{measure.name}"
    name = of_its_own if of_its_own in MEASURES else ""
    return Measure(name, measure.options, measure.better, factor=measure.factor, passes=measure.passes * (1 + _OTHERS))


# The text's numbers: sections 4.3 and 4.4, appendix F. AOPC, AFOC and most of the rest are drawn only.
_VGG16 = """
Random          ~20     -    ~0
Gradients       12..14  -    ~-10
Gradient x Input 12..14 -    -
Grad-CAM        12..14  -    -
FullGrad        12..14  -    -
DeepMaps        ~10     ~60  ~-20
"""
_RESNET50 = """
Random          ~23     -    -
"""

DEEPMAPS = Table(
    name="deepmaps",
    title="DeepMaps and other methods: AOPC, AFOC, and per cent of pixels removed until the decision changes",
    source="DeepMaps, XAI4Debugging at NeurIPS 2021, sections 4.3 and F (figures 4, 6 and 15)",
    layout="imagenet-100",
    networks=(
        Network("VGG-16", "torchvision:vgg16@IMAGENET1K_V1"),
        Network("ResNet-50", "torchvision:resnet50@IMAGENET1K_V1"),
    ),
    methods={
        "Random": Method("noise", passes=0),
        "Gradients": Method("vanilla"),
        "Gradient x Input": Method("input-x-gradient"),
        "Grad-CAM": Method("gradcam"),
        "FullGrad": Method("fullgrad"),
        "DeepMaps": Method("deepmaps"),
    },
    measures={**_PLAIN, **{f"delta {label}": _delta(measure) for label, measure in _PLAIN.items()}},
    figures={
        **printed(_VGG16, [("VGG-16", "n MoRF"), ("VGG-16", "n LeRF"), ("VGG-16", "delta n MoRF")]),
        **printed(_RESNET50, [("ResNet-50", "n MoRF"), ("ResNet-50", "n LeRF"), ("ResNet-50", "delta n MoRF")]),
    },
    samples="5,000 pictures, the first 100 classes of ImageNet's validation set",
    differences=(
        "the paper draws its results; the numbers here are those that its text says, most of them as 'about'",
        "gradients are the largest magnitude of the three channels, where the paper adds magnitudes",
        "pixels that are removed become 0, the mean colour of ImageNet",
        "a delta of n MoRF is negative where an explanation is better than those of other pictures",
    ),
    decimals=2,
    every_method=True,
)
