"""grad-cam's `utils`: targets, pictures, reshape transforms."""

from midgrain.compat.absent import GRADCAM_UTILS, not_offered
from midgrain.compat.gradcam.utils import image, model_targets, reshape_transforms

__all__ = ["image", "model_targets", "reshape_transforms"]

__getattr__ = not_offered(__name__, "pytorch-grad-cam", GRADCAM_UTILS)
