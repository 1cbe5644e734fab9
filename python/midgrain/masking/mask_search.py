"""The search for masks of given areas that keep a score high, by gradient descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from midgrain import driver
from midgrain.masking.perturbations import Perturbation
from midgrain.masking.smooth_masks import SmoothMasks
from midgrain.network.altered import probabilities
from midgrain.network.probe import Probe
from midgrain.stability import Stability

__all__ = ["VARIANTS", "Game", "MaskSearch", "area_reference"]

#: Kind of game -> how much the input behind the mask and the one behind its complement count.
VARIANTS = {"preserve": (1.0, 0.0), "delete": (0.0, -1.0), "hybrid": (1.0, -1.0)}
_MOMENTUM = 0.9
_WEIGHT_GROWTH = 1.0035
# Parameters of a mask at which the learning rate is as given: a picture of 224 x 224 with a step of 7.
_USUAL_PARAMETERS = 32 * 32
# With `stop_at`, maps are compared every so many steps.
_CHECK_EVERY = 50


@dataclass(frozen=True)
class Game:
    """What is searched for and how; see `midgrain.masking.extremal.ExtremalPerturbation`.

    Raises:
        ValueError: an unknown variant.
    """

    areas: tuple[float, ...]
    variant: str
    n_iterations: int
    area_weight: float
    learning_rate: float
    jitter: bool
    output: str
    stop_at: float | None

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"variant: expected one of {', '.join(VARIANTS)}, got {self.variant!r}")


class MaskSearch:
    """Masks of all areas for each sample of a batch and one of a probe's targets; every mask on its own.

    Args:
        game: what is searched for.
        probe: of the network and the batch.
        place: which of its targets.
        smooth: makes masks from parameters.
        advance: told of every step of every sample.
    """

    def __init__(
        self, game: Game, probe: Probe, place: int, smooth: SmoothMasks, advance: Callable[[int], object]
    ) -> None:
        self.game, self.probe, self.place, self.smooth, self.advance = game, probe, place, smooth, advance
        self.x, self.classes = probe.x, probe.results[place].target
        batch, areas = len(self.x), len(game.areas)
        self._shown, self._hidden = VARIANTS[game.variant]
        self._sides = 2 if self._shown and self._hidden else 1
        self._read: Callable[[Any], Any] = probabilities if game.output == "probability" else lambda outputs: outputs
        self._parameters = torch.ones(batch, areas, *smooth.lattice, dtype=torch.float32, device=self.x.device)
        self._velocity = torch.zeros_like(self._parameters)
        #: Float32 [B, areas, *S].
        self.masks = torch.zeros(batch, areas, *smooth.size, dtype=torch.float32, device=self.x.device)
        #: Of the input behind each mask, [B, areas].
        self.scores = torch.zeros(batch, areas, dtype=torch.float32, device=self.x.device)
        #: Steps taken, int64 [B].
        self.iterations = torch.zeros(batch, dtype=torch.int64)

    def groups(self) -> list[list[int]]:
        """Samples that are searched for together: as many as fill a pass, all for a callable target."""
        batch = len(self.x)
        together = batch if self.classes is None else max(1, self.probe.batch_size // self._copies())
        return [list(range(start, min(start + together, batch))) for start in range(0, batch, together)]

    def passes(self) -> Tensor:
        """Forward passes of each sample, int64 [B]: those of the search, one unaltered and one behind each mask."""
        return self.iterations * self._copies() + 1 + len(self.game.areas)

    def run(self, samples: Sequence[int], perturbation: Perturbation) -> None:
        """The search for some samples of the batch, which are numbered anew from 0 on in `perturbation`."""
        stabilities = [Stability(self.game.stop_at) for _ in samples]
        going_on = [True] * len(samples)
        for iteration in range(self.game.n_iterations):
            active = [place for place, on in enumerate(going_on) if on]
            if not active:
                break
            # A callable target gets the whole batch for as long as one of its samples goes on.
            gradients = self._gradients(samples, active, perturbation, iteration)
            self._descend([samples[place] for place in active], gradients[active], iteration)
            self.advance(len(active))
            if self.game.stop_at is not None and (iteration + 1) % _CHECK_EVERY == 0:
                for place in active:
                    heat = self._masks_of(self._parameters[samples[place]]).sum(0)
                    going_on[place] = not stabilities[place].settled(heat.cpu().numpy())
        for sample in samples:
            self.masks[sample] = self._masks_of(self._parameters[sample])
        self._score(samples, perturbation)

    def _copies(self) -> int:
        """Perturbed copies of a sample in one step."""
        return len(self.game.areas) * self._sides

    def _parts(self, places: Sequence[int]) -> list[list[tuple[int, int]]]:
        """The masks, (place in the group, area), that go through the network together.

        Of a callable target it is the whole batch, whichever samples are asked for.
        """
        areas = range(len(self.game.areas))
        if self.classes is None:
            return [[(place, area) for place in range(len(self.x))] for area in areas]
        pairs = [(place, area) for place in places for area in areas]
        count = -(-len(pairs) * self._sides // self.probe.batch_size)
        bounds = [len(pairs) * part // count for part in range(count + 1)]
        return [pairs[low:high] for low, high in pairwise(bounds) if low < high]

    def _gradients(
        self, samples: Sequence[int], active: Sequence[int], perturbation: Perturbation, iteration: int
    ) -> Tensor:
        """Of what is to be minimised, with respect to the parameters of these samples, [samples, areas, *lattice]."""
        gradients = torch.zeros_like(self._parameters[list(samples)])
        for part in self._parts(active):
            places, numbers = (list(column) for column in zip(*part, strict=True))
            chosen = self._parameters[[samples[place] for place in places], numbers].requires_grad_(True)
            masks = self._masks_of(chosen)
            reward = torch.zeros([], dtype=torch.float32, device=masks.device)
            for factor, shown in ((self._shown, masks), (self._hidden, 1.0 - masks)):
                if factor:
                    inputs = _perturbed(perturbation, places, shown)
                    flipped = inputs.flip(-1) if self.game.jitter and iteration % 2 == 0 else inputs
                    reward = reward + factor * self._scores_of(flipped, [samples[place] for place in places]).sum()
            if iteration == 0:
                _check_differentiable(reward, chosen)
            weight = self.game.area_weight * _WEIGHT_GROWTH**iteration
            loss = weight * self._area_loss(masks, numbers) - reward
            (gradients[places, numbers],) = torch.autograd.grad(loss, chosen)
        return gradients

    def _area_loss(self, masks: Tensor, numbers: Sequence[int]) -> Tensor:
        """The mean square distance from masks of the wanted areas, summed over the masks."""
        flat = masks.flatten(1)
        wanted = torch.tensor([self.game.areas[area] for area in numbers], dtype=torch.float64)
        return (flat - area_reference(flat.detach(), wanted)).square().mean(1).sum()

    def _scores_of(self, inputs: Tensor, samples: Sequence[int]) -> Tensor:
        """Phi of perturbed inputs; for a callable target they are the batch in its order."""
        outputs = self.probe.model(inputs)
        if self.classes is None:
            return driver.resolve_target(outputs, self.probe.targets[self.place], len(inputs))[1].float()
        return driver.resolve_target(self._read(outputs), self.classes[list(samples)], len(inputs))[1].float()

    def _descend(self, samples: Sequence[int], gradients: Tensor, iteration: int) -> None:
        """One step with momentum (damped, as in TorchRay), back into 0 .. 1."""
        chosen = list(samples)
        gradients = gradients / self.smooth.weights
        old = self._velocity[chosen]
        velocity = gradients if iteration == 0 else (_MOMENTUM * old).add(gradients, alpha=1.0 - _MOMENTUM)
        rate = self.game.learning_rate * math.prod(self.smooth.lattice) / _USUAL_PARAMETERS
        self._velocity[chosen] = velocity
        self._parameters[chosen] = self._parameters[chosen].add(velocity, alpha=-rate).clamp(0.0, 1.0)
        self.iterations[chosen] += 1

    def _masks_of(self, parameters: Tensor) -> Tensor:
        with torch.autocast(parameters.device.type, enabled=False):
            return self.smooth(parameters)

    def _score(self, samples: Sequence[int], perturbation: Perturbation) -> None:
        """Of the inputs behind the masks that were found; of the complement's where the mask says what to hide."""
        for part in self._parts(range(len(samples))):
            places, numbers = (list(column) for column in zip(*part, strict=True))
            rows = [samples[place] for place in places]
            masks = self.masks[rows, numbers]
            with torch.no_grad():
                inputs = _perturbed(perturbation, places, masks if self._shown else 1.0 - masks)
                self.scores[rows, numbers] = self._scores_of(inputs, rows).to(self.scores.device)


