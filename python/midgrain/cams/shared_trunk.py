"""Jitter-CAM with the network's trunk run once for all patches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from midgrain.cams.layers import Layer, named_site
from midgrain.cams.patch_maps import Inner, PatchGrid, formula_maps
from midgrain.network.capture import Site, run_until
from midgrain.network.layout import ChannelsFirst, layout_of
from midgrain.network.resume import CannotResume, Resume
from midgrain.network.trace import Call, Trace

__all__ = ["CannotShare", "SharedTrunk"]


class CannotShare(ValueError):  # noqa: N818 - says what cannot be done, also where that is no error
    """The network has no trunk that patches could share."""


class SharedTrunk:
    """The network in two parts: a trunk, run once on the enlarged input, and the rest, run for every patch.

    The trunk ends at the last layer before the last down-sampling through which everything later goes. Each patch is
    a window of the trunk's map, and the rest of the network pads it with zeros as it pads a patch. What differs from
    patches that are run alone is the padding of the trunk: a window sees its surroundings there.

    Args:
        network: an unwrapped network.
        trace: its calls for inputs of this shape.
        x: the input [B, C, *S].
        site: the layer of the inner map.
        patches: where the patches lie.
        split: the module that ends the trunk, or its name; None finds it.

    Raises:
        CannotShare: there is no such layer.
        TypeError, ValueError: `split` is no layer, not spatial or not run.
    """

    def __init__(
        self, network: nn.Module, trace: Trace, x: Tensor, site: Site, patches: PatchGrid, split: Layer | None = None
    ):
        self.network = network
        cut = trace.of(site.module)[site.call]
        if split is not None:
            try:
                candidates = [named_site(network, x, trace, split, None)]
            except (TypeError, ValueError) as error:
                raise type(error)(f"split: {error}") from error
        else:
            candidates = list(_finer_sites(trace, cut, x, patches.cells))
        reason = "it has no spatial maps there"
        for candidate in candidates:
            try:
                self.rest = Resume(network, trace, candidate, x[:1], poison=True)
                self.inner_site = self.rest.seen_from_here(site)
                self.site = candidate
                last = trace.of(candidate.module)[candidate.call]
                self.cells = last.shapes[candidate.item][2:]
                self.features(x[:1], patches)
                self.pools_inside = any(
                    len(shape) == x.ndim and math.prod(shape[2:]) == 1
                    for call in trace.calls
                    if call.end < last.end
                    for shape in call.shapes
                )
            except (CannotResume, CannotShare) as error:
                reason = f"{candidate.name}: {error}"
                continue
            return
        raise CannotShare(
            "shared_trunk: the network has no layer before its last down-sampling that everything later depends on "
            f"alone and that patches could be cut from ({reason}); use shared_trunk=False"
        )

    def suits(self, inner: Inner) -> bool:
        """Are maps from the shared trunk as good as exact ones, as far as is known?

        That was measured for plain convolutional networks that end in global average pooling and a linear layer. A
        trunk with pooling of its whole map inside (squeeze and excitation, global attention) mixes the patches.
        """
        return inner.needs_activations_only and not self.pools_inside

    def features(self, x: Tensor, patches: PatchGrid) -> Tensor:
        """The trunk's map of the enlarged input, [B, C, *Q].

        Raises:
            CannotShare: the network does not take an input of that size, or its map is too small for all windows.
        """
        mode = "bilinear" if x.ndim == 4 else "trilinear"
        enlarged = F.interpolate(x, patches.size, mode=mode, align_corners=False)
        try:
            features = run_until(self.network, enlarged, self.site)
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            raise CannotShare(f"the network does not take the enlarged input {list(patches.size)} ({error})") from error
        windows = self.windows(patches)
        if any(q < w for q, w in zip(features.shape[2:], windows.size, strict=True)):
            raise CannotShare(
                f"its map of the enlarged input has {list(features.shape[2:])} cells, and the windows need "
                f"{list(windows.size)}"
            )
        return features

    def windows(self, patches: PatchGrid) -> PatchGrid:
        """The patches in cells of the trunk's map."""
        return PatchGrid(patches.cells, patches.grid, self.cells)

    def maps(self, inner: Inner, features: Tensor, rows: slice, patches: PatchGrid, numbers: Sequence[int]) -> Tensor:
        """The maps of the patches of these numbers from the trunk's map of samples `rows`, [B, n, *m]."""
        windows = self.windows(patches)
        cut = torch.stack([features[windows.window(number)] for number in numbers], 1)
        return formula_maps(inner, self.rest, cut.flatten(0, 1), rows, len(numbers), self.inner_site)

    def whole_maps(self, inner: Inner, features: Tensor, rows: slice, patches: PatchGrid) -> Tensor:
        """Grad-CAM of the whole enlarged input with its signs, [B, *(m + d)], weighted as every patch is.

        Raises:
            CannotShare: the rest of the network does not take the whole map.
        """
        assert inner.seen is not None
        size = [m + g - 1 for m, g in zip(patches.cells, patches.grid, strict=True)]
        try:
            activations = self.inner_site.layout.maps(run_until(self.rest, features, self.inner_site)).float()
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            raise CannotShare(f"window_step: the network does not take the whole enlarged map ({error})") from error
        if any(n < s for n, s in zip(activations.shape[2:], size, strict=True)):
            raise CannotShare(
                f"window_step: the enlarged input has {list(activations.shape[2:])} cells, and {size} are needed"
            )
        for axis, cells in enumerate(size):
            activations = activations.narrow(axis + 2, 0, cells)
        weights = inner.seen.gradients[0][rows].flatten(2).mean(2)
        return (weights.reshape(*weights.shape, *[1] * len(size)) * activations).sum(1)


def _finer_sites(trace: Trace, cut: Call, x: Tensor, cells: Sequence[int]) -> Iterator[Site]:
    """Outputs before `cut` with at least 3/2 times its `cells`, as convolutions give them, last first."""
    met = set()
    for call in reversed(trace.calls):
        if call.end >= cut.end:
            continue
        for item, maker in enumerate(call.makers):
            shape = call.shapes[item]
            if maker in met:
                continue
            met.add(maker)
            layout = layout_of(shape, x.shape[2:], 1)
            if isinstance(layout, ChannelsFirst) and 2 * shape[-1] >= 3 * cells[-1]:
                yield Site(call.name, call.module, call.index, item, layout)
