"""What all of grad-cam's classes share: its constructor, its call, its context manager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from midgrain import driver
from midgrain.cams import CAM, make_cam
from midgrain.compat.gradcam.augmentation import augmented_maps
from midgrain.compat.gradcam.eigen_smooth import smooth_by_component
from midgrain.compat.gradcam.refused import WithoutParts
from midgrain.compat.gradcam.targets import SampleTarget, as_target
from midgrain.driver import Target
from midgrain.explainer_base import check_scores
from midgrain.maps import min_max, resize_maps
from midgrain.network.modules import model_device
from midgrain.ops.checks import check_bool

__all__ = ["BaseCAM"]


class BaseCAM(WithoutParts):
    """A class activation map, called as in pytorch-grad-cam.

    Unlike there, the model keeps its mode, gradients and layers, also after an exception; nothing is hooked between
    calls, so that leaving the context hides no exception; gradients may be switched off around the call, parameters
    frozen; one target for several samples is refused.

    Args:
        model: the network.
        target_layers: modules (or their dotted names); of several, the maps are averaged.
        reshape_transform: from a layer's output to [B, K, h, w] or [B, K, t, h, w]; outputs of transformers are mostly
            understood without.

    Attributes:
        outputs: what the model returned in the last call, detached.
        batch_size: copies at once, of methods that run altered inputs; None chooses.
        tta_transforms: None, or an object like ttach's Compose, whose elements `aug_smooth` uses instead of its own.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, a layer that is not part of the model.
    """

    #: midgrain's name of the method.
    method: ClassVar[str] = ""
    #: Its options here.
    options: ClassVar[dict[str, Any]] = {}
    uses_gradients = True
    #: May `eigen_smooth` replace the sum over weighted channels?
    smoothable: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module | str],
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
    ):
        driver.check_model(model)
        if isinstance(target_layers, str) or not isinstance(target_layers, Sequence):
            raise TypeError(f"target_layers: expected a list of modules, got {type(target_layers).__name__}")
        self.model = model
        self.target_layers = list(target_layers)
        self.reshape_transform = reshape_transform
        self.device = model_device(model) or torch.device("cpu")
        self.batch_size: int | None = None
        self.tta_transforms: Any = None
        self.outputs: Any = None
        self._made: dict[bool, CAM] = {}

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[SampleTarget] | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> npt.NDArray[np.float32]:
        """Explain a batch.

        Args:
            input_tensor: floats [B, C, H, W] or [B, C, T, H, W].
            targets: one callable per sample, from that sample's output to a scalar; None explains each sample's best
                class.
            aug_smooth: average over mirrored, darker and brighter copies.
            eigen_smooth: the first principal component of the weighted channels instead of their sum.

        Returns:
            float32 [B, H, W] or [B, T, H, W], each rescaled to 0 .. 1.

        Raises:
            TypeError, ValueError: bad input; not one target per sample; a method that has no `eigen_smooth`.
        """
        x = driver.check_input(input_tensor).to(self.device)
        check_bool(eigen_smooth, "eigen_smooth")
        if eigen_smooth and not self.smoothable:
            raise ValueError(f"eigen_smooth: {type(self).__name__} weighs no channels; expected False, or use GradCAM")
        explain = partial(self._explained, targets=targets, eigen_smooth=eigen_smooth)
        if not check_bool(aug_smooth, "aug_smooth"):
            return explain(x).cpu().numpy()
        return torch.stack(augmented_maps(explain, x, self.tta_transforms)).mean(0).cpu().numpy()

    def forward(
        self, input_tensor: Tensor, targets: Sequence[SampleTarget] | None = None, eigen_smooth: bool = False
    ) -> npt.NDArray[np.float32]:
        """The call without `aug_smooth`."""
        return self(input_tensor, targets, eigen_smooth=eigen_smooth)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def make(self, options: dict[str, Any]) -> CAM:
        """The class activation map; called once without and once with `eigen_smooth`."""
        return make_cam(self.method, **options, **self.options)

    def maps(self, x: Tensor, target: Target, eigen_smooth: bool) -> tuple[list[Tensor], Any]:
        """The maps of each layer, [B, *m], and the outputs where they are logits."""
        cam = self._made.get(eigen_smooth)
        if cam is None:
            cam = self.make({"layer": self.target_layers, "reshape": self.reshape_transform})
            if eigen_smooth:
                smooth_by_component(cam)
            self._made[eigen_smooth] = cam
        if hasattr(cam, "batch_size"):
            cam.batch_size = self.batch_size
        made = cam.layer_maps(self.model, x, target)
        return list(made.maps), made.result.outputs

    def _explained(self, x: Tensor, targets: Sequence[SampleTarget] | None, eigen_smooth: bool) -> Tensor:
        seen: list[Any] = []
        with driver.preserved(self.model, x):
            maps, outputs = self.maps(x, as_target(targets, len(x), seen), eigen_smooth)
        self.outputs = seen[0] if seen else outputs
        resized = []
        for each in maps:
            check_scores(each)
            resized.append(resize_maps(min_max(each.clamp(min=0)), x.shape[2:]))
        return min_max(torch.stack(resized).mean(0))
