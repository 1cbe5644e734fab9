"""Gradients of the explained score at many altered copies of a batch, some copies at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from midgrain import driver
from midgrain.driver import Target
from midgrain.network.altered import copies_at_once, split_outputs

__all__ = ["GradientProbe", "MakeCopies"]

#: `(numbers, samples) -> inputs [len(numbers), b, C, *S]`: these samples of the batch, altered in the way of each
#: number.
MakeCopies: TypeAlias = Callable[[Sequence[int], slice], Tensor]


class GradientProbe:
    """Differentiates a network at altered copies of a batch; call it inside `driver.preserved`.

    The classes are those of the unaltered batch. A callable target always gets the outputs of the original batch,
    every sample altered in the same way, since it may pick a class for each of them.

    Args:
        model: the network.
        x: floats [B, C, *S], checked.
        target: what to explain.
        batch_size: copies at once; None chooses by the input's size.

    Raises:
        TypeError, ValueError: see `driver.resolve_target`.
    """

    def __init__(self, model: Any, x: Tensor, target: Target, *, batch_size: int | None = None):
        self.model, self.x = model, x.detach()
        self.batch_size = batch_size or copies_at_once(x)
        with torch.no_grad():
            self._outputs = model(self.x.clone())
            classes, scores = driver.resolve_target(self._outputs, target, len(x))
        self._target: Target = target if classes is None else classes
        #: Classes and outputs of the unaltered batch.
        self.result = driver.read_outputs(self._outputs, self._target, len(x))
        #: Scores of the unaltered batch, float64 [B].
        self.scores = scores.double()
        #: Forward passes of each sample so far.
        self.passes = 1

    def scores_of(self, x: Tensor) -> Tensor:
        """The scores of another input in the batch's place, float64 [B]; one forward pass."""
        self.passes += 1
        with torch.no_grad():
            return driver.resolve_target(self.model(x.clone()), self._target, len(x))[1].double()

    def gradients(
        self,
        make: MakeCopies,
        count: int,
        around_backward: Callable[[Tensor], AbstractContextManager[Any]] | None = None,
        advance: Callable[[int], object] = lambda copies: None,
    ) -> Iterator[tuple[list[int], slice, Tensor]]:
        """The gradients at copies 0 .. count - 1 of every sample.

        Args:
            make: makes the copies; it may be asked for the same numbers twice and must then give the same.
            count: copies of each sample.
            around_backward: see `driver.input_gradient`.
            advance: told how many copies each pass has done, in sum count * B.

        Yields:
            Numbers, samples, and the gradients of these copies [len(numbers), b, C, *S]. Every copy comes once, the
            numbers of each sample in ascending order.

        Raises:
            ValueError: see `driver.input_gradient`.
        """
        self.passes += count

        def differentiate(copies: Tensor, target: Target) -> Tensor:
            result = driver.input_gradient(self.model, copies, target, around_backward)
            assert result.gradient is not None
            return result.gradient

        for numbers, samples, gradients in self.over_copies(make, count, differentiate):
            yield numbers, samples, gradients
            advance(len(numbers) * gradients.shape[1])

    def over_copies(
        self, make: MakeCopies, count: int, run: Callable[[Tensor, Target], Tensor]
    ) -> Iterator[tuple[list[int], slice, Tensor]]:
        """What `run` makes of copies 0 .. count - 1 of every sample, some at a time; see `gradients`.

        Args:
            make: makes the copies.
            count: copies of each sample.
            run: from inputs [n, C, *S] and their target to a tensor [n, ...].
        """
        batch = len(self.x)
        together = max(1, self.batch_size // batch)
        # A callable needs its whole batch; of classes, any part of it will do.
        width = batch if callable(self._target) else min(batch, self.batch_size)
        start = 0
        while start < count:
            numbers = list(range(start, min(start + together, count)))
            for first in range(0, batch, width):
                samples = slice(first, min(first + width, batch))
                copies = make(numbers, samples)
                try:
                    made = run(copies.flatten(0, 1), self._target_of(len(numbers), samples))
                except (_Inseparable, ValueError, RuntimeError, AssertionError):
                    if first or (together == 1 and width == batch):
                        raise
                    # Some networks take one batch size only, and outputs may not show which copy they are of.
                    together, width = 1, batch
                    break
                yield numbers, samples, made.unflatten(0, (len(numbers), copies.shape[1]))
            else:
                start += len(numbers)

    def _target_of(self, copies: int, samples: slice) -> Target:
        target = self._target
        if isinstance(target, Tensor):
            return target[samples].repeat(copies)
        assert callable(target)
        if copies == 1:
            return target

        def of_each(outputs: Any) -> Tensor:
            parts = split_outputs(outputs, copies, self._outputs, len(self.x))
            if parts is None:
                raise _Inseparable
            return torch.cat([driver.resolve_target(part, target, len(self.x))[1] for part in parts])

        return of_each


class _Inseparable(BaseException):
    """The outputs of several copies of a batch cannot be told apart; no Exception, so that no network swallows it."""
