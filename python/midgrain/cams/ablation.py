"""Ablation-CAM: what each channel of a layer is worth to the score, found by setting it to 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from midgrain.cams.base import CAM, LayerMaps
from midgrain.cams.layers import Layer, Reshape
from midgrain.driver import Target
from midgrain.network.altered import UNALTERED, altered_scores, check_batch_size
from midgrain.network.capture import Capture, Site, capture, run_from, run_until
from midgrain.network.channels import channel_places
from midgrain.network.modules import unwrapped
from midgrain.network.resume import CannotResume, Resume
from midgrain.network.trace import Trace
from midgrain.ops.checks import check_bool
from midgrain.progress import progress_bar

__all__ = ["AblationCAM"]

# Values of the layer in one pass: enough copies to read a linear layer's weights seldom, few enough that what a
# convolution makes of them stays in the caches.
_VALUES_AT_ONCE = {"cpu": 2**23, "cuda": 2**26}
# A callable target is given all samples for one channel after the other.
_KEPT_SAMPLES = 8
# Blocked matrix products round the rows at their end otherwise than those before.
_ROUNDINGS = 32


class AblationCAM(CAM):
    """ReLU(sum_k a_k A_k), a_k = (y_c - y_c with A_k set to 0) / y_c (Desai and Ramaswamy 2020).

    Dividing by a negative score turns the map over, into what speaks against the class; `divide_by="magnitude"` does
    not. For a positive score both are the same. A score of exactly 0 divides nothing.

    Of a channel of a transformer's tokens, the patches are set to 0 and the class token stays.

    Where the score is an affine function of the layer (global average pooling and a linear layer, as after the last
    convolution of a ResNet), the difference is sum(g_k A_k) exactly, from one forward and one short backward pass.
    Elsewhere the network runs from the layer on with several ablated copies at once, or, where it cannot be entered
    there, as a whole. Channels that are 0 everywhere need no pass.

    A callable target gets outputs for the original batch, with the same channel ablated in every sample, as often as
    there are channels; a class that it picks itself may then be another one than that of the whole picture.

    Args:
        layer: see `CAM`.
        reshape: see `CAM`; it may only move values.
        relu: False keeps the signs of the map.
        divide_by: the "score" itself as published, or its "magnitude".
        batch_size: ablated copies at once; None chooses by the layer's size.
        progress: show a bar where there is something to wait for.
    """

    def __init__(
        self,
        layer: Layer | Sequence[Layer] | None = None,
        reshape: Reshape | None = None,
        relu: bool = True,
        divide_by: Literal["score", "magnitude"] = "score",
        batch_size: int | None = None,
        progress: bool = False,
    ):
        super().__init__(layer, reshape)
        if divide_by not in ("score", "magnitude"):
            raise ValueError(f"divide_by: expected 'score' or 'magnitude', got {divide_by!r}")
        self.relu = check_bool(relu, "relu")
        self.divide_by = divide_by
        self.batch_size = check_batch_size(batch_size)
        self.progress = check_bool(progress, "progress")

    def layer_maps(self, model: Any, x: Tensor, target: Target) -> LayerMaps:
        """Per layer one forward and one backward pass, and passes with ablated channels where they are needed.

        Raises:
            ValueError: the score does not depend on a layer; `reshape` computes with values.
        """
        network = unwrapped(model)
        trace = self.trace(network, x, target)
        made = [self._layer_map(network, trace, site, x, target) for site in self.sites(network, x, target)]
        return LayerMaps(tuple(maps for maps, _ in made), made[0][1].result)

    def _layer_map(
        self, network: nn.Module, trace: Trace, site: Site, x: Tensor, target: Target
    ) -> tuple[Tensor, Capture]:
        undifferentiable = None
        try:
            seen = capture(network, x, target, [site])
        except ValueError as error:
            undifferentiable = error
        if undifferentiable is not None:  # Ablation itself needs no gradients.
            seen = capture(network, x, target, [site], backward=False)
        activations = seen.activations[0]
        if seen.affine:
            drops = (seen.gradients[0] * activations).flatten(2).sum(2, dtype=torch.float64)
        else:
            drops = self._ablate(network, trace, site, x, target, seen)
            if (
                undifferentiable is not None
                and activations.any()
                and bool((drops.abs() <= _rounding(seen.scores)).all())
            ):
                raise undifferentiable
        weights = drops / self._divisors(seen.scores.double()).to(drops.device)[:, None]
        weights = weights.float().reshape(*activations.shape[:2], *[1] * (activations.ndim - 2))
        maps = self.combined(weights, activations)
        return maps.clamp(min=0) if self.relu else maps, seen

    def _ablate(self, network: nn.Module, trace: Trace, site: Site, x: Tensor, target: Target, seen: Capture) -> Tensor:
        """y_c - y_c with A_k set to 0, float64 [B, K]."""
        live, classes = seen.activations[0].flatten(2).any(2), seen.result.target
        values = run_until(network, x, site)
        at_once = _VALUES_AT_ONCE["cuda" if values.is_cuda else "cpu"] // values[0].numel()
        with progress_bar("ablating channels", int(live.sum()), shown=self.progress) as advance:
            scores = altered_scores(
                _Ablated(network, trace, site, x, values, 1 if classes is not None else _KEPT_SAMPLES),
                live,
                [target],
                [classes],
                batch_size=self.batch_size or min(max(1, at_once), 128),
                relative=True,
                advance=advance,
            )
        return -scores[0]

    def _divisors(self, scores: Tensor) -> Tensor:
        divisors = scores.abs() if self.divide_by == "magnitude" else scores
        return divisors.where(divisors != 0, 1.0)


def _rounding(scores: Tensor) -> Tensor:
    """What equal inputs may differ by in different rows of a pass, [] float64."""
    return _ROUNDINGS * torch.finfo(scores.dtype).eps * scores.detach().double().abs().max()


class _Ablated:
    """Passes through a network with one channel of a layer set to 0.

    Args:
        network: the network.
        trace: its calls.
        site: the layer.
        x: the input [B, C, *S].
        values: what the layer returned for it.
        kept: for how many samples to keep what comes before the layer, which is large.
    """

    def __init__(self, network: nn.Module, trace: Trace, site: Site, x: Tensor, values: Tensor, kept: int):
        self.network, self.trace, self.site, self.x, self.values = network, trace, site, x, values
        self.places = channel_places(site, values, "'ablationcam' sets")
        self.kept = kept
        self._resumes: dict[int, Resume | None] = {}

    def of_sample(self, sample: int, numbers: Sequence[int]) -> Any:
        """Copies of one sample, from the layer on where that is possible."""
        copies = self._ablated(self.values[sample : sample + 1].expand(len(numbers), *self.values.shape[1:]), numbers)
        resume = self._resume(sample)
        with torch.no_grad():
            if resume is not None:
                return resume(copies)
            x = self.x[sample : sample + 1]
            return run_from(self.network, x.expand(len(numbers), *x.shape[1:]), self.site, copies)

    def of_batch(self, number: int) -> Any:
        """The batch as it is, as a whole."""
        if len(self.x) == 1:
            return self.of_sample(0, [number])
        return run_from(self.network, self.x, self.site, self._ablated(self.values, [number] * len(self.x)))

    def _resume(self, sample: int) -> Resume | None:
        if sample not in self._resumes:
            if len(self._resumes) == self.kept:
                self._resumes.popitem()
            try:
                resume = Resume(self.network, self.trace, self.site, self.x[sample : sample + 1])
            except CannotResume:
                resume = None
            self._resumes[sample] = resume
        return self._resumes[sample]

    def _ablated(self, values: Tensor, numbers: Sequence[int]) -> Tensor:
        flat = values.clone(memory_format=torch.contiguous_format).flatten(1)
        for row, number in zip(flat, numbers, strict=True):
            if number != UNALTERED:
                row[self.places[number]] = 0.0
        return flat.reshape(values.shape)
