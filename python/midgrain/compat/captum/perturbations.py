"""captum's feature ablation, and what hides one part of the input after the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from midgrain import driver
from midgrain.baseline import make_baseline
from midgrain.compat.captum.attribution import Arguments, Attribution, CaptumTarget
from midgrain.compat.captum.features import feature_numbers
from midgrain.compat.captum.inputs import Inputs, one_baseline, one_input
from midgrain.network.probe import MakeInputs, Probe
from midgrain.ops.checks import check_bool, check_int
from midgrain.progress import progress_bar

__all__ = ["FeatureAblation", "Hiding"]


class Hiding(Attribution):
    """Hides one part after the other."""

    def drops(
        self,
        x: Tensor,
        masks: MakeInputs,
        wanted: Tensor,
        baselines: Any,
        target: CaptumTarget,
        arguments: Arguments,
        at_once: int,
        progress: bool,
    ) -> Tensor:
        """How much the score falls, float64 [B, J].

        Args:
            x: the input.
            masks: from a sample and numbers of parts to bool [n, C, *S], true where hidden.
            wanted: bool [B, J], which parts of which samples.
            baselines: what stands where something is hidden.
            target: see `CaptumTarget`.
            arguments: see `Arguments`.
            at_once: copies in one pass.
            progress: show a bar.
        """
        hidden = make_baseline(one_baseline(baselines), x)
        model, at_once = self.model(x, arguments), check_int(at_once, "perturbations_per_eval", 1)

        def make(sample: int, numbers: Any) -> Tensor:
            return torch.where(masks(sample, numbers), hidden[sample], x[sample])

        with driver.preserved(model, x):
            probe = Probe(model, x, [self.targets(target)], output="logit", batch_size=at_once)
            shown = check_bool(progress, "show_progress")
            with progress_bar("hiding parts", int(wanted.sum()), shown=shown) as advance:
                scores = probe.scores(make, wanted, advance)[0]
        return (probe.unaltered[0][:, None] - scores).where(wanted.to(scores.device), 0.0)


class FeatureAblation(Hiding):
    """How much the score falls without each feature.

    Example:
        >>> import torch
        >>> from midgrain.compat.captum import FeatureAblation
        >>> model = torch.nn.Flatten()
        >>> FeatureAblation(model).attribute(torch.ones(1, 1, 2, 2), target=3).flatten()
        tensor([0., 0., 0., 1.])
    """

    def attribute(
        self,
        inputs: Inputs,
        baselines: Any = None,
        target: CaptumTarget = None,
        additional_forward_args: Arguments = None,
        feature_mask: Any = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> Any:
        """Attributions of the inputs' form and shape.

        Args:
            inputs: floats [B, ...].
            baselines: None (0), a number, or a tensor that broadcasts to the inputs.
            target: see `CaptumTarget`.
            additional_forward_args: see `Arguments`.
            feature_mask: integers that broadcast to the inputs: which feature each value belongs to; None makes every
                value one of its own.
            perturbations_per_eval: features at once.
            show_progress: show a bar.

        Raises:
            TypeError, ValueError: an argument of the wrong kind or out of range.
        """
        x, in_tuple = one_input(inputs)
        features = feature_numbers(feature_mask, x)
        count = int(features.max()) + 1
        wanted = torch.zeros(len(x), count, dtype=torch.bool, device=x.device)
        wanted.scatter_(1, features.flatten(1), True)

        def masks(sample: int, numbers: Any) -> Tensor:
            chosen = torch.tensor(list(numbers), device=x.device).reshape(-1, *[1] * (x.ndim - 1))
            return features[sample] == chosen

        drops = self.drops(
            x, masks, wanted, baselines, target, additional_forward_args, perturbations_per_eval, show_progress
        )
        found = drops.to(x.device).gather(1, features.flatten(1)).reshape(x.shape).to(x.dtype)
        return (found,) if in_tuple else found
