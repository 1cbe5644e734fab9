"""`lime.wrappers`: segmentations."""

from midgrain.compat.lime.wrappers import scikit_image

__all__ = ["scikit_image"]