def _perturbed(perturbation: Perturbation, places: Sequence[int], masks: Tensor) -> Tensor:
    """One copy of the sample at each place behind each mask."""
    return torch.cat([perturbation.apply(place, masks[row : row + 1]) for row, place in enumerate(places)])


def _check_differentiable(reward: Tensor, parameters: Tensor) -> None:
    if not reward.requires_grad:
        raise ValueError(
            "model: its output cannot be differentiated with respect to the input; does it detach, run under "
            "no_grad, or return a constant?"
        )
    (gradient,) = torch.autograd.grad(reward, parameters, allow_unused=True, retain_graph=True)
    if gradient is None:
        raise ValueError("model: the explained score does not depend on the input")


def area_reference(masks: Tensor, areas: Tensor) -> Tensor:
    """What masks of these areas would be with the same order of pixels: 1 for the share with the highest values.

    Args:
        masks: [K, P].
        areas: float64 [K] in 0 .. 1.

    Returns:
        [K, P] in 0 .. 1. Pixels that share the value at the rank where 1 turns into 0 share what is left for them.
    """
    count = masks.shape[1]
    ones = (areas * count).round().clamp(1, count).long().to(masks.device)
    places = (count + 1 - ones).tolist()
    threshold = torch.stack([row.kthvalue(place).values for row, place in zip(masks, places, strict=True)])[:, None]
    above, level = masks > threshold, masks == threshold
    left = (ones[:, None] - above.sum(1, keepdim=True)).to(masks.dtype) / level.sum(1, keepdim=True)
    return torch.where(level, left, above.to(masks.dtype))
