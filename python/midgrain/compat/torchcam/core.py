"""What torchcam's extractors share: they watch the user's own passes and explain the last one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from midgrain import driver
from midgrain.cams import CAM, make_cam
from midgrain.cams.base import merged
from midgrain.compat.gradcam.targets import SampleTarget, as_target
from midgrain.compat.torchcam.watcher import Watcher
from midgrain.driver import Target
from midgrain.explainer_base import check_scores
from midgrain.maps import min_max
from midgrain.network.modules import find_module, module_name
from midgrain.ops.checks import check_bool

__all__ = ["Extractor"]


class Extractor(Watcher):
    """A class activation map of the input that the model saw last.

    Only the input of a pass is remembered, by one hook that goes with the context (or with `remove_hooks()`, or with
    the extractor itself). The network is run again, up to the layer without gradients, so that passes under
    `torch.no_grad()`, frozen parameters and in-place operations after the layer are all right.

    Args:
        model: the network.
        target_layer: a module, its dotted name, or a list; None finds the last spatial layer.
        input_shape: not looked at: the layer is found at the input that comes.
        enable_hooks: look at passes from the beginning.
        reshape_transform: from a layer's output to [B, K, *m], where it is not understood.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, a layer that is not part of the model.
    """

    #: midgrain's name of the method.
    method: ClassVar[str] = ""
    #: Its options here.
    options: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module | str | list[nn.Module | str] | None = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        enable_hooks: bool = True,
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
        **options: Any,
    ):
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
        layers = target_layer if isinstance(target_layer, list) else [target_layer]
        modules = [find_module(model, layer) for layer in layers if layer is not None]
        self.model = model
        self.input_shape = input_shape
        self.target_names = [module_name(model, module) for module in modules]
        self.cam: CAM = make_cam(
            self.method, layer=modules or None, reshape=reshape_transform, **(self.options | options)
        )
        super().__init__(model, check_bool(enable_hooks, "enable_hooks"))

    def __call__(
        self,
        class_idx: int | list[int] | None = None,
        scores: Any = None,
        normalized: bool = True,
        *,
        targets: SampleTarget | Sequence[SampleTarget] | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """The maps of the last input, one per layer, [B, *m] at the layer's own size.

        Args:
            class_idx: a class, or one per sample.
            scores: not needed: the network is run again.
            normalized: rescale every map to 0 .. 1.
            targets: instead of classes, a callable from one sample's output to a scalar, or one per sample.
            **kwargs: `retain_graph`, which is not looked at: the user's graph is left alone.

        Raises:
            AssertionError: the model has seen no input since.
            TypeError, ValueError: not exactly one of `class_idx` and `targets`, or not one per sample.
        """
        if set(kwargs) - {"retain_graph"}:
            raise TypeError(f"{type(self).__name__} has no argument {', '.join(sorted(kwargs))}")
        if (class_idx is None) == (targets is None):
            raise ValueError("class_idx, targets: expected exactly one of them")
        x = driver.check_input(self.last_input())
        with self.looking_away(), driver.preserved(self.model, x):
            maps = self.cam.layer_maps(self.model, x, self._target(class_idx, targets, len(x))).maps
        for each in maps:
            check_scores(each)
        return [min_max(each) if check_bool(normalized, "normalized") else each for each in maps]

    #: torchcam's other name of the call.
    compute_cams = __call__

    def _target(self, class_idx: Any, targets: Any, batch: int) -> Target:
        if targets is not None:
            return as_target([targets] * batch if callable(targets) else targets, batch)
        if isinstance(class_idx, list) and len(class_idx) != batch:
            raise ValueError(f"class_idx: expected one class per sample ({batch}), got {len(class_idx)}")
        return class_idx  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(target_layer={self.target_names})"

    @classmethod
    def fuse_cams(cls, cams: list[Tensor], target_shape: tuple[int, ...] | None = None) -> Tensor:
        """Maps of several layers as one, [B, *target_shape]: the largest value of each place, after resizing.

        Args:
            cams: [B, *m] each.
            target_shape: by default the largest of them.

        Raises:
            TypeError, ValueError: no list of tensors, or an empty one.
        """
        if not isinstance(cams, list) or not all(isinstance(each, Tensor) for each in cams):
            raise TypeError("cams: expected a list of tensors")
        if not cams:
            raise ValueError("cams: expected at least one map, got none")
        if len(cams) == 1:
            return cams[0]
        shape = target_shape or tuple(max(sizes) for sizes in zip(*(each.shape[1:] for each in cams), strict=True))
        return torch.stack([merged([cls.scaled(each)], shape) for each in cams]).amax(0)

    @staticmethod
    def scaled(cam: Tensor) -> Tensor:
        """A map before it is fused with others."""
        return cam
