"""captum's calls: `from captum.attr import X` becomes `from midgrain.compat.captum import X`.

`feature_mask` makes superpixels for captum's own perturbation methods, too.
"""

from midgrain.compat.absent import CAPTUM, not_offered
from midgrain.compat.captum.attribution import Attribution
from midgrain.compat.captum.features import feature_mask
from midgrain.compat.captum.gradients import GuidedBackprop, InputXGradient, IntegratedGradients, Saliency
from midgrain.compat.captum.layers import GuidedGradCam, LayerAttribution, LayerGradCam
from midgrain.compat.captum.noise_tunnel import NoiseTunnel
from midgrain.compat.captum.occlusion import Occlusion
from midgrain.compat.captum.perturbations import FeatureAblation
from midgrain.compat.captum.regions import KernelShap, Lime

__all__ = [
    "Attribution",
    "FeatureAblation",
    "GuidedBackprop",
    "GuidedGradCam",
    "InputXGradient",
    "IntegratedGradients",
    "KernelShap",
    "LayerAttribution",
    "LayerGradCam",
    "Lime",
    "NoiseTunnel",
    "Occlusion",
    "Saliency",
    "feature_mask",
]

__getattr__ = not_offered(__name__, "captum", CAPTUM)
