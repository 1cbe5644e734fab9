"""Scores of many altered copies of every sample, some copies at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from midgrain.driver import Target, resolve_target
from midgrain.ops.checks import check_int

__all__ = [
    "UNALTERED",
    "Alterations",
    "altered_scores",
    "check_batch_size",
    "copies_at_once",
    "log_odds",
    "probabilities",
    "split_outputs",
]

# Values of the network's input in one pass.
_VALUES_AT_ONCE = {"cpu": 2**19, "cuda": 2**24}
_MOST_AT_ONCE = 128

#: The alteration that changes nothing.
UNALTERED = -1


class Alterations(Protocol):
    """Passes through a network with something altered, said by a number; `UNALTERED` alters nothing."""

    def of_sample(self, sample: int, numbers: Sequence[int]) -> Any:
        """The outputs for copies of one sample, each altered in its own way."""
        ...

    def of_batch(self, number: int) -> Any:
        """The outputs for the whole batch, every sample altered in the same way."""
        ...


def altered_scores(
    passes: Alterations,
    wanted: Tensor,
    targets: Sequence[Target],
    classes: Sequence[Tensor | None],
    *,
    batch_size: int,
    relative: bool = False,
    read: Callable[[Any], Any] = lambda outputs: outputs,
    advance: Callable[[int], object] = lambda copies: None,
) -> Tensor:
    """The explained scores of every altered copy.

    Classes are looked up in the outputs of many copies of one sample. A callable target always gets the outputs of
    the original batch, every sample altered in the same way, since it may pick a class for each of them: where all
    that a network returns has the batch first, these are put together from passes of many copies; where not, the
    batch is run for every alteration.

    Args:
        passes: runs the network.
        wanted: bool [B, J], which alterations of which samples.
        targets: what to explain; every target is read from the same passes.
        classes: per target int64 [B], None for a callable one.
        batch_size: copies at once.
        relative: subtract the score of an unaltered copy in the same pass, so that passes of different sizes, which
            round differently, do not count as differences.
        read: from the outputs to those with the classes' scores.
        advance: told how many of the wanted copies each pass has done.

    Returns:
        float64 [targets, B, J], 0 where not wanted.
    """
    scores = torch.zeros(len(targets), *wanted.shape, dtype=torch.float64, device=wanted.device)
    first = [UNALTERED] if relative else []
    if all(each is not None for each in classes):
        for sample, chosen in enumerate(wanted):
            for numbers in _chunks(chosen, batch_size):
                outputs = read(passes.of_sample(sample, first + numbers.tolist()))
                copies = len(first) + len(numbers)
                for place, each in enumerate(classes):
                    assert each is not None
                    got = resolve_target(outputs, each[sample].expand(copies), copies)[1].double()
                    scores[place, sample, numbers] = (got[1:] - got[0] if relative else got).to(scores.device)
                advance(len(numbers))
        return scores
    example = None
    for numbers in _chunks(wanted.any(0), batch_size):
        if example is None:
            example = passes.of_sample(0, numbers[:1].tolist())
        batches = _of_batches(passes, first + numbers.tolist(), len(wanted), example)
        for place, (target, each) in enumerate(zip(targets, classes, strict=True)):
            rows = [_row(outputs, target, each, len(wanted), read) for outputs in batches]
            got = torch.stack(rows, 1).to(scores.device)
            scores[place][:, numbers] = got[:, 1:] - got[:, :1] if relative else got
        advance(int(wanted[:, numbers].sum()))
    return scores.where(wanted, 0.0)


def _row(outputs: Any, target: Target, classes: Tensor | None, batch: int, read: Callable[[Any], Any]) -> Tensor:
    """One target's scores of a batch; a callable gets the outputs as they are."""
    if classes is None:
        return resolve_target(outputs, target, batch)[1].double()
    return resolve_target(read(outputs), classes, batch)[1].double()


