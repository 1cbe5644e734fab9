"""captum's noise tunnel: attributions averaged over noisy inputs."""

from __future__ import annotations

from typing import Any

import torch

from midgrain.compat.captum.attribution import Attribution
from midgrain.compat.captum.inputs import Inputs, one_input, refused
from midgrain.ops.checks import check_int

__all__ = ["NoiseTunnel"]

_TYPES = ("smoothgrad", "smoothgrad_sq", "vargrad")


class NoiseTunnel(Attribution):
    """SmoothGrad, its square or VarGrad of another method.

    The noise comes from torch's global random numbers in captum's order: `torch.manual_seed` gives the same results as
    there. `mg.explainer("smoothgrad", model)` has noise that belongs to the sample instead.

    Args:
        attribution_method: one of `midgrain.compat.captum`.

    Example:
        >>> import torch
        >>> from midgrain.compat.captum import NoiseTunnel, Saliency
        >>> model = torch.nn.Linear(3, 2)
        >>> tunnel = NoiseTunnel(Saliency(model))
        >>> tunnel.attribute(torch.rand(4, 3), nt_samples=8, stdevs=0.1, target=1, abs=False).shape
        torch.Size([4, 3])
    """

    def __init__(self, attribution_method: Any):
        if not isinstance(attribution_method, Attribution):
            raise TypeError(
                f"attribution_method: expected one of midgrain.compat.captum, got {type(attribution_method).__name__}"
            )
        super().__init__(attribution_method.forward_func)
        self.attribution_method: Any = attribution_method

    def attribute(
        self,
        inputs: Inputs,
        nt_type: str = "smoothgrad",
        nt_samples: int = 5,
        nt_samples_batch_size: int | None = None,
        stdevs: float | tuple[float, ...] = 1.0,
        draw_baseline_from_distrib: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Attributions of the inputs' form and shape.

        Args:
            inputs: floats [B, ...].
            nt_type: "smoothgrad" (mean), "smoothgrad_sq" (mean of the squares) or "vargrad" (variance).
            nt_samples: noisy copies of every sample.
            nt_samples_batch_size: copies whose noise is drawn at once.
            stdevs: standard deviation of the noise.
            draw_baseline_from_distrib: False.
            **kwargs: of the method.

        Returns:
            Attributions; with `return_convergence_delta=True` also the deltas of all copies, [B * nt_samples].
        """
        refused("draw_baseline_from_distrib", draw_baseline_from_distrib, "pass one baseline per sample")
        if nt_type not in _TYPES:
            raise ValueError(f"nt_type: expected one of {', '.join(_TYPES)}, got {nt_type!r}")
        x, in_tuple = one_input(inputs)
        (stdev,) = stdevs if isinstance(stdevs, tuple) else (stdevs,)
        left = check_int(nt_samples, "nt_samples", 1)
        width = left if nt_samples_batch_size is None else check_int(nt_samples_batch_size, "nt_samples_batch_size", 1)
        total, squares, deltas = torch.zeros_like(x), torch.zeros_like(x), []
        while left > 0:
            copies = min(width, left)
            spread = torch.tensor(stdev, device=x.device, dtype=x.dtype).repeat(len(x) * copies, *x.shape[1:])
            noise = torch.normal(0, spread).unflatten(0, (len(x), copies))
            parts = [self.attribution_method.attribute(x + noise[:, number], **kwargs) for number in range(copies)]
            if kwargs.get("return_convergence_delta"):
                deltas.append(torch.stack([delta for _, delta in parts], 1).flatten())
                parts = [found for found, _ in parts]
            total += torch.stack(parts).sum(0)
            squares += torch.stack(parts).square().sum(0)
            left -= copies
        mean, square = total / nt_samples, squares / nt_samples
        found = {"smoothgrad": mean, "smoothgrad_sq": square, "vargrad": square - mean * mean}[nt_type]
        attributions: Any = (found,) if in_tuple else found
        return (attributions, torch.cat(deltas)) if deltas else attributions
