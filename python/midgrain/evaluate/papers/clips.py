"""SWAG-V's tables: T. Hartley's PhD thesis, chapter 4."""

from __future__ import annotations

from dataclasses import replace

from midgrain.evaluate.papers.declaration import CURVES, WEAK_LOCALISATION, Method, Network, Table, printed

__all__ = ["LOCALISATION", "SWAGV"]

_OWN = "torchvision has no weights of it; give a network of yours with --model"
_C3D = Network("C3D", None, f"the thesis took those published with R(2+1)D (Tran et al. 2018); {_OWN}")
_R2PLUS1D = Network("R(2+1)D", "torchvision:r2plus1d_18@KINETICS400_V1")
_COUNT = {"n_segments": 120}

_METHODS = {
    "Centre": Method("centre", passes=0),
    "Random": Method("random-point", passes=0),
    "Grad-CAM": Method("gradcam"),
    "Grad-CAM++": Method("gradcam++"),
    "Saliency Tubes": Method("saliency-tubes", passes=1),
    "SWAG-V I": Method("swag-i", {**_COUNT, "compactness": 10.0}),
    "SWAG-V I+G": Method("swag-ig", {**_COUNT, "compactness": 20.0, "gradient_compactness": 9.0}),
    "SWAG-V G": Method("swag-g", {**_COUNT, "gradient_compactness": 9.0}),
    "Guided Backprop": Method("guided"),
}

# Deletion of both networks, then insertion.
_COLUMNS = tuple((network, label) for label in ("deletion", "insertion") for network in ("C3D", "R(2+1)D"))
_SWAGV = """
Centre           0.153 0.167 0.264 0.304
Random           0.222 0.265 0.272 0.322
Grad-CAM         0.157 0.118 0.313 0.447
Grad-CAM++       0.136 0.125 0.315 0.422
Saliency Tubes   -     0.118 -     0.447
SWAG-V I         0.091 0.113 0.312 0.372
SWAG-V I+G       0.087 0.111 0.314 0.381
SWAG-V G         0.068 0.080 0.262 0.343
Guided Backprop  0.031 0.035 0.184 0.287
"""

SWAGV = Table(
    name="swagv",
    title="deletion and insertion AUC of SWAG-V and other methods on clips",
    source="T. Hartley, PhD thesis, Table 4.2",
    layout="kinetics400",
    networks=(_R2PLUS1D, _C3D),
    methods=_METHODS,
    measures=CURVES,
    figures=printed(_SWAGV, _COLUMNS),
    samples="18,362 clips, the 16 frames in the middle of Kinetics-400's validation videos",
    differences=(
        "R(2+1)D is torchvision's network of 18 layers; the thesis took the weights that came with Tran et al. 2018",
        "pixels of one value are removed together instead of in raster order",
        "the thesis's colour weight for SWAG-V I is not stated: 10, SLIC's usual one",
    ),
)

_LOCALISATION_COLUMNS = tuple(
    (network, label) for network in ("C3D", "R(2+1)D") for label in ("value", "mean", "energy")
)
_LOCALISATION = """
Centre           87.91 88.26 87.66 87.91 88.26 87.66
Random           90.51 90.63 90.34 90.51 90.63 90.40
Guided Backprop  90.62 90.69 100.00 90.68 87.58 85.64
Grad-CAM         90.57 90.46 90.53 85.40 87.08 85.32
Grad-CAM++       90.21 89.91 89.92 85.40 87.08 85.32
Saliency Tubes   - - - 85.58 85.86 85.64
SWAG-V I         74.00 74.46 74.26 71.76 72.61 72.58
SWAG-V I+G       73.00 72.52 72.99 70.02 69.94 71.25
SWAG-V G         75.22 74.25 74.09 69.88 70.80 70.59
"""

LOCALISATION = replace(
    SWAGV,
    name="swagv-localisation",
    title="weak localisation error of SWAG-V and other methods on clips, per cent",
    source="T. Hartley, PhD thesis, Table 4.3",
    layout="ucf101",
    networks=(
        Network("R(2+1)D", None, f"the thesis's network knows UCF101's classes; {_OWN}"),
        Network("C3D", None, f"the thesis's network knows UCF101's classes; {_OWN}"),
    ),
    measures=WEAK_LOCALISATION,
    figures=printed(_LOCALISATION, _LOCALISATION_COLUMNS),
    samples="10,704 clips of 697 videos of UCF101's first test list",
    differences=(
        "boxes are those of the corrected annotations (Singh et al. 2017); the thesis does not say which it took",
        *SWAGV.differences[2:],
        "the thesis does not say which class is explained; here it is the video's own",
    ),
    target="given",
    decimals=2,
)
