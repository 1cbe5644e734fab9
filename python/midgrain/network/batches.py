"""Batches of a labelled data set, checked, and how far a loader has been read."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midgrain import driver
from midgrain.ops.arrays import is_integral

__all__ = ["Consumed", "LabelledBatch", "labelled_batches"]

# Of each sample, in the checksum.
_VALUES_SUMMED = 64


@dataclass(frozen=True, eq=False)
class LabelledBatch:
    """Some samples of a data set."""

    #: Floats [B, C, *S].
    x: Tensor
    #: Classes, int64 [B], on the CPU.
    y: Tensor
    #: What the loader calls the samples, integers or texts; None where it does not say.
    ids: list[int] | list[str] | None

    def some_values(self) -> Tensor:
        """Of each sample about so many values that checksums tell other data by, float64 [B, n] on the CPU."""
        flat = self.x.flatten(1)
        return flat[:, :: max(1, flat.shape[1] // _VALUES_SUMMED)].cpu().double().contiguous()


@dataclass
class Consumed:
    """How far a loader has been read, and a checksum of its classes and of some of its values."""

    batches: int = 0
    samples: int = 0
    checksum: int = 0

    def add(self, batch: LabelledBatch) -> None:
        """Count another batch."""
        self.batches += 1
        self.samples += len(batch.y)
        for array in (batch.y, batch.some_values()):
            self.checksum = zlib.crc32(array.numpy().tobytes(), self.checksum)


def labelled_batches(
    loader: Iterable[Any], device: torch.device | None, done: Consumed | None = None
) -> Iterator[LabelledBatch]:
    """The loader's batches, checked one by one, without those that were read before.

    Args:
        loader: gives (x, y) or (x, y, ids), a batch at a time: floats [B, C, *S], classes, and integers or texts.
        device: where x goes; None leaves it.
        done: what was read before; the loader must give the same again.

    Raises:
        TypeError, ValueError: batches of another kind; an empty loader; other samples than those that were read before.
    """
    if isinstance(loader, str | bytes | Tensor) or not isinstance(loader, Iterable):
        raise TypeError(f"loader: expected an iterable of (x, y) batches, got {type(loader).__name__}")
    skipped = Consumed()
    number = -1
    for number, given in enumerate(loader):
        batch = _checked(given, number)
        if done is not None and skipped.batches < done.batches:
            skipped.add(batch)
            if skipped.batches == done.batches and skipped != done:
                raise _other_samples()
            continue
        yield batch if device is None else LabelledBatch(batch.x.to(device), batch.y, batch.ids)
    if number < 0:
        raise ValueError("loader: expected at least one batch, got none")
    if done is not None and skipped.batches < done.batches:
        raise _other_samples()


def _other_samples() -> ValueError:
    return ValueError(
        "loader: it gives other samples than the ones that were read before; it must give the same batches in the same "
        "order (shuffle=False, the same batch size) to go on"
    )


def _checked(given: Any, number: int) -> LabelledBatch:
    if not isinstance(given, tuple | list) or len(given) not in (2, 3):
        raise TypeError(f"loader: expected (x, y) or (x, y, ids), got {type(given).__name__} as batch {number}")
    x = given[0]
    try:
        driver.check_input(x)
    except (TypeError, ValueError) as error:
        raise type(error)(f"loader, batch {number}: {error}") from error
    y = _classes(given[1], len(x), number)
    return LabelledBatch(x.detach(), y, None if len(given) == 2 else _ids(given[2], len(x), number))


def _classes(given: Any, count: int, number: int) -> Tensor:
    try:
        y = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"loader: expected classes as integers, got {type(given).__name__} in batch {number}"
        ) from error
    if not is_integral(y):
        raise TypeError(f"loader: expected classes as integers, got dtype {y.dtype} in batch {number}")
    if list(y.shape) != [count]:
        raise ValueError(f"loader: expected one class per sample ([{count}]), got {list(y.shape)} in batch {number}")
    y = y.to("cpu", torch.int64)
    if int(y.min()) < 0:
        raise ValueError(f"loader: expected classes from 0 on, got {int(y.min())} in batch {number}")
    return y


def _ids(given: Any, count: int, number: int) -> list[int] | list[str]:
    listed: Sequence[Any] = given.tolist() if isinstance(given, Tensor | np.ndarray) else given
    if not isinstance(listed, list | tuple) or len(listed) != count:
        raise ValueError(f"loader: expected one id per sample ({count}) in batch {number}")
    plain = [each.item() if isinstance(each, np.generic) else each for each in listed]
    if all(isinstance(each, int) and not isinstance(each, bool) for each in plain):
        return plain
    if all(isinstance(each, str) for each in plain):
        return plain
    raise TypeError(f"loader: expected ids that are all integers or all texts, in batch {number}")
