"""Pointing games: the oracle's values, what ties and negative values mean, clips, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import midgrain as mg
from oracles.measures import energy, pointing

HEIGHT, WIDTH = 9, 12


@st.composite
def maps_and_masks(draw):
    """Few levels, so that maxima tie; the object is a box."""
    values = draw(st.lists(st.integers(-2, 2), min_size=HEIGHT * WIDTH, max_size=HEIGHT * WIDTH))
    top, left = draw(st.integers(0, HEIGHT - 1)), draw(st.integers(0, WIDTH - 1))
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[0, top : top + draw(st.integers(1, 5)), left : left + draw(st.integers(1, 5))] = True
    return torch.tensor(values, dtype=torch.float32).reshape(1, HEIGHT, WIDTH), mask


@settings(max_examples=60)
@given(case=maps_and_masks(), tolerance=st.sampled_from([0, 1, 1.5, 3, 15]))
def test_the_oracle(case, tolerance) -> None:
    heatmap, mask = case
    hit = mg.measures.pointing_game(heatmap, mask, tolerance)
    assert hit.dtype == torch.bool
    assert hit.tolist() == [pointing(heatmap[0].numpy(), mask[0].numpy(), tolerance)]
    share = mg.measures.energy_pointing_game(heatmap, mask)
    assert share.dtype == torch.float32
    np.testing.assert_allclose(share, [energy(heatmap[0].numpy(), mask[0].numpy())], rtol=1e-6)


def one_object() -> torch.Tensor:
    mask = torch.zeros(1, 60, 60, dtype=torch.bool)
    mask[0, 30, 30] = True
    return mask


def test_the_tolerance_is_a_circle_of_fifteen_pixels() -> None:
    for y, x, expected in ((30, 45, True), (30, 46, False), (39, 42, True), (41, 41, False), (15, 30, True)):
        heatmap = torch.zeros(1, 60, 60)
        heatmap[0, y, x] = 1.0
        assert mg.measures.pointing_game(heatmap, one_object()).tolist() == [expected], (y, x)


def test_ties_go_by_the_majority_wherever_they_lie() -> None:
    heatmap = torch.zeros(4, 60, 60)
    mask = one_object().repeat(4, 1, 1)
    heatmap[0, 30, 26:33] = heatmap[0, 0, :3] = 1.0  # more near than far, and the first in raster order far
    heatmap[1, 30, 26:30] = heatmap[1, 0, :4] = 1.0  # as many
    heatmap[2, 30, 30] = heatmap[2, 59, :2] = 1.0
    assert mg.measures.pointing_game(heatmap, mask).tolist() == [True, False, False, False]  # the last is constant
    flipped = mg.measures.pointing_game(heatmap.flip(1, 2), mask.flip(1, 2))
    assert flipped.tolist() == [True, False, False, False]


def test_a_constant_map_hits_what_fills_the_picture() -> None:
    mask = torch.ones(1, 20, 20, dtype=torch.bool)
    assert mg.measures.pointing_game(torch.full((1, 20, 20), -3.0), mask).tolist() == [True]


def test_energy_of_negative_and_empty_maps() -> None:
    mask = one_object()
    heatmap = torch.full((1, 60, 60), -1.0)
    assert mg.measures.energy_pointing_game(heatmap, mask).tolist() == [0.0]
    assert mg.measures.energy_pointing_game(torch.zeros(1, 60, 60), mask).tolist() == [0.0]
    heatmap[0, 30, 30] = 1e-30
    assert mg.measures.energy_pointing_game(heatmap, mask).tolist() == [1.0]


@pytest.mark.parametrize("scale", [1e-300, 1e300])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64])
def test_energy_has_no_scale(dtype, scale) -> None:
    values = torch.tensor([[[3, 1], [0, 4]]], dtype=torch.float64)
    if dtype == torch.float64:
        values *= scale
    mask = torch.tensor([[[True, False], [True, False]]])
    assert mg.measures.energy_pointing_game(values.to(dtype), mask).tolist() == [0.375]


def test_clips_are_judged_frame_by_frame() -> None:
    generator = torch.Generator().manual_seed(0)
    heatmap = torch.rand(2, 3, 20, 20, generator=generator)
    mask = torch.rand(2, 3, 20, 20, generator=generator) > 0.98
    mask[:, :, 3, 3] = True
    for measure in (lambda h, m: mg.measures.pointing_game(h, m, 2), mg.measures.energy_pointing_game):
        found = measure(heatmap, mask)
        assert found.shape == (2, 3)
        assert torch.equal(found, torch.stack([measure(h, m) for h, m in zip(heatmap, mask, strict=True)]))


def test_explanations_of_a_network_that_needs_gradients() -> None:
    heatmap = torch.rand(1, 8, 8, requires_grad=True)
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    assert mg.measures.pointing_game(heatmap, mask).tolist() == [True]
    assert not mg.measures.energy_pointing_game(heatmap, mask).requires_grad


MAP = torch.rand(2, 8, 8)
MASK = torch.ones(2, 8, 8, dtype=torch.bool)
EMPTY = MASK.clone()
EMPTY[1] = False


@pytest.mark.parametrize("name", ["pointing_game", "energy_pointing_game"])
@pytest.mark.parametrize(
    ("heatmap", "mask", "error", "message"),
    [
        (MAP.numpy(), MASK, TypeError, "^heatmap: "),
        (MASK, MASK, TypeError, "^heatmap: .*bool"),
        (MAP[0], MASK[0], ValueError, r"^heatmap: expected \[B, H, W\]"),
        (MAP[:0], MASK[:0], ValueError, "^heatmap: .*empty"),
        (MAP / 0, MASK, ValueError, "^heatmap: expected finite"),
        (MAP, MASK.numpy(), TypeError, "^mask: "),
        (MAP, MASK.float(), TypeError, r"^mask: expected dtype torch.bool, got torch.float32"),
        (MAP, MASK[:1], ValueError, r"^mask: expected the heat map's shape \[2, 8, 8\], got \[1, 8, 8\]"),
        (MAP, EMPTY, ValueError, r"^mask: expected an object .* none at \[1\]"),
        (MAP[None], EMPTY[None], ValueError, r"none at \[\[0, 1\]\]"),
    ],
)
def test_bad_input(name, heatmap, mask, error, message) -> None:
    with pytest.raises(error, match=message):
        getattr(mg.measures, name)(heatmap, mask)


@pytest.mark.parametrize(
    ("tolerance", "error"), [(-1, ValueError), (float("nan"), ValueError), ("15", TypeError), (True, TypeError)]
)
def test_bad_tolerance(tolerance, error) -> None:
    with pytest.raises(error, match=r"^tolerance: "):
        mg.measures.pointing_game(MAP, MASK, tolerance)
