"""torchcam's calls: `from torchcam.methods import X` becomes `from midgrain.compat.torchcam.methods import X`.

The names of `methods` and of `utils` can be imported from here as well.
"""

from midgrain.compat.absent import TORCHCAM, not_offered
from midgrain.compat.torchcam import methods, utils
from midgrain.compat.torchcam.methods import (
    CAM,
    AblationCAM,
    GradCAM,
    GradCAMpp,
    HiResCAM,
    JitterCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from midgrain.compat.torchcam.utils import overlay_mask

__all__ = [
    "CAM",
    "AblationCAM",
    "GradCAM",
    "GradCAMpp",
    "HiResCAM",
    "JitterCAM",
    "LayerCAM",
    "ScoreCAM",
    "XGradCAM",
    "methods",
    "overlay_mask",
    "utils",
]

__getattr__ = not_offered(__name__, "torchcam", TORCHCAM)
