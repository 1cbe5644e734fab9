"""Flicker of heat and superpixels: equal to slow loops, and what they must be where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

import midgrain as mg

SHAPE = (1, 3, 9, 11)


def rolled(frame: torch.Tensor, frames: int, dx: int, dy: int) -> torch.Tensor:
    """A clip [1, frames, H, W] in which a frame moves as a whole, wrapping around."""
    return torch.stack([torch.roll(frame, (dy * t, dx * t), (0, 1)) for t in range(frames)])[None]


def by_hand(before, after, flow, valid, extent):
    """One pair of frames, pixel by pixel: change, relative, rank."""
    height, width = before.shape
    here, there = [], []
    for y in range(height):
        for x in range(width):
            u, v = x + flow[y, x, 0], y + flow[y, x, 1]
            if not valid[y, x] or not (0 <= u <= width - 1 and 0 <= v <= height - 1):
                continue
            left, top = min(int(u), width - 2), min(int(v), height - 2)
            value = 0.0
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                share = (1 - abs(v - (top + i))) * (1 - abs(u - (left + j)))
                value += share * after[top + i, left + j]
            here.append(before[y, x])
            there.append(value)
    here, there = np.array(here) / extent, np.array(there) / extent
    n = len(here)
    unlike = [np.abs(each[:, None] - each[None]).sum() / (n * (n - 1)) for each in (here, there)]
    change = np.abs(here - there).mean()
    return change, change / np.mean(unlike), 1 - spearmanr(here, there).statistic


def test_flicker_equals_a_loop_over_pixels() -> None:
    random = torch.Generator().manual_seed(0)
    heat = torch.rand(2, 3, 9, 11, generator=random, dtype=torch.float64) * 5 - 2
    flow = torch.randn(2, 2, 9, 11, 2, generator=random, dtype=torch.float64) * 2
    valid = torch.rand(2, 2, 9, 11, generator=random) > 0.2
    found = mg.measures.flicker(heat, flow, valid)
    for b in range(2):
        extent = float(heat[b].max() - heat[b].min())
        for t in range(2):
            wanted = by_hand(
                heat[b, t].numpy(), heat[b, t + 1].numpy(), flow[b, t].numpy(), valid[b, t].numpy(), extent
            )
            actual = [float(each[b, t]) for each in (found.change, found.relative, found.rank)]
            assert np.allclose(actual, wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.value, found.relative.mean(1))


@given(dx=st.integers(-3, 3), dy=st.integers(-3, 3), seed=st.integers(0, 99))
def test_what_moves_with_the_picture_does_not_flicker(dx, dy, seed) -> None:
    heat = rolled(torch.rand(16, 18, generator=torch.Generator().manual_seed(seed)), 3, dx, dy)
    flow = torch.tensor([float(dx), float(dy)]).expand(1, 2, 16, 18, 2)
    followed, still = mg.measures.flicker(heat, flow), mg.measures.flicker(heat)
    assert torch.equal(followed.change, torch.zeros(1, 2))
    assert torch.allclose(followed.rank, torch.zeros(1, 2), atol=1e-6)
    if dx or dy:
        assert float(still.value) > 0.5
    labels = (heat * 1000).to(torch.int32)
    kept = mg.measures.region_consistency(labels, flow)
    assert torch.equal(kept.same, torch.ones(1, 2))
    assert torch.equal(kept.together, torch.ones(1, 2))


@given(scale=st.floats(1e-20, 1e20), seed=st.integers(0, 99))
def test_the_unit_of_the_heat_does_not_matter(scale, seed) -> None:
    heat = torch.rand(*SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plain, scaled = mg.measures.flicker(heat), mg.measures.flicker(heat * scale + scale)
    for name in ("change", "relative", "rank"):
        assert torch.allclose(getattr(plain, name), getattr(scaled, name), rtol=1e-4, atol=1e-5)


def test_unrelated_frames_are_as_different_as_any_two_pixels() -> None:
    heat = torch.rand(1, 5, 80, 80, generator=torch.Generator().manual_seed(0))
    found = mg.measures.flicker(heat)
    assert torch.allclose(found.relative, torch.ones(1, 4), atol=0.03)
    assert torch.allclose(found.rank, torch.ones(1, 4), atol=0.05)


def test_constant_frames() -> None:
    still = mg.measures.flicker(torch.ones(*SHAPE))
    assert [float(each.abs().max()) for each in (still.change, still.relative, still.rank)] == [0.0, 0.0, 0.0]
    jump = torch.zeros(1, 2, 4, 4)
    jump[0, 1] = 1.0
    found = mg.measures.flicker(jump)
    assert (float(found.change), float(found.relative), float(found.rank)) == (1.0, 1.0, 0.0)
    one_flat = torch.zeros(1, 2, 4, 4)
    one_flat[0, 1, 0, 0] = 1.0
    assert float(mg.measures.flicker(one_flat).rank) == 1.0


def test_pixels_that_do_not_count() -> None:
    heat = torch.rand(*SHAPE)
    nothing = torch.zeros(1, 2, 9, 11, dtype=torch.bool)
    assert torch.equal(mg.measures.flicker(heat, valid=nothing).change, torch.zeros(1, 2))
    assert torch.equal(mg.measures.region_consistency((heat * 9).int(), valid=nothing).together, torch.ones(1, 2))
    away = torch.full((1, 2, 9, 11, 2), 100.0)
    assert torch.equal(mg.measures.flicker(heat, away).change, torch.zeros(1, 2))


def test_regions_that_split() -> None:
    whole, halves = torch.zeros(4, 6, dtype=torch.int64), torch.zeros(4, 6, dtype=torch.int64)
    halves[:, 4:] = 7
    found = mg.measures.region_consistency(torch.stack([whole, halves])[None])
    # Forwards two thirds stay with most of their region, backwards all.
    assert float(found.together) == pytest.approx((2 / 3 + 1) / 2)
    assert float(found.same) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda f, h: f(h[0]), ValueError, "expected .B, T, H, W."),
        (lambda f, h: f(h[:, :1]), ValueError, "two frames or more"),
        (lambda f, h: f(h.numpy()), TypeError, "expected"),
        (lambda f, h: f(h, torch.zeros(1, 3, 9, 11, 2)), ValueError, r"flow: expected shape \[1, 2, 9, 11, 2\]"),
        (
            lambda f, h: f(h, torch.zeros(1, 2, 9, 11, 2, dtype=torch.int64)),
            TypeError,
            "flow: expected a tensor of flo",
        ),
        (lambda f, h: f(h, torch.full((1, 2, 9, 11, 2), torch.nan)), ValueError, "flow: expected finite"),
        (lambda f, h: f(h, valid=torch.ones(1, 2, 9, 11)), TypeError, "valid: expected a bool tensor"),
        (lambda f, h: f(h, valid=torch.ones(1, 3, 9, 11, dtype=torch.bool)), ValueError, "valid: expected shape"),
    ],
)
@pytest.mark.parametrize("name", ["flicker", "region_consistency"])
def test_bad_input(name, call, error, text) -> None:
    values = torch.rand(*SHAPE) if name == "flicker" else torch.zeros(*SHAPE, dtype=torch.int32)
    with pytest.raises(error, match=text):
        call(getattr(mg.measures, name), values)


def test_labels_are_integers() -> None:
    with pytest.raises(TypeError, match=r"segments: expected integers, got dtype torch\.float32"):
        mg.measures.region_consistency(torch.rand(*SHAPE))
    with pytest.raises(ValueError, match="finite"):
        mg.measures.flicker(torch.full(SHAPE, torch.inf))
