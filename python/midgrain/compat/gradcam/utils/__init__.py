"""grad-cam's `utils`: targets, pictures, reshape transforms."""

from midgrain.compat.gradcam.utils import image, model_targets, reshape_transforms

__all__ = ["image", "model_targets", "reshape_transforms"]