def copies_at_once(x: Tensor) -> int:
    """How many copies of one sample of an input [B, C, *S] a pass takes by default.

    On a CPU few: more only leave the caches. It depends on nothing but shape and device, so that runs repeat exactly.
    """
    values = _VALUES_AT_ONCE["cuda" if x.is_cuda else "cpu"]
    return min(max(1, values // x[0].numel()), _MOST_AT_ONCE)


def probabilities(outputs: Tensor) -> Tensor:
    """Softmax over the classes, in float32 or wider.

    Raises:
        ValueError: there is one class only, whose probability says nothing.
    """
    _check_choice(outputs)
    return outputs.softmax(1, dtype=torch.promote_types(outputs.dtype, torch.float32))


def log_odds(outputs: Tensor) -> Tensor:
    """log(p / (1 - p)) of every class's softmax probability p, in float64; differentiable.

    It rises and falls with the probability, but flattens out nowhere, however near p is to 0 or 1.

    Raises:
        ValueError: there is one class only, whose odds are infinite.
    """
    _check_choice(outputs)
    logits = outputs.double()
    logs = logits.log_softmax(1)
    best = logits.detach().argmax(1, keepdim=True)
    # 1 - p keeps its digits where p is at most 1/2. Of the best class it is what the others have together.
    unlikely = logs - torch.log1p(-logs.scatter(1, best, -torch.inf).exp())
    ahead = logits.gather(1, best) - logits.scatter(1, best, -torch.inf).logsumexp(1, keepdim=True)
    return unlikely.scatter(1, best, ahead)


def _check_choice(outputs: Tensor) -> None:
    if outputs.shape[1] == 1:
        raise ValueError("output: expected 'logit' for a network of one class, whose probability is always 1")


def check_batch_size(batch_size: int | None) -> int | None:
    """The number of copies at once as the user gave it.

    Raises:
        TypeError: neither None nor an integer.
        ValueError: less than 1.
    """
    return None if batch_size is None else check_int(batch_size, "batch_size", 1)


def _chunks(wanted: Tensor, batch_size: int) -> list[Tensor]:
    """Where bool [J] is true, so many at a time."""
    numbers = wanted.nonzero()[:, 0]
    return list(numbers.split(batch_size)) if len(numbers) else []


def _of_batches(passes: Alterations, numbers: Sequence[int], batch: int, example: Any) -> list[Any]:
    """For every alteration the outputs of the whole batch; `example` is what the network returns for one sample."""
    samples: list[list[Any]] = []
    for sample in range(batch):
        split = split_outputs(passes.of_sample(sample, numbers), len(numbers), example)
        if split is None:
            return [passes.of_batch(number) for number in numbers]
        samples.append(split)
    return [_joined([split[place] for split in samples]) for place in range(len(numbers))]


def split_outputs(outputs: Any, copies: int, example: Any, size: int = 1) -> list[Any] | None:
    """The outputs of every copy on its own; None where it does not show how they would be told apart.

    Args:
        outputs: what a network returned for several copies of the same samples, copy after copy.
        copies: how many.
        example: what it returns for one copy.
        size: samples of a copy.
    """
    leaves, structure = pytree.tree_flatten(outputs)
    examples, expected = pytree.tree_flatten(example)
    if structure != expected or not any(isinstance(leaf, Tensor) for leaf in leaves):
        return None
    for leaf, one in zip(leaves, examples, strict=True):
        if isinstance(leaf, Tensor):
            if (
                not isinstance(one, Tensor)
                or list(one.shape[:1]) != [size]
                or leaf.shape != (copies * size, *one.shape[1:])
            ):
                return None
        elif not isinstance(leaf, float | int | str | None):
            return None
    return [
        pytree.tree_unflatten(
            [leaf[start : start + size] if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure
        )
        for start in range(0, copies * size, size)
    ]


def _joined(outputs: Sequence[Any]) -> Any:
    """One batch from the outputs of its samples."""
    if len(outputs) == 1:
        return outputs[0]
    leaves, structure = zip(*(pytree.tree_flatten(each) for each in outputs), strict=True)
    joined = [torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0] for parts in zip(*leaves, strict=True)]
    return pytree.tree_unflatten(joined, structure[0])
