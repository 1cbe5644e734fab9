"""The `lime` package's image explainer: `from lime import X` becomes `from midgrain.compat.lime import X`.

Its names can be imported from here directly as well. `segmentation_fn` and `SegmentationAlgorithm` also fit into the
`lime` package itself.
"""

from midgrain.compat.absent import LIME, not_offered
from midgrain.compat.lime import lime_image, wrappers
from midgrain.compat.lime.lime_image import ImageExplanation, LimeImageExplainer
from midgrain.compat.lime.segmentation import SegmentationAlgorithm, segmentation_fn

__all__ = [
    "ImageExplanation",
    "LimeImageExplainer",
    "SegmentationAlgorithm",
    "lime_image",
    "segmentation_fn",
    "wrappers",
]

__getattr__ = not_offered(__name__, "lime", LIME)
