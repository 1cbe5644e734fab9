"""Where the channels and positions lie in what a layer returned."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

__all__ = ["ChannelsFirst", "ChannelsLast", "Layout", "Reshaped", "Tokens", "layout_of"]

#: Class, distillation and register tokens that a transformer may put before its patches.
_MOST_PREFIX_TOKENS = 16
# Of patches that are only guessed from a number of tokens: their sides, and how many there are at least.
_LEAST_PATCH, _LARGEST_PATCH = 4, 64
_FEWEST_PATCHES = 16


class Layout(Protocol):
    """How to read a layer's output as activation maps."""

    def maps(self, values: Tensor) -> Tensor:
        """The output, or its gradient, as [B, K, h, w] or [B, K, t, h, w]; a view where possible."""
        ...


@dataclass(frozen=True)
class ChannelsFirst:
    """[B, K, *s], as convolutions return it."""

    def maps(self, values: Tensor) -> Tensor:
        """Itself."""
        return values


@dataclass(frozen=True)
class ChannelsLast:
    """[B, *s, K], as Swin and other transformers with windows have it."""

    def maps(self, values: Tensor) -> Tensor:
        """[B, *s, K] -> [B, K, *s]."""
        return values.movedim(-1, 1)


@dataclass(frozen=True)
class Tokens:
    """[B, prefix + prod(grid), K]: a class token or registers, then one token per patch in raster order."""

    grid: tuple[int, ...]
    prefix: int

    def maps(self, values: Tensor) -> Tensor:
        """[B, N, K] -> [B, K, *grid], without the prefix."""
        patches = values[:, self.prefix :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *self.grid)


@dataclass(frozen=True)
class Reshaped:
    """The user's own `reshape`: from the layer's output to [B, K, *s]."""

    reshape: Callable[[Tensor], Tensor]
    spatial_dims: int

    def maps(self, values: Tensor) -> Tensor:
        """What the callable makes of it.

        Raises:
            TypeError, ValueError: it returns no such tensor.
        """
        result = self.reshape(values)
        if not isinstance(result, Tensor):
            raise TypeError(f"reshape: expected it to return a tensor, got {type(result).__name__}")
        if result.ndim != self.spatial_dims + 2 or result.shape[0] != values.shape[0] or 0 in result.shape:
            wanted = "[B, K, h, w]" if self.spatial_dims == 2 else "[B, K, t, h, w]"
            raise ValueError(
                f"reshape: expected it to return {wanted} with {values.shape[0]} sample(s), got {list(result.shape)}"
            )
        return result


def layout_of(
    shape: Sequence[int], size: Sequence[int], batch: int, grids: Sequence[Sequence[int]] = (), *, last: bool = False
) -> Layout | None:
    """The layout of a layer's output, None where it is not spatial.

    Args:
        shape: of the output.
        size: of the network's input, [H, W] or [T, H, W].
        batch: samples in the input.
        grids: sizes of maps that the network made before, latest last: what tokens can stand for. Failing these, the
            tokens of a picture may be its square patches.
        last: prefer channels last where both would do.
    """
    if not shape or shape[0] != batch or 0 in shape:
        return None
    if len(shape) == len(size) + 2:
        found: list[Layout] = [
            layout
            for layout, positions in ((ChannelsFirst(), shape[2:]), (ChannelsLast(), shape[1:-1]))
            if _covers(positions, size)
        ]
        return None if not found else found[-1 if last else 0]
    if len(shape) == 3:
        for grid in reversed(grids):
            prefix = shape[1] - math.prod(grid)
            if 0 <= prefix <= _MOST_PREFIX_TOKENS and math.prod(grid[-2:]) > 1:
                return Tokens(tuple(grid), prefix)
        for grid in _patches(size):
            prefix = shape[1] - math.prod(grid)
            if 0 <= prefix <= _MOST_PREFIX_TOKENS:
                return Tokens(grid, prefix)
    return None


def _patches(size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Grids of the square patches that a picture can be cut into, smallest patches first."""
    if len(size) == 2:
        for side in range(_LEAST_PATCH, _LARGEST_PATCH + 1):
            if size[0] % side == 0 and size[1] % side == 0 and math.prod(size) >= _FEWEST_PATCHES * side * side:
                yield size[0] // side, size[1] // side


def _covers(positions: Sequence[int], size: Sequence[int]) -> bool:
    """Can these be the positions of a map of the whole input: more than one, and of the same aspect?

    Rows and columns are each rounded to whole cells, and convolutions without padding lose some.
    """
    (h, w), (height, width) = positions[-2:], size[-2:]
    several = min(h, w) > 1 or (h * w > 1 and max(height, width) >= 2 * min(height, width))
    return several and abs(h / height - w / width) <= 2.0 / min(height, width)
