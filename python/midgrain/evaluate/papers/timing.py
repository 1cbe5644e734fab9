"""Seconds of an explanation: T. Hartley's PhD thesis, chapters 3 to 5, and SISE."""

from __future__ import annotations

from midgrain.evaluate.papers import clips, jitter, sise, swag
from midgrain.evaluate.papers.declaration import Figure, Measure, Method, Table, printed

__all__ = ["TIMING"]

_SECONDS = "seconds"
_IMAGES = """
Grad-CAM     0.03 0.03
Grad-CAM ++  0.03 0.03
LIME         5.80 4.76
RISE         13.19 17.48
XRAI         31.10 30.57
SWAG I       0.12 0.18
SWAG I+G     0.12 0.18
SWAG G       0.07 0.10
"""
_CAMS = """
Grad-CAM      0.03 0.07 0.06
Grad-CAM ++   0.03 0.07 0.06
XGrad-CAM     0.03 0.07 0.06
Score-CAM     3.83 1.92 5.01
Ablation-CAM  0.60 0.30 0.60
Jitter-CAM    0.37 0.40 0.67
"""
_CLIPS = """
Grad-CAM        0.08 0.15
Grad-CAM ++     0.08 0.15
Saliency Tubes  -    0.05
SWAG-V I        0.41 0.68
SWAG-V I+G      0.46 0.74
SWAG-V G        0.26 0.40
"""
# SISE's text, on a Tesla T4: Grad-CAM 19 and Grad-CAM++ 20 milliseconds, RISE 26.08 s, extremal perturbation 78.37 s.
_T4 = """
SISE                   9.21
SISE, mu 0.3           2.18
SISE, mu 0.5           0.65
Extremal Perturbation  78.37
"""


def _figures() -> dict[str, dict[str, dict[str, Figure]]]:
    found: dict[str, dict[str, dict[str, Figure]]] = {}
    for text, networks in (
        (_IMAGES, ("VGG16", "ResNet50")),
        (_CAMS, ("ResNet50", "DenseNet", "Inception")),
        (_CLIPS, ("C3D", "R(2+1)D")),
        (_T4, ("ResNet50",)),
    ):
        for network, methods in printed(text, [(network, _SECONDS) for network in networks]).items():
            found.setdefault(network, {}).update(methods)
    return found


TIMING = Table(
    name="timing",
    title="seconds of an explanation",
    source="T. Hartley, PhD thesis, Tables 3.11, 5.5 and 4.4 (Titan X); SISE: AAAI 2021, text (Tesla T4)",
    layout="",
    networks=(*swag.DELETION.networks, *jitter.DELETION.networks[1:], *clips.SWAGV.networks),
    methods={
        **swag.DELETION.methods,
        **jitter.DELETION.methods,
        **clips.SWAGV.methods,
        "SISE": sise.SISE.methods["SISE"],
        "SISE, mu 0.3": Method("sise", {"mu": 0.3}, 450),
        "SISE, mu 0.5": Method("sise", {"mu": 0.5}, 130),
        "Extremal Perturbation": sise.SISE.methods["Extremal Perturbation"],
    },
    measures={_SECONDS: Measure("")},
    figures=_figures(),
    samples="the mean of 1,000 pictures or clips or more (SISE: 100)",
    differences=(
        "the median of some runs on one picture or clip of noise; networks have random weights unless they are given",
        "one input at a time on this machine, beside the papers' Titan X and Tesla T4",
    ),
    kind="timing",
)
