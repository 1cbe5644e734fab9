"""Remove and retrain: does a network that never sees the important pixels learn less?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from midgrain import driver
from midgrain.measures.order import check_maps, schedule
from midgrain.ops.checks import check_int
from midgrain.progress import progress_bar

__all__ = ["Retraining", "roar", "without_top_pixels"]

#: Of the pixels; as in the original paper.
SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, eq=False)
class Retraining:
    """Accuracies of networks that were trained and tested without the most important pixels."""

    #: float64 [shares, repeats].
    accuracy: Tensor
    #: Area under the mean accuracy over the shares, divided by their range; lower is better.
    auc: float
    #: The shares of pixels removed.
    shares: tuple[float, ...]

    @property
    def value(self) -> float:
        """The measure's number, `auc`."""
        return self.auc


def roar(
    fit: Callable[[Tensor, Tensor, int], Any],
    train: tuple[Tensor, Tensor, Tensor],
    test: tuple[Tensor, Tensor, Tensor],
    shares: Sequence[float] = SHARES,
    repeats: int = 5,
    *,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> Retraining:
    """Remove and retrain (ROAR): pixels are replaced by the training set's mean colour, and a new network is trained.

    Deletion shows a network pictures with holes that it never learned from. Here it learns from them, so that what the
    accuracy loses is what the pixels said. Judge a method beside random heat maps: theirs fall too.

    Args:
        fit: `(x, y, seed) -> model`: trains a new network on x [N, C, *S] and classes y [N]; the model returns logits.
        train: (x, y, heatmap): inputs [N, C, *S], classes int64 [N], and their heat maps [N, *S] by a network trained
            on the whole pictures.
        test: likewise.
        shares: of the pixels removed, most important first, ascending, from 0 to below 1.
        repeats: networks trained for each share, with seeds seed, seed + 1, ...
        batch_size: pictures at once when testing.
        seed: of the first network, and of the order of pixels of one value.
        progress: show a bar.

    Returns:
        `.accuracy` [shares, repeats], `.auc`, `.shares`.

    Raises:
        TypeError, ValueError: arguments of other kinds or shapes.

    Source: Hooker et al., "A benchmark for interpretability methods in deep neural networks", 2019.

    Example:
        >>> import torch, midgrain as mg
        >>> def nearest_mean(x, y, seed):
        ...     means = torch.stack([x[y == c].flatten(1).mean(0) for c in range(2)])
        ...     return lambda x: -torch.cdist(x.flatten(1), means)
        >>> y = torch.arange(40) % 2
        >>> x = torch.zeros(40, 1, 4, 4)
        >>> x[:, 0, 0, 0] = y.float()
        >>> heatmap = torch.zeros(40, 4, 4)
        >>> heatmap[:, 0, 0] = 1.0
        >>> mg.measures.roar(nearest_mean, (x, y, heatmap), (x, y, heatmap), shares=(0, 0.1), repeats=1).accuracy
        tensor([[1.0000],
                [0.5000]], dtype=torch.float64)
    """
    if not callable(fit):
        raise TypeError(f"fit: expected a callable (x, y, seed) -> model, got {type(fit).__name__}")
    sets = [_checked(each, name) for each, name in ((train, "train"), (test, "test"))]
    wanted = _check_shares(shares)
    repeats = check_int(repeats, "repeats", 1)
    batch_size = check_int(batch_size, "batch_size", 1)
    seed = check_int(seed, "seed", 0, 2**31)
    colour = sets[0][0].movedim(1, 0).flatten(1).mean(1)
    accuracy = torch.zeros(len(wanted), repeats, dtype=torch.float64)
    with progress_bar("retraining", accuracy.numel(), shown=progress) as advance:
        for row, share in enumerate(wanted):
            known, asked = (without_top_pixels(x, heatmap, share, colour, seed) for x, _, heatmap in sets)
            for repeat in range(repeats):
                model = fit(known.clone(), sets[0][1].clone(), seed + repeat)
                accuracy[row, repeat] = _accuracy(model, asked, sets[1][1], batch_size)
                advance(1)
    along = torch.tensor(wanted, dtype=torch.float64)
    means = accuracy.mean(1)
    area = torch.trapezoid(means, along) / (along[-1] - along[0]) if len(wanted) > 1 else means[0]
    return Retraining(accuracy, float(area), wanted)


def without_top_pixels(x: Tensor, heatmap: Tensor, share: float, colour: Tensor, seed: int = 0) -> Tensor:
    """The pictures with their most important pixels painted over.

    Args:
        x: [B, C, *S].
        heatmap: [B, *S].
        share: of the pixels, 0 .. 1, rounded to whole ones.
        colour: [C].
        seed: of the order of pixels of one value.

    Returns:
        [B, C, *S], a copy.

    Example:
        >>> import torch
        >>> from midgrain.measures.retraining import without_top_pixels
        >>> heatmap = torch.tensor([[[3.0, 1.0], [2.0, 0.0]]])
        >>> without_top_pixels(torch.ones(1, 1, 2, 2), heatmap, 0.5, torch.zeros(1))
        tensor([[[[0., 1.],
                  [0., 1.]]]])
    """
    count = round(share * heatmap[0].numel())
    rank = schedule(heatmap, 1, "random", seed).rank
    gone = (rank < count).reshape(len(x), 1, *x.shape[2:])
    return torch.where(gone, colour.to(x).reshape(-1, *[1] * (x.ndim - 2)), x)


def _accuracy(model: Any, x: Tensor, y: Tensor, batch_size: int) -> float:
    driver.check_model(model)
    right = 0
    for pictures, classes in zip(x.split(batch_size), y.split(batch_size), strict=True):
        with driver.preserved(model, pictures):
            outputs = driver.forward(model, pictures, None).outputs
        assert outputs is not None
        right += int((outputs.argmax(1).to(classes.device) == classes).sum())
    return right / len(x)


def _checked(given: Any, name: str) -> tuple[Tensor, Tensor, Tensor]:
    if not isinstance(given, list | tuple) or len(given) != 3:
        raise TypeError(f"{name}: expected (x, y, heatmap), got {type(given).__name__}")
    x, y = driver.check_input(given[0]).detach(), given[1]
    if not isinstance(y, Tensor) or y.dtype != torch.int64:
        raise TypeError(f"{name}: expected classes as an int64 tensor, got {getattr(y, 'dtype', type(y).__name__)}")
    if list(y.shape) != [len(x)]:
        raise ValueError(f"{name}: expected one class for each of {len(x)} pictures, got shape {list(y.shape)}")
    return x, y, check_maps(given[2], (len(x), *x.shape[2:]), f"{name}'s heatmap").to(x.device)


def _check_shares(shares: Any) -> tuple[float, ...]:
    if not isinstance(shares, list | tuple) or not shares:
        raise TypeError("shares: expected numbers from 0 to below 1, ascending")
    try:
        numbers = tuple(float(share) for share in shares)
    except (TypeError, ValueError) as error:
        raise TypeError(f"shares: expected numbers, got {shares!r}") from error
    if not all(0.0 <= share < 1.0 for share in numbers) or list(numbers) != sorted(set(numbers)):
        raise ValueError(f"shares: expected numbers from 0 to below 1, ascending, got {list(numbers)}")
    return numbers
