"""What a network says of altered inputs, for one or several targets: the passes of all black-box methods."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from midgrain import driver
from midgrain.driver import Target
from midgrain.network.altered import altered_scores, copies_at_once, log_odds, probabilities
from midgrain.stopwatch import network_pass

__all__ = ["OUTPUTS", "READINGS", "MakeInputs", "Probe", "check_output"]

#: `(sample, numbers) -> inputs [n, C, *S]`: copies of one sample of the batch, each altered in the way of its number.
MakeInputs: TypeAlias = Callable[[int, Sequence[int]], Tensor]

#: What is read for a class: its softmax probability or its logit.
OUTPUTS = ("probability", "logit")

#: Name -> from a network's outputs to those with the classes' scores; the log-odds are log(p / (1 - p)).
READINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "probability": probabilities,
    "logit": lambda outputs: outputs,
    "log-odds": log_odds,
}


class Probe:
    """Asks a network about altered copies of a batch, some copies at a time; call it inside `driver.preserved`.

    Args:
        model: the network.
        x: floats [B, C, *S], checked.
        targets: what to explain; all of them are read from the same passes. A callable target always gets the outputs
            of the whole batch, every sample altered in the way of the same number.
        output: what is read of the class, one of `READINGS`; a callable's scores are taken as they are.
        batch_size: copies at once; None chooses by the input's size.

    Raises:
        TypeError, ValueError: see `driver.resolve_target`.
    """

    def __init__(
        self,
        model: Any,
        x: Tensor,
        targets: Sequence[Target],
        *,
        output: str = "probability",
        batch_size: int | None = None,
    ):
        self.model, self.x, self.targets = model, x.detach(), targets
        self.batch_size = batch_size or copies_at_once(x)
        self._read = READINGS[output]
        #: Copies that went through the network so far, per sample of the batch.
        self.passes = torch.ones(len(x), dtype=torch.int64)
        with torch.no_grad():
            outputs = model(self.x.clone())
            #: Per target what the pass on the unaltered batch gave.
            self.results = [driver.read_outputs(outputs, target, len(x)) for target in targets]
            #: The scores of the unaltered batch, float64 [targets, B].
            self.unaltered = torch.stack([self._unaltered(outputs, place) for place in range(len(targets))])

    def scores(
        self, make: MakeInputs, wanted: Tensor, advance: Callable[[int], object] = lambda copies: None
    ) -> Tensor:
        """The scores of altered copies.

        Args:
            make: makes them; it may be asked for the same number twice and must then give the same.
            wanted: bool [B, J], which alterations of which samples.
            advance: told how many copies each pass has done, in sum `wanted.sum()`.

        Returns:
            float64 [targets, B, J] on x's device, 0 where not wanted.

        Raises:
            ValueError: scores that are NaN or infinite.
        """
        wanted = wanted.to(self.x.device)
        found = altered_scores(
            _Passes(self, make),
            wanted,
            self.targets,
            [result.target for result in self.results],
            batch_size=self.batch_size,
            read=self._read,
            advance=advance,
        )
        self.passes += wanted.sum(1).cpu()
        return found

    def _unaltered(self, outputs: Any, place: int) -> Tensor:
        target, classes = self.targets[place], self.results[place].target
        read = outputs if classes is None else self._read(outputs)
        found = driver.resolve_target(read, target if classes is None else classes, len(self.x))[1]
        return found.double().to(self.x.device)


class _Passes:
    def __init__(self, probe: Probe, make: MakeInputs):
        self.model, self.batch, self.make = probe.model, len(probe.x), make

    @network_pass
    def of_sample(self, sample: int, numbers: Sequence[int]) -> Any:
        """Copies of one sample."""
        with torch.no_grad():
            return self.model(self.make(sample, numbers))

    @network_pass
    def of_batch(self, number: int) -> Any:
        """The whole batch, every sample altered in the same way."""
        with torch.no_grad():
            return self.model(torch.cat([self.make(sample, [number]) for sample in range(self.batch)]))


def check_output(output: str, allowed: Collection[str] = OUTPUTS) -> str:
    """Raises ValueError unless it is one of those allowed."""
    if not isinstance(output, str) or output not in allowed:
        raise ValueError(f"output: expected one of {', '.join(allowed)}, got {output!r}")
    return output
