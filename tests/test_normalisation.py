"""From a network's input to its picture and back."""

from __future__ import annotations

import pytest
import torch

from midgrain.baseline import make_baseline
from midgrain.normalisation import Normalisation


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 2, 4, 5), (1, 1, 4, 5)])
@pytest.mark.parametrize("numbers", [(None, None), ([0.2], [0.5])])
def test_grey_is_what_a_grey_picture_becomes(shape, numbers) -> None:
    normalisation = Normalisation(*numbers)
    for level in (0.0, 0.25, 1.0):
        x = normalisation.grey(torch.zeros(shape), level)
        assert x.shape == shape
        torch.testing.assert_close(normalisation.rgb(x), torch.full((shape[0], 3, *shape[2:]), level))


def test_black_and_white_need_a_normalisation() -> None:
    x = torch.rand(1, 3, 4, 4)
    with pytest.raises(ValueError, match="expected a number, mean, blur, noise, median or a tensor, got 'black'"):
        make_baseline("black", x)
    black = make_baseline("black", x, normalisation=Normalisation([0.5] * 3, [0.25] * 3))
    assert torch.equal(black, torch.full_like(x, -2.0))
    assert torch.equal(make_baseline("white", x, normalisation=Normalisation([0.5] * 3, [0.25] * 3)), -black)


def test_five_channels_are_no_picture() -> None:
    x = torch.rand(1, 5, 4, 4)
    assert Normalisation().rgb(x) is None
    with pytest.raises(ValueError, match="baseline: 'black' and 'white' are of pictures of 1 or 3 channels, got 5"):
        make_baseline("white", x, normalisation=Normalisation())
