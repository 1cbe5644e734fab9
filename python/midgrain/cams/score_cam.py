"""Score-CAM: what the network says of the input seen through each channel alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from midgrain.cams.base import CAM, LayerMaps, resize_maps
from midgrain.cams.layers import Layer, Reshape
from midgrain.driver import Target
from midgrain.maps import min_max
from midgrain.network.altered import altered_scores, check_batch_size, copies_at_once, probabilities
from midgrain.network.capture import Capture, capture
from midgrain.network.modules import unwrapped
from midgrain.ops.checks import check_bool, check_int
from midgrain.progress import progress_bar

__all__ = ["ScoreCAM"]


class ScoreCAM(CAM):
    """ReLU(sum_k a_k A_k), a_k = score of c for x * upsample(minmax(A_k)) (Wang et al. 2020); without gradients.

    One pass per channel: minutes for a layer of 2048 channels on a CPU, unless `n_channels` says less. Channels that
    are the same number everywhere rescale to 0 and share one pass, of x * 0; with softmax weights, channels of
    nothing but 0 need none.

    Of a callable target, the score is what it returns; it gets outputs for the original batch, every sample seen
    through the same channel, as often as there are channels. Nothing is known of classes then, so "softmax" weights
    are its scores as they are, also negative ones.

    Args:
        layer: see `CAM`.
        reshape: see `CAM`.
        weights: "softmax", the class's probability; "channel-softmax", the class's logits after a softmax over the
            channels, as in grad-cam and torchcam.
        n_channels: weigh only so many channels, those with the largest activations (of equal ones the first), and
            leave out the others: faster and less exact; None weighs all.
        relu: False keeps the signs of the map.
        batch_size: masked inputs at once; None chooses by the input's size.
        progress: show a bar.
    """

    def __init__(
        self,
        layer: Layer | Sequence[Layer] | None = None,
        reshape: Reshape | None = None,
        weights: Literal["softmax", "channel-softmax"] = "softmax",
        n_channels: int | None = None,
        relu: bool = True,
        batch_size: int | None = None,
        progress: bool = False,
    ):
        super().__init__(layer, reshape)
        if weights not in ("softmax", "channel-softmax"):
            raise ValueError(f"weights: expected 'softmax' or 'channel-softmax', got {weights!r}")
        self.weights = weights
        self.n_channels = None if n_channels is None else check_int(n_channels, "n_channels", 1)
        self.relu = check_bool(relu, "relu")
        self.batch_size = check_batch_size(batch_size)
        self.progress = check_bool(progress, "progress")

    def layer_maps(self, model: Any, x: Tensor, target: Target) -> LayerMaps:
        """One pass for the layers, and one per channel of each."""
        network = unwrapped(model)
        seen = capture(network, x, target, self.sites(network, x, target), backward=False)
        return LayerMaps(
            tuple(self._layer_map(network, x, target, seen, maps) for maps in seen.activations), seen.result
        )

    def _layer_map(self, network: nn.Module, x: Tensor, target: Target, seen: Capture, activations: Tensor) -> Tensor:
        flat = activations.flatten(2)
        chosen = self._chosen(flat)
        constant = flat.amin(2) == flat.amax(2)
        # One of the constant channels stands for all of them.
        constant_chosen = constant & chosen
        if self.weights == "softmax":
            constant_chosen &= flat.any(2)
        first = constant_chosen & (constant_chosen.cumsum(1) == 1)
        wanted = (chosen & ~constant) | first
        with progress_bar("masking with channels", int(wanted.sum()), shown=self.progress) as advance:
            scores = altered_scores(
                _Masked(network, x, activations),
                wanted,
                [target],
                [seen.result.target],
                batch_size=self.batch_size or copies_at_once(x),
                read=probabilities if self.weights == "softmax" else lambda outputs: outputs,
                advance=advance,
            )[0]
        blank = scores.where(first, 0.0).sum(1, keepdim=True)
        scores = scores.where(wanted, 0.0) + blank.where(constant_chosen & ~first, 0.0)
        if self.weights == "channel-softmax":
            scores = scores.masked_fill(~chosen, -torch.inf).softmax(1)
        weights = scores.float().reshape(*activations.shape[:2], *[1] * (activations.ndim - 2))
        maps = self.combined(weights, activations)
        return maps.clamp(min=0) if self.relu else maps

    def _chosen(self, flat: Tensor) -> Tensor:
        """Which channels of [B, K, P] are weighed, bool [B, K]."""
        channels = flat.shape[1]
        if self.n_channels is None or self.n_channels >= channels:
            return torch.ones(flat.shape[:2], dtype=torch.bool, device=flat.device)
        order = flat.amax(2).sort(stable=True, dim=1, descending=True).indices
        chosen = torch.zeros(flat.shape[:2], dtype=torch.bool, device=flat.device)
        return chosen.scatter_(1, order[:, : self.n_channels], True)


class _Masked:
    """Passes through a network with the input multiplied by one channel's map."""

    def __init__(self, network: nn.Module, x: Tensor, activations: Tensor):
        self.network, self.x, self.activations = network, x.detach(), activations

    def of_sample(self, sample: int, numbers: Sequence[int]) -> Any:
        """Copies of one sample."""
        return self._run(self.x[sample : sample + 1], self.activations[sample, list(numbers)])

    def of_batch(self, number: int) -> Any:
        """The batch as it is."""
        return self._run(self.x, self.activations[:, number])

    def _run(self, x: Tensor, maps: Tensor) -> Any:
        masks = resize_maps(min_max(maps), x.shape[2:])
        with torch.no_grad():
            return self.network(x * masks[:, None].to(x.dtype))
