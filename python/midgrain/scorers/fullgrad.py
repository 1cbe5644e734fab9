"""FullGrad: what the input and every bias of the network contribute to the score."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from midgrain import driver
from midgrain.driver import Target
from midgrain.maps import min_max, resize_maps
from midgrain.network.biases import Biases, BiasTerm
from midgrain.network.layout import ChannelsFirst, layout_of
from midgrain.network.modules import unwrapped
from midgrain.ops.checks import check_bool
from midgrain.scorers.base import Score

__all__ = ["FullGrad"]


class FullGrad:
    """psi(x dy_c/dx) + sum over layers and channels of psi(b dy_c/db) (Srinivas and Fleuret 2019, eq. 8).

    psi takes the magnitude, rescales it to 0 .. 1 and resizes it to the input, bilinear (trilinear for clips). x
    dy_c/dx is added up over the colours first. b are the biases of convolutions, linear layers and batch norms (beta -
    gamma * mean / sqrt(var + eps)), wherever and however often the network uses them, constants that it adds, and
    implicit biases of functions that are not linear: with z = f(a), b = z - f'(a) a, 0 for a ReLU, 6 where a ReLU6 is
    saturated. Then y_c = sum of x dy_c/dx + sum of all b dy_c/db, which `details` tells.

    Biases whose positions are unknown (of linear layers after the last pooling) count for that sum, and for all pixels
    alike.

    Details: "completeness_gap" float64 [B], y_c minus that sum, 0 but for rounding unless there are operations that
    cannot be seen (TorchScript, custom autograd functions, reentrant checkpoints) or `implicit=False`; "input_share"
    and "bias_share" float64 [B], the two parts of y_c.

    Args:
        rescale: "channel", every channel of a bias on its own, as the formula has it; "layer", all channels of a layer
            together (and all colours of the input), as its authors' code has it, which keeps what channels weigh.
        implicit: False leaves the implicit biases out.

    Raises:
        TypeError, ValueError: an argument of the wrong kind.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU6(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> e = mg.explainer("fullgrad", model)(torch.rand(2, 3, 16, 16))
        >>> bool(e.details["completeness_gap"].abs().max() < 1e-5)
        True
    """

    def __init__(self, rescale: Literal["channel", "layer"] = "channel", implicit: bool = True):
        if rescale not in ("channel", "layer"):
            raise ValueError(f"rescale: expected 'channel' or 'layer', got {rescale!r}")
        self.rescale = rescale
        self.implicit = check_bool(implicit, "implicit")

    def score(self, model: Any, x: Tensor, target: Target) -> Score:
        """One forward and one backward pass; one for each sample where the network folds other axes into the batch.

        Raises:
            TypeError: a TorchScript program, whose operations cannot be seen.
            ValueError: see `driver.input_gradient`.
        """
        network = unwrapped(model) if isinstance(model, nn.Module) else model
        made = self._explained(network, x, target)
        if made.doubtful and len(x) > 1 and made.result.target is not None:
            # Which part of an inner tensor belongs to which sample is certain where there is one sample.
            try:
                alone = [self._explained(network, x[i : i + 1], made.result.target[i : i + 1]) for i in range(len(x))]
            except (RuntimeError, AssertionError):  # Some networks take one batch size only.
                alone = [made]
        else:
            alone = [made]
        details = {
            name: torch.cat([getattr(each, name) for each in alone])
            for name in ("completeness_gap", "input_share", "bias_share")
        }
        return Score(torch.cat([each.map for each in alone]), made.result, details=details)

    def _explained(self, network: Any, x: Tensor, target: Target) -> _Explained:
        biases = Biases(self.implicit)
        terms = _Terms(x, self.rescale == "channel")
        picked: list[Tensor] = []

        def watched(inputs: Tensor) -> Any:
            with biases:
                return network(inputs)

        def watched_target(outputs: Any) -> Tensor:
            assert callable(target)
            with biases:
                scores = target(outputs)
            picked.append(scores)
            return scores

        def around(total: Tensor) -> AbstractContextManager[Any]:
            return biases.attributed(terms.add_bias)

        result = driver.input_gradient(watched, x, watched_target if callable(target) else target, around)
        assert result.gradient is not None
        terms.add_input(result.gradient)
        if picked:
            scores = picked[-1].detach()
        else:
            assert result.outputs is not None
            assert result.target is not None
            scores = result.outputs.gather(1, result.target[:, None])[:, 0]
        gap = scores.double().to(x.device) - terms.input_share - terms.bias_share
        parts = scores.double().to(x.device).abs() + terms.input_share.abs() + terms.bias_share.abs()
        doubtful = terms.folded or bool((gap.abs() > _LARGE_GAP * parts).any())
        return _Explained(terms.map, gap, terms.input_share, terms.bias_share, result, doubtful)


# Part of a score that neither rounding nor half precision leaves over.
_LARGE_GAP = 0.02


@dataclass(frozen=True, eq=False)
class _Explained:
    map: Tensor
    completeness_gap: Tensor
    input_share: Tensor
    bias_share: Tensor
    result: driver.Pass
    #: May biases have been counted for another sample than theirs?
    doubtful: bool


# Operations whose outputs have their channels last, and those that have the batch as second axis.
_CHANNELS_LAST = frozenset({"linear", "layer_norm"})
_SEQUENCE_FIRST = frozenset({"multi_head_attention_forward"})


class _Terms:
    """Adds up attributions and their maps, one layer at a time."""

    def __init__(self, x: Tensor, by_channel: bool):
        self.x = x.detach()
        self.by_channel = by_channel
        #: Was there an inner tensor whose first axis is not the samples?
        self.folded = False
        self.map = torch.zeros(x.shape[0], *x.shape[2:], dtype=torch.float32, device=x.device)
        self.input_share = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
        self.bias_share = torch.zeros_like(self.input_share)

    def add_input(self, gradient: Tensor) -> None:
        """The input's own term, from the gradient there."""
        wide = torch.promote_types(gradient.dtype, torch.float32)
        attribution = self.x.to(wide) * gradient.to(wide)
        self.input_share += attribution.flatten(1).sum(1, dtype=torch.float64)
        self._add_maps(attribution.sum(1, keepdim=True) if self.by_channel else attribution)

    def add_bias(self, term: BiasTerm, attribution: Tensor) -> None:
        """A bias's term, of the shape of what the operation returned."""
        batch, shape = self.x.shape[0], attribution.shape
        sequence_first = term.operation in _SEQUENCE_FIRST and attribution.ndim == 3
        self.folded |= not sequence_first and list(shape[:1]) != [batch]
        if sequence_first or (len(shape) == 3 and shape[0] != batch and shape[1] == batch):
            attribution = attribution.transpose(0, 1)
        elif not shape or shape[0] % batch:
            if batch > 1:
                return  # Whose it is nobody knows: it stays in the gap.
            attribution = attribution[None]
        elif shape[0] != batch:  # Frames or windows, folded into the batch.
            attribution = attribution.unflatten(0, (batch, -1))
            if attribution.ndim == self.x.ndim == 5:  # [B, T, K, h, w]
                attribution = attribution.transpose(1, 2)
        attribution = attribution.to(self.x.device)
        self.bias_share += attribution.reshape(batch, -1).sum(1, dtype=torch.float64)
        maps = self._maps(term, attribution)
        if maps is not None:
            self._add_maps(maps)
        elif not self.by_channel:
            rescaled = min_max(attribution.abs().reshape(batch, -1).float()).sum(1)
            self.map += rescaled.reshape(-1, *[1] * (self.map.ndim - 1))

    def _maps(self, term: BiasTerm, attribution: Tensor) -> Tensor | None:
        """[B, K, *m]; None where the positions are unknown."""
        size, last = self.x.shape[2:], term.operation in _CHANNELS_LAST
        layout = layout_of(attribution.shape, size, self.x.shape[0], term.grids, last=last)
        if last and isinstance(layout, ChannelsFirst):
            return None
        return None if layout is None else layout.maps(attribution)

    def _add_maps(self, maps: Tensor) -> None:
        """[B, K, *m]: the sum of psi over the channels."""
        batch, channels = maps.shape[:2]
        magnitudes = maps.abs().float()
        if self.by_channel:
            rescaled = min_max(magnitudes.flatten(0, 1)).unflatten(0, (batch, channels))
        else:
            rescaled = min_max(magnitudes)
        # Resizing is linear, so that channels may be added up before.
        self.map += resize_maps(rescaled.sum(1), self.x.shape[2:])
