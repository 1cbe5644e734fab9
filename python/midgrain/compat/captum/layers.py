"""captum's Grad-CAM and guided Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from midgrain import driver
from midgrain.cams.gradient import GradCAM
from midgrain.compat.captum.attribution import Arguments, Attribution, CaptumTarget
from midgrain.compat.captum.gradients import GuidedBackprop
from midgrain.compat.captum.inputs import IMAGES_AND_CLIPS, Inputs, one_input, refused
from midgrain.explainer_base import check_scores
from midgrain.ops.checks import check_bool

__all__ = ["GuidedGradCam", "LayerAttribution", "LayerGradCam"]


class LayerAttribution(Attribution):
    """Base of the methods that explain a layer.

    Args:
        forward_func: the model, a `torch.nn.Module`.
        layer: one of its modules.
        device_ids: not looked at; models wrapped in DataParallel are looked at behind their wrapper.
    """

    def __init__(self, forward_func: Callable[..., Any], layer: nn.Module, device_ids: list[int] | None = None):
        super().__init__(forward_func)
        self.layer = layer
        self.device_ids = device_ids

    @staticmethod
    def interpolate(
        layer_attribution: Tensor, interpolate_dims: int | tuple[int, ...], interpolate_mode: str = "nearest"
    ) -> Tensor:
        """Attributions [B, K, *m] resized to `interpolate_dims`, as `torch.nn.functional.interpolate` does."""
        return F.interpolate(layer_attribution, interpolate_dims, mode=interpolate_mode)


class LayerGradCam(LayerAttribution):
    """Grad-CAM at a layer.

    Example:
        >>> import torch
        >>> from midgrain.compat.captum import LayerGradCam
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> LayerGradCam(model, model[0]).attribute(torch.rand(2, 3, 16, 16), target=[1, 7]).shape
        torch.Size([2, 1, 14, 14])
    """

    def attribute(
        self,
        inputs: Inputs,
        target: CaptumTarget = None,
        additional_forward_args: Arguments = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Tensor:
        """The map at the layer's size, [B, 1, *m]; signs are kept unless `relu_attributions`.

        Args:
            inputs: floats [B, C, H, W] or [B, C, T, H, W].
            target: see `CaptumTarget`.
            additional_forward_args: see `Arguments`.
            attribute_to_layer_input: False; name the layer before instead.
            relu_attributions: negative values become 0.
            attr_dim_summation: False keeps the weighted channels apart, [B, K, *m].
            grad_kwargs: None.

        Raises:
            TypeError, ValueError: an argument of the wrong kind; a layer whose output is not spatial.
        """
        refused("attribute_to_layer_input", attribute_to_layer_input, "name the layer before instead")
        refused("grad_kwargs", grad_kwargs, "gradients need no arguments here")
        x, _ = one_input(inputs, ranks=IMAGES_AND_CLIPS)
        kind = GradCAM if check_bool(attr_dim_summation, "attr_dim_summation") else _Channels
        cam = kind(self.layer, relu=check_bool(relu_attributions, "relu_attributions"))
        model = self.model(x, additional_forward_args)
        with driver.preserved(model, x):
            (found,) = cam.layer_maps(model, x, self.targets(target)).maps
        check_scores(found)
        return found[:, None] if attr_dim_summation else found


class _Channels(GradCAM):
    """The weighted channels."""

    def combined(self, weights: Tensor, activations: Tensor) -> Tensor:
        return weights * activations


class GuidedGradCam(LayerAttribution):
    """Guided backpropagation times Grad-CAM."""

    def __init__(self, model: nn.Module, layer: nn.Module, device_ids: list[int] | None = None):
        super().__init__(model, layer, device_ids)

    def attribute(
        self,
        inputs: Inputs,
        target: CaptumTarget = None,
        additional_forward_args: Arguments = None,
        interpolate_mode: str = "nearest",
        attribute_to_layer_input: bool = False,
    ) -> Any:
        """Attributions of the inputs' form and shape; the map is resized by `interpolate_mode`."""
        x, in_tuple = one_input(inputs, ranks=IMAGES_AND_CLIPS)
        cam = LayerGradCam(self.forward_func, self.layer).attribute(
            x, target, additional_forward_args, attribute_to_layer_input, relu_attributions=True
        )
        guided = GuidedBackprop(self.forward_func).attribute(x, target, additional_forward_args)  # type: ignore[arg-type]
        found = guided * self.interpolate(cam, tuple(x.shape[2:]), interpolate_mode)
        return (found,) if in_tuple else found
