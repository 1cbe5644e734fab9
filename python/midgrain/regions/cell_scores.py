"""What a network says of altered inputs, and which places of its last spatial layer say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from midgrain.cams.base import CAM
from midgrain.driver import Target, resolve_target
from midgrain.network.altered import copies_at_once
from midgrain.network.capture import Capture, capture
from midgrain.network.modules import unwrapped
from midgrain.network.probe import READINGS, MakeInputs

__all__ = ["CellProbe"]

# Cells along an axis beyond which neighbours are taken together.
_MOST_CELLS = 16


class CellProbe:
    """Asks a network as `midgrain.network.probe.Probe` does, of one target, and keeps the cells' shares of the score.

    The shares are gradient times activation, summed over the channels, at the last spatial layer; what is explained is
    the reading itself, so that "log-odds" has shares for and against the class. Call it inside `driver.preserved`.

    Args:
        model: a `torch.nn.Module`, or a wrapper of one.
        x: floats [B, C, *S], checked.
        target: what to explain.
        sites: finds the layer.
        output: one of `READINGS`; a callable's scores are taken as they are.
        batch_size: copies at once; None chooses by the input's size.

    Raises:
        TypeError, ValueError: see `driver.resolve_target`, `CAM.sites` and `capture`.
    """

    def __init__(self, model: Any, x: Tensor, target: Target, sites: CAM, *, output: str, batch_size: int | None):
        self.network = unwrapped(model)
        self.x = x.detach()
        self.targets = [target]
        self.batch_size = batch_size or copies_at_once(x)
        self._read = READINGS[output]
        self._sites = sites.sites(self.network, x, target)
        found: list[Tensor | None] = []

        def pick(outputs: Any) -> Tensor:
            classes, scores = resolve_target(outputs, target, len(x))
            found.append(classes)
            return scores if classes is None else self._of(outputs, classes)

        seen = capture(self.network, x, pick, self._sites)
        self._classes = found[-1]
        #: As `Probe.results` has them: what the pass on the unaltered batch gave.
        self.results = [type(seen.result)(self._classes, seen.result.outputs)]
        #: float64 [1, B].
        self.unaltered = seen.scores.double()[None].to(x.device)
        shares = _shares(seen)
        #: Cells along each spatial axis.
        self.grid = tuple(shares.shape[1:])
        #: Per sample the shares of the unaltered input and of every copy so far, float64 [cells].
        self.shares = [[own.flatten()] for own in shares.double().cpu()]

    def scores(
        self, make: MakeInputs, wanted: Tensor, advance: Callable[[int], object] = lambda copies: None
    ) -> Tensor:
        """The scores of altered copies, float64 [1, B, J], 0 where not wanted; see `Probe.scores`."""
        scores = torch.zeros(1, *wanted.shape, dtype=torch.float64, device=self.x.device)
        if self._classes is None:
            self._of_batches(make, wanted, scores[0], advance)
            return scores
        for sample, chosen in enumerate(wanted):
            for numbers in _chunks(chosen.nonzero()[:, 0], self.batch_size):
                pick = partial(self._of, classes=self._classes[sample].expand(len(numbers)))
                seen = capture(self.network, make(sample, numbers.tolist()), pick, self._sites)
                scores[0, sample, numbers.to(scores.device)] = seen.scores.double().to(scores.device)
                self.shares[sample] += [own.flatten() for own in _shares(seen).double().cpu()]
                advance(len(numbers))
        return scores

    def _of_batches(self, make: MakeInputs, wanted: Tensor, scores: Tensor, advance: Callable[[int], object]) -> None:
        """A callable target gets the whole batch, every sample altered in the way of the same number."""
        for number in wanted.any(0).nonzero()[:, 0].tolist():
            copies = torch.cat([make(sample, [number]) for sample in range(len(self.x))])
            seen = capture(self.network, copies, self.targets[0], self._sites)
            asked = wanted[:, number]
            scores[asked.to(scores.device), number] = seen.scores.double().to(scores.device)[asked.to(scores.device)]
            for sample, own in enumerate(_shares(seen).double().cpu()):
                if asked[sample]:
                    self.shares[sample].append(own.flatten())
            advance(int(asked.sum()))

    def _of(self, outputs: Tensor, classes: Tensor) -> Tensor:
        resolve_target(outputs, classes, len(classes))  # Outputs that are no logits of so many classes are refused.
        return resolve_target(self._read(outputs), classes, len(classes))[1]


def _shares(seen: Capture) -> Tensor:
    """Gradient times activation, [B, *m]; more than `_MOST_CELLS` along an axis are added up to fewer."""
    maps = (seen.activations[0] * seen.gradients[0]).sum(1)
    size = tuple(min(n, _MOST_CELLS) for n in maps.shape[1:])
    if size == tuple(maps.shape[1:]):
        return maps
    pool: Sequence[Callable[..., Tensor]] = (F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
    pooled = pool[maps.ndim - 3](maps[:, None], size)[:, 0]
    return pooled * (maps[0].numel() / pooled[0].numel())


def _chunks(numbers: Tensor, size: int) -> tuple[Tensor, ...]:
    return numbers.split(size) if len(numbers) else ()
