"""captum's LIME and Kernel SHAP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from midgrain.compat.captum.attribution import Arguments, Attribution, CaptumTarget
from midgrain.compat.captum.features import superpixel_labels
from midgrain.compat.captum.inputs import IMAGES_AND_CLIPS, Inputs, one_baseline, one_input, refused
from midgrain.regions.kernel_shap import KernelSHAP
from midgrain.regions.lime import LIME

__all__ = ["KernelShap", "Lime"]


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
        x, in_tuple = one_input(inputs, ranks=IMAGES_AND_CLIPS)
        explain = self.explainer(
            self.model(x, arguments),
            superpixels=superpixel_labels(mask, x),
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
        refused("interpretable_model", interpretable_model, "midgrain.compat.lime has model_regressor")
        refused("similarity_func", similarity_func, "midgrain.compat.lime has kernel and distance_metric")
        refused("perturb_func", perturb_func, "feature_mask says what is switched, baselines what stands there")

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
