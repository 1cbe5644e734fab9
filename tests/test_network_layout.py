"""Where the channels and positions lie in what a layer returned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from midgrain.network.layout import ChannelsFirst, ChannelsLast, Reshaped, Tokens, layout_of


def test_channels_first_and_last() -> None:
    values = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert ChannelsFirst().maps(values) is values
    maps = ChannelsLast().maps(values.permute(0, 2, 3, 1))
    assert torch.equal(maps, values)
    assert maps.data_ptr() == values.data_ptr()


@given(st.integers(1, 3), st.integers(0, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_tokens(batch: int, prefix: int, h: int, w: int, channels: int) -> None:
    values = torch.randn(batch, prefix + h * w, channels)
    maps = Tokens((h, w), prefix).maps(values)
    assert maps.shape == (batch, channels, h, w)
    for row in range(h):
        for column in range(w):
            assert torch.equal(maps[:, :, row, column], values[:, prefix + row * w + column])


def test_tokens_of_a_clip() -> None:
    values = torch.randn(2, 1 + 24, 5)
    maps = Tokens((2, 3, 4), 1).maps(values)
    assert torch.equal(maps[:, :, 1, 2, 3], values[:, 24])


FIRST, LAST = ChannelsFirst(), ChannelsLast()


@pytest.mark.parametrize(
    ("shape", "size", "options", "expected"),
    [
        ((1, 512, 7, 7), (224, 224), {}, FIRST),
        ((1, 7, 7, 768), (224, 224), {}, LAST),
        ((1, 64, 6, 8), (192, 256), {}, FIRST),
        ((1, 64, 8, 6), (192, 256), {}, None),
        ((1, 64, 1, 1), (224, 224), {}, None),
        ((1, 64, 1, 2), (192, 256), {}, None),
        ((1, 64, 1, 4), (32, 128), {}, FIRST),
        ((1, 64, 11, 15), (192, 256), {}, FIRST),
        ((1, 512), (224, 224), {}, None),
        ((), (224, 224), {}, None),
        ((1, 0, 7, 7), (224, 224), {}, None),
        ((49, 512, 7, 7), (224, 224), {}, None),
        ((1, 7, 7, 7), (224, 224), {}, FIRST),
        ((1, 7, 7, 7), (224, 224), {"last": True}, LAST),
        ((1, 512, 2, 7, 7), (16, 112, 112), {}, FIRST),
        ((1, 8, 4, 4, 768), (16, 112, 112), {}, LAST),
        ((1, 197, 768), (224, 224), {"grids": [(14, 14)]}, Tokens((14, 14), 1)),
        ((1, 49, 768), (224, 224), {"grids": [(14, 14), (7, 7)]}, Tokens((7, 7), 0)),
        ((1, 201, 768), (224, 224), {"grids": [(14, 14)]}, Tokens((14, 14), 5)),
        ((1, 393, 768), (16, 112, 112), {"grids": [(8, 7, 7)]}, Tokens((8, 7, 7), 1)),
        # No map was seen: square patches of the picture.
        ((1, 197, 768), (224, 224), {}, Tokens((14, 14), 1)),
        ((1, 49, 768), (224, 224), {"grids": [(56, 56)]}, Tokens((7, 7), 0)),
        ((1, 192, 768), (192, 256), {}, Tokens((12, 16), 0)),
        ((1, 100, 256), (224, 224), {}, None),
        ((1, 5, 256), (224, 224), {}, None),
        ((1, 197, 768), (16, 224, 224), {}, None),
    ],
)
def test_layouts(shape: tuple[int, ...], size: tuple[int, ...], options: dict[str, Any], expected: Any) -> None:
    assert layout_of(shape, size, 1, **options) == expected


def test_the_users_own_reshape() -> None:
    values = torch.randn(2, 6, 5)
    maps = Reshaped(lambda v: v.transpose(1, 2).reshape(-1, 5, 2, 3), 2).maps(values)
    assert torch.equal(maps, Tokens((2, 3), 0).maps(values))


@pytest.mark.parametrize(
    ("reshape", "error", "message"),
    [
        (lambda v: v.tolist(), TypeError, "reshape: expected it to return a tensor, got list"),
        (lambda v: v, ValueError, r"reshape: expected it to return \[B, K, h, w\] with 2 sample\(s\), got \[2, 6, 5\]"),
        (lambda v: v[:1, :, None], ValueError, r"got \[1, 6, 1, 5\]"),
        (lambda v: v[:, :0, None], ValueError, r"got \[2, 0, 1, 5\]"),
    ],
)
def test_a_reshape_that_returns_nonsense(reshape: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Reshaped(reshape, 2).maps(torch.randn(2, 6, 5))
