"""captum's LIME and Kernel SHAP, and superpixels for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from midgrain.compat.captum.attribution import (
    Arguments,
    Attribution,
    CaptumTarget,
    Inputs,
    one_baseline,
    one_input,
    refused,
)
from midgrain.normalisation import Normalisation
from midgrain.regions.kernel_shap import KernelSHAP
from midgrain.regions.lime import LIME
from midgrain.regions.superpixels import Pictures, SlicOptions, Superpixels

__all__ = ["KernelShap", "Lime", "feature_mask"]

_IMAGES_AND_CLIPS = (4, 5)


def feature_mask(
    inputs: Inputs,
    n_segments: int = 50,
    *,
    superpixels: Any = "image",
    compactness: float = 20.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Tensor:
    """Superpixels as captum's `feature_mask`, for its methods and for those here.

    Args:
        inputs: floats [B, 3, H, W] or [B, 3, T, H, W] (or one channel), normalised as the model expects.
        n_segments: wanted superpixels.
        superpixels: "image" (SLIC), "quickshift", "felzenszwalb" or a callable, see `midgrain.SWAG`.
        compactness: of SLIC.
        mean: normalisation of the inputs, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.

    Returns:
        int64 [B, 1, *S], from 0 on in every sample.

    Raises:
        TypeError, ValueError: inputs that are no pictures, or an unfit option.

    Example:
        >>> import torch
        >>> from midgrain.compat.captum import feature_mask
        >>> feature_mask(torch.zeros(2, 3, 40, 60), n_segments=6).unique()
        tensor([0, 1, 2, 3, 4, 5])
    """
    x, _ = one_input(inputs, ranks=_IMAGES_AND_CLIPS)
    normalisation = Normalisation(mean, std)
    numbers, rgb = normalisation.of(x), normalisation.rgb(x)
    if numbers is None or rgb is None:
        raise ValueError(f"inputs: expected 1 or 3 channels for superpixels of the picture, got {x.shape[1]}")
    if isinstance(superpixels, str) and "gradient" in superpixels:
        raise ValueError(f"superpixels: expected those of the picture alone, got {superpixels!r}")
    made = Superpixels(superpixels, SlicOptions(n_segments, compactness))
    return made.make(x, Pictures(x, *numbers, rgb), None).labels.to(device=x.device, dtype=torch.int64)[:, None]


class _Regions(Attribution):
    """A regression on superpixels."""

    explainer: Callable[..., Any]

    def _attribute(
        self,
        inputs: Inputs,
        baselines: Any,
        target: CaptumTarget,
        arguments: Arguments,
        mask: Any,
        n_samples: int,
        at_once: int,
        return_input_shape: bool,
        progress: bool,
    ) -> Any:
        x, in_tuple = one_input(inputs, ranks=_IMAGES_AND_CLIPS)
        explain = self.explainer(
            self.model(x, arguments),
            superpixels=_labels(mask, x),
            n_samples=n_samples,
            baseline=one_baseline(baselines),
            output="logit",
            batch_size=at_once,
            progress=progress,
        )
        made = explain(x, self.targets(target))
        if not return_input_shape:
            return made.scores.to(x.dtype)
        found = made.heatmap[:, None].expand(x.shape).to(x.dtype)
        return (found,) if in_tuple else found


class Lime(_Regions):
    """LIME as its authors define it: ridge regression, cosine distances of width 0.25, on raw outputs.

    captum's class of this name fits a Lasso that is weighted by other distances, so that the coefficients are not the
    same; those of `midgrain.explainer("lime", ...)` are.

    Args:
        forward_func: see `Attribution`.
        interpretable_model: None.
        similarity_func: None.
        perturb_func: None.
    """

    explainer = LIME

    def __init__(
        self,
        forward_func: Callable[..., Any],
        interpretable_model: Any = None,
        similarity_func: Any = None,
        perturb_func: Any = None,
    ):
        super().__init__(forward_func)
        refused(interpretable_model=interpretable_model, similarity_func=similarity_func, perturb_func=perturb_func)

    def attribute(
        self,
        inputs: Inputs,
        baselines: Any = None,
        target: CaptumTarget = None,
        additional_forward_args: Arguments = None,
        feature_mask: Any = None,
        n_samples: int = 25,
        perturbations_per_eval: int = 1,
        return_input_shape: bool = True,
        show_progress: bool = False,
    ) -> Any:
        """Coefficients, painted on the inputs' shape or [B, features].

        Args:
            inputs: floats [B, C, H, W] or [B, C, T, H, W].
            baselines: None (0), a number, or a tensor that broadcasts to the inputs.
            target: see `CaptumTarget`.
            additional_forward_args: see `Arguments`.
            feature_mask: superpixels, see `midgrain.compat.captum.feature_mask`; all channels have the same.
            n_samples: copies that the model sees.
            perturbations_per_eval: copies at once.
            return_input_shape: False returns one number per superpixel.
            show_progress: show a bar.

        Raises:
            TypeError, ValueError: an argument of the wrong kind or out of range; no `feature_mask`.
        """
        return self._attribute(
            inputs,
            baselines,
            target,
            additional_forward_args,
            feature_mask,
            n_samples,
            perturbations_per_eval,
            return_input_shape,
            show_progress,
        )


class KernelShap(_Regions):
    """Kernel SHAP; the values add up to f(x) - f(baseline) exactly, and all subsets are used where they are few."""

    explainer = KernelSHAP

    attribute = Lime.attribute


def _labels(mask: Any, x: Tensor) -> Tensor:
    """Superpixels [*S] or [B, *S] from captum's feature mask."""
    if isinstance(mask, tuple) and len(mask) == 1:
        (mask,) = mask
    if mask is None:
        raise ValueError("feature_mask: expected one; midgrain.compat.captum.feature_mask(inputs) makes superpixels")
    if not isinstance(mask, Tensor) or mask.is_floating_point():
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"feature_mask: expected a tensor of integers, got {got}")
    try:
        every = mask.expand(len(x) if mask.ndim == x.ndim and len(mask) > 1 else 1, *x.shape[1:])
    except RuntimeError:
        raise ValueError(
            f"feature_mask: expected a shape that broadcasts to {list(x.shape)}, got {list(mask.shape)}"
        ) from None
    if not (every == every[:, :1]).all():
        raise ValueError("feature_mask: expected the same superpixels in all channels; FeatureAblation takes others")
    return every[:, 0] if len(every) > 1 else every[0, 0]
