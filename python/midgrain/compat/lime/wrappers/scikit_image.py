"""`lime.wrappers.scikit_image`: segmentations with their parameters."""

from midgrain.compat.absent import not_offered
from midgrain.compat.lime.segmentation import SegmentationAlgorithm

__all__ = ["SegmentationAlgorithm"]

__getattr__ = not_offered(
    __name__, "lime", dict.fromkeys(("BaseWrapper", "has_arg"), "SegmentationAlgorithm takes any function's parameters")
)
