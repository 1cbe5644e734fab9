"""What other libraries offer under their names and midgrain does not: errors that say what to use instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, NoReturn

__all__ = ["CAPTUM", "GRADCAM", "GRADCAM_UTILS", "LIME", "QUANTUS", "SKIMAGE", "TORCHCAM", "Refusing", "not_offered"]


def _each(names: str, instead: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), instead)


_DFF = "activations are not factorised here; EigenCAM shows their first component"

#: Of `pytorch_grad_cam`: the name, and what to use instead.
GRADCAM = {
    **_each("AblationLayer AblationLayerVit AblationLayerFasterRCNN", "leave ablation_layer out, nothing is put in"),
    "ActivationsAndGradients": "nothing is hooked; cam.outputs has the outputs",
    **_each("DeepFeatureFactorization run_dff_on_image", _DFF),
    "FEM": "use EigenCAM, which is blind to the class as well",
    "FinerCAM": "GradCAM with targets=[FinerWeightedTarget(...)] is the same",
    "KPCA_CAM": "use EigenCAM",
    "RefineCAM": "use JitterCAM, of twice the resolution",
    "SESS": "use JitterCAM, which explains patches as well",
    "SegEigenCAM": "use EigenGradCAM with SemanticSegmentationTarget",
    "ShapleyCAM": "use GradCAM with targets=[ClassifierOutputReST(...)], or HiResCAM",
    "metrics": "use midgrain.measures",
}
#: Of `pytorch_grad_cam.utils` and `pytorch_grad_cam.utils.image`.
GRADCAM_UTILS = {
    **_each("create_labels_legend show_factorization_on_image", _DFF),
    **_each("get_2d_projection svd_on_activations", "use EigenCAM"),
    "find_layers": "pass layers by their dotted names",
    "scale_accross_batch_and_channels": "use scale_cam_image",
}

#: Of `captum.attr`.
CAPTUM = {
    "DataLoaderAttribution": "call the method batch by batch",
    "Deconvolution": "use GuidedBackprop",
    **_each("DeepLift DeepLiftShap GradientShap InternalInfluence", "use IntegratedGradients"),
    "LRP": "use InputXGradient or IntegratedGradients",
    "FeaturePermutation": "use FeatureAblation",
    **_each("ShapleyValues ShapleyValueSampling", "use KernelShap"),
    "LimeBase": "use midgrain.compat.lime, with regressions of your own",
    **_each("GradientAttribution PerturbationAttribution", "Attribution is the base of all"),
    **_each(
        "LayerActivation LayerConductance LayerDeepLift LayerDeepLiftShap LayerFeatureAblation LayerFeaturePermutation "
        "LayerGradientShap LayerGradientXActivation LayerIntegratedGradients LayerLRP",
        "use LayerGradCam or, for other maps of a layer, midgrain.compat.gradcam",
    ),
    **_each(
        "NeuronAttribution NeuronConductance NeuronDeconvolution NeuronDeepLift NeuronDeepLiftShap NeuronGradient "
        "NeuronFeatureAblation NeuronGradientShap NeuronGuidedBackprop NeuronIntegratedGradients",
        "give IntegratedGradients, Saliency or FeatureAblation a function that returns the neuron",
    ),
    "visualization": "keep importing it from captum.attr, or call midgrain.explainer(...)(x).plot()",
    **_each(
        "ClassSummarizer CommonStats Count MSE Max Mean Min ProductBaselines StatValue StdDev Sum Summarizer "
        "SummarizerSingleTensor Var",
        "keep importing it from captum.attr",
    ),
    **_each(
        "ImageMaskInput InterpretableEmbeddingBase InterpretableInput LLMAttribution LLMAttributionResult "
        "LLMGradientAttribution RemoteLLMAttribution RemoteLLMProvider TextTemplateInput TextTokenInput VLLMProvider "
        "TokenReferenceBase configure_interpretable_embedding_layer remove_interpretable_embedding_layer",
        "pictures and clips only; keep importing it from captum.attr",
    ),
}

#: Of `torchcam` and `torchcam.methods`.
TORCHCAM = {
    "FinerCAM": "use GradCAM with targets=midgrain.compat.gradcam.FinerWeightedTarget(...)",
    **_each("ISCAM SSCAM", "use ScoreCAM"),
    "LeGrad": "use GradCAM",
    "RefineCAM": "use JitterCAM, of twice the resolution",
    "SmoothGradCAMpp": "use GradCAMpp, or midgrain.explainer('smoothgrad', model)",
    "explain": "use 'midgrain explain' in a shell, or midgrain.explainer(...)(x).plot()",
    "metrics": "use midgrain.measures",
}

#: Of `lime`.
LIME = _each("lime_tabular lime_text submodular_pick", "pictures and clips only; keep importing it from lime")

#: Of `skimage.segmentation`.
SKIMAGE = _each(
    "active_contour chan_vese checkerboard_level_set clear_border disk_level_set expand_labels felzenszwalb "
    "find_boundaries flood flood_fill inverse_gaussian_gradient join_segmentations mark_boundaries "
    "morphological_chan_vese morphological_geodesic_active_contour quickshift random_walker relabel_sequential "
    "watershed",
    "keep importing it from skimage.segmentation",
)

#: Of `quantus`, whatever it is.
QUANTUS = "only explain (explain_func) is here; keep importing the rest from quantus"


def not_offered(
    module: str, peer: str, instead: Mapping[str, str], others: str | None = None
) -> Callable[[str], NoReturn]:
    """A `__getattr__` for a module that stands for another library's.

    Args:
        module: its name.
        peer: the other library's name.
        instead: per name that is not offered what to use instead.
        others: the same of all other names; None says that there is no such name.
    """

    def __getattr__(name: str) -> NoReturn:  # noqa: N807 - it becomes the module's
        said = instead.get(name) or (None if name.startswith("_") else others)
        if said is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        # Of an AttributeError `from module import name` would tell its name only.
        raise ImportError(f"midgrain does not offer {peer}'s {name}; {said}", name=module)

    return __getattr__


class Refusing:
    """Base of classes without some of the methods of another library's class of this name.

    `_instead` says per name what to use instead.
    """

    _instead: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            said = type(self)._instead.get(name)
            more = f"; {said}" if said else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{more}", name=name, obj=self)
