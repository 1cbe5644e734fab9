"""pytorch-grad-cam's calls: `from pytorch_grad_cam import X` becomes `from midgrain.compat.gradcam import X`.

The submodules `utils.model_targets`, `utils.image` and `utils.reshape_transforms` are where they are there, and their
names can be imported from here as well.
"""

from midgrain.compat.absent import GRADCAM, not_offered
from midgrain.compat.gradcam import utils
from midgrain.compat.gradcam.base_cam import BaseCAM
from midgrain.compat.gradcam.formulas import EigenGradCAM, GradCAMElementWise, RandomCAM
from midgrain.compat.gradcam.guided_backprop import GuidedBackpropReLUModel
from midgrain.compat.gradcam.methods import (
    AblationCAM,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from midgrain.compat.gradcam.utils.image import deprocess_image, preprocess_image, scale_cam_image, show_cam_on_image
from midgrain.compat.gradcam.utils.model_targets import (
    BinaryClassifierOutputTarget,
    ClassifierOutputReST,
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    FasterRCNNBoxScoreTarget,
    FinerWeightedTarget,
    RawScoresOutputTarget,
    SemanticSegmentationTarget,
    SoftmaxOutputTarget,
)
from midgrain.compat.gradcam.utils.reshape_transforms import swinT_reshape_transform, vit_reshape_transform
from midgrain.compat.gradcam.whole_maps import SWAG, FullGrad, JitterCAM

__all__ = [
    "SWAG",
    "AblationCAM",
    "BaseCAM",
    "BinaryClassifierOutputTarget",
    "ClassifierOutputReST",
    "ClassifierOutputSoftmaxTarget",
    "ClassifierOutputTarget",
    "EigenCAM",
    "EigenGradCAM",
    "FasterRCNNBoxScoreTarget",
    "FinerWeightedTarget",
    "FullGrad",
    "GradCAM",
    "GradCAMElementWise",
    "GradCAMPlusPlus",
    "GuidedBackpropReLUModel",
    "HiResCAM",
    "JitterCAM",
    "LayerCAM",
    "RandomCAM",
    "RawScoresOutputTarget",
    "ScoreCAM",
    "SemanticSegmentationTarget",
    "SoftmaxOutputTarget",
    "XGradCAM",
    "deprocess_image",
    "preprocess_image",
    "scale_cam_image",
    "show_cam_on_image",
    "swinT_reshape_transform",
    "utils",
    "vit_reshape_transform",
]

__getattr__ = not_offered(__name__, "pytorch-grad-cam", GRADCAM)
