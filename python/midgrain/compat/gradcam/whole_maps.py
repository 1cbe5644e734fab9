"""Methods without a layer of the user's, called as grad-cam's: FullGrad, and midgrain's SWAG and Jitter-CAM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from midgrain.cams import CAM
from midgrain.compat.gradcam.base_cam import BaseCAM
from midgrain.driver import Target
from midgrain.registry import explainer
from midgrain.scorers import make_scorer

__all__ = ["SWAG", "FullGrad", "JitterCAM"]


class _WholeMap(BaseCAM):
    """A method whose map has the input's size and no layer of the user's."""

    smoothable = False

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module | str] = (),
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
        **options: Any,
    ):
        super().__init__(model, target_layers, reshape_transform)
        self._options = options


class FullGrad(_WholeMap):
    """FullGrad, complete for all biases; `target_layers` is not looked at, as in grad-cam."""

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module | str] = (),
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__(model, target_layers, reshape_transform)

    def maps(self, x: Tensor, target: Target, eigen_smooth: bool) -> tuple[list[Tensor], Any]:
        """[B, *S]."""
        score = make_scorer("fullgrad").score(self.model, x, target)
        return [score.map], score.result.outputs


class SWAG(_WholeMap):
    """Superpixels weighted by gradients (not in grad-cam); no layer is needed. Options: see `midgrain.SWAG`."""

    def maps(self, x: Tensor, target: Target, eigen_smooth: bool) -> tuple[list[Tensor], Any]:
        """[B, *S]."""
        made = explainer("swag-ig", self.model, **self._options)(x, target)
        return [made.heatmap], made.outputs


class JitterCAM(_WholeMap):
    """Jitter-CAM (not in grad-cam): Grad-CAM at twice the resolution. Options: see `midgrain.cams.jitter.JitterCAM`."""

    method = "jittercam"

    def make(self, options: dict[str, Any]) -> CAM:
        """With one layer, or with the one that is found."""
        return super().make({**options, "layer": options["layer"] or None, **self._options})
