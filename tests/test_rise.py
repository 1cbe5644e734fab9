"""RISE: its masks against the authors' recipe, its map against a sum over masks by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import midgrain as mg
from cam_nets import Counting
from midgrain.masking.rise_masks import RiseMasks
from models_for_tests import SPATIAL, batch_for, relative_deviation, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import masking as oracle

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
CPU = torch.device("cpu")
TARGETS = [3, 0]


def drawn(size, grid, count, seed=0, keep=0.5):
    return RiseMasks(size, grid, keep, seed, CPU).next(count)


def rise(net, x, target=TARGETS, n_samples=30, **options):
    return mg.explainer("rise", net, n_samples=n_samples, **options)(x, target)


def score_of(net, target, output="probability"):
    def score(sample):
        with torch.no_grad():
            logits = net(torch.tensor(sample)[None])[0].double()
        return float(logits.softmax(0)[target] if output == "probability" else logits[target])

    return score


# Masks.


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((224, 224), (8, 8)),
        ((64, 64), (8, 8)),
        ((37, 50), (8, 8)),
        ((30, 47), (7, 3)),
        ((5, 7), (5, 7)),
        ((9, 20), (1, 8)),
        ((1, 1), (1, 1)),
        ((1, 30), (1, 4)),
        ((6, 20, 17), (3, 8, 5)),
        ((16, 14, 14), (8, 8, 8)),
    ],
    ids=str,
)
def test_masks_are_the_authors(size, grid) -> None:
    masks = RiseMasks(size, grid, 0.5, 0, CPU)
    random = np.random.default_rng(len(size))
    grids = (random.random((6, *grid)) < 0.5).astype(np.float32)
    shifts = np.stack([random.integers(cell, size=6) for cell in masks.cell], 1)
    shifts[0], shifts[1] = 0, np.array(masks.cell) - 1
    actual = masks.enlarged(torch.tensor(grids), torch.tensor(shifts))
    assert actual.dtype == torch.float32
    expected = np.stack([oracle.rise_mask(g, s, size) for g, s in zip(grids, shifts.tolist(), strict=True)])
    assert actual.shape == expected.shape == (6, *size)
    assert np.abs(actual.numpy() - expected).max() < 1e-6


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_masks_of_any_size(size, grid, seed) -> None:
    masks = RiseMasks(size, grid, 0.5, seed, CPU)
    grids = (torch.rand(2, *grid, generator=torch.Generator().manual_seed(seed)) < 0.5).float()
    shifts = torch.tensor([[seed % cell for cell in masks.cell]] * 2)
    actual = masks.enlarged(grids, shifts).numpy()
    expected = np.stack([oracle.rise_mask(g, s, size) for g, s in zip(grids.numpy(), shifts.tolist(), strict=True)])
    assert np.abs(actual - expected).max() < 1e-6
    assert actual.min() >= 0.0
    assert actual.max() <= 1.0 + 1e-6


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_cells_are_kept_with_their_probability_and_shifts_are_even(keep) -> None:
    masks = drawn((40, 40), (8, 8), 2000, keep=keep)
    assert float(masks.mean()) == pytest.approx(keep, abs=0.01)
    # Shifts from 0 to 4 all occur: no place of the picture is always in the middle of a cell.
    spread = masks.std(0)
    assert float(spread.max() / spread.min()) < 1.3


def test_masks_do_not_depend_on_how_many_are_taken_at_once() -> None:
    whole = drawn((20, 24), (4, 4), 700)
    source = RiseMasks((20, 24), (4, 4), 0.5, 0, CPU)
    parts = [source.next(count) for count in (1, 255, 256, 3, 185)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(drawn((20, 24), (4, 4), 5), whole[:5])
    assert not torch.equal(drawn((20, 24), (4, 4), 5, seed=1), whole[:5])


# Maps.


@DIMS
@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("baseline", [0.0, "blur"])
def test_by_definition(baseline, output, dims) -> None:
    net, x = tiny_net(dims, dtype=torch.float64), batch_for(dims, dtype=torch.float64)
    explanation = rise(net, x, baseline=baseline, output=output, grid=4, keep=0.4)
    masks = drawn(SPATIAL[dims], (4,) * dims, 30, keep=0.4).double().numpy()
    hidden = mg.baseline.make_baseline(baseline, x).numpy()
    for i, target in enumerate(TARGETS):
        score = score_of(net, target, output)
        expected = torch.tensor(oracle.rise_map(score, x[i].numpy(), hidden[i], masks, 0.4))
        assert relative_deviation(explanation.heatmap[i], expected) < 1e-6
    assert explanation.target.tolist() == TARGETS
    assert explanation.details["passes"].tolist() == [31, 31]


def test_the_recipe_of_the_paper_is_the_default() -> None:
    explain = mg.explainer("rise", tiny_net())
    assert (explain.n_samples, explain.grid, explain.keep, explain.output) == (4000, 8, 0.5, "probability")
    assert (explain.baseline, explain.stop_at) == (0.0, None)


@pytest.mark.parametrize(("grid", "cells"), [((2, 3, 5), (2, 3, 5)), (8, (4, 8, 8)), (1, (1, 1, 1))], ids=str)
def test_grids_of_clips(grid, cells) -> None:
    net, x = tiny_net(3, dtype=torch.float64), batch_for(3, batch=1, dtype=torch.float64)
    actual = rise(net, x, 2, n_samples=12, grid=grid).heatmap[0]
    masks = drawn(SPATIAL[3], cells, 12).double().numpy()
    expected = oracle.rise_map(score_of(net, 2), x[0].numpy(), np.zeros(x[0].shape), masks, 0.5)
    assert relative_deviation(actual, torch.tensor(expected)) < 1e-6


def bright_spot(x):
    """Says class 0 as far as a spot of the picture is shown."""
    spot = x[:, 0, 4:10, 20:28].mean((1, 2))
    return torch.stack([6 * spot, torch.zeros_like(spot)], 1)


def test_it_finds_what_the_network_looks_at() -> None:
    heat = rise(bright_spot, torch.ones(1, 1, 24, 32), 0, n_samples=1000).heatmap[0]
    inside = torch.zeros(24, 32, dtype=torch.bool)
    inside[4:10, 20:28] = True
    assert heat[inside].min() > heat[~inside].median()
    assert inside.flatten()[heat.argmax()]


def test_batches_round_differently_but_runs_do_not() -> None:
    net, x = tiny_net(), batch_for(batch=3)
    base = rise(net, x, 1, n_samples=70)
    assert torch.equal(rise(net, x, 1, n_samples=70).heatmap, base.heatmap)
    assert not torch.equal(rise(net, x, 1, n_samples=70, seed=1).heatmap, base.heatmap)
    for batch_size in (1, 7, 1000):
        assert relative_deviation(rise(net, x, 1, n_samples=70, batch_size=batch_size).heatmap, base.heatmap) < 1e-6
    for i in range(3):
        assert relative_deviation(rise(net, x[[i]], 1, n_samples=70).heatmap, base.heatmap[[i]]) < 1e-6


def test_targets_share_passes() -> None:
    model, x = Counting(tiny_net()), batch_for()
    explain = mg.explainer("rise", model, n_samples=25)
    targets = [1, [3, 0], None, lambda out: out.softmax(1)[:, 4]]
    together = explain.several(x, targets[:3])
    assert model.samples == 2 * 26
    for target, explanation in zip(targets, explain.several(x, targets), strict=True):
        alone = explain(x, target)
        assert relative_deviation(explanation.heatmap, alone.heatmap) < 1e-6
        assert explanation.details["passes"].tolist() == [26, 26]
    assert together[2].target.tolist() == tiny_net()(x).argmax(1).tolist()
    assert torch.equal(explain.several(x, [4])[0].heatmap, explain(x, 4).heatmap)
    assert relative_deviation(explain(x, targets[3]).heatmap, explain(x, 4).heatmap) < 1e-6


def test_masks_and_sums_are_exact_under_autocast() -> None:
    x = torch.ones(1, 1, 24, 32)
    base = rise(bright_spot, x, 0, stop_at=0.9, n_samples=200)
    with torch.autocast("cpu", torch.bfloat16):
        made = rise(bright_spot, x, 0, stop_at=0.9, n_samples=200)
    assert relative_deviation(made.heatmap, base.heatmap) < 1e-6


# Early stopping.


@pytest.mark.parametrize("target", [0, lambda out: out.softmax(1)[:, 0]], ids=["class", "callable"])
def test_a_sample_stops_once_its_map_has_settled(target) -> None:
    x = torch.stack([torch.ones(1, 24, 32), torch.zeros(1, 24, 32)])
    model = Counting(tiny_net(channels=1))
    explain = mg.explainer("rise", model, n_samples=2000, stop_at=0.9)
    made = explain(x, target)
    used = (made.details["passes"] - 1).tolist()
    assert all(count % 100 == 0 for count in used)
    assert min(used) >= 300  # Three maps that agree twice.
    assert max(used) < 2000
    for i, count in enumerate(used):
        exact = mg.explainer("rise", model, n_samples=count)(x[[i]], 0)
        assert relative_deviation(made.heatmap[[i]], exact.heatmap) < 1e-6


def test_samples_stop_on_their_own() -> None:
    def model(x):
        """Tells much about bright pictures and nothing certain about others, which say the same behind all masks."""
        spot = x[:, 0, 4:10, 20:28].mean((1, 2))
        return torch.stack([6 * spot, torch.zeros_like(spot)], 1)

    x = torch.stack([torch.ones(1, 24, 32), torch.full((1, 24, 32), 0.2)])
    explain = mg.explainer("rise", model, n_samples=3000, stop_at=0.98)
    together = explain.several(x, [0, 1])
    assert len({tuple(one.details["passes"].tolist()) for one in together}) == 2
    for target, one in enumerate(together):
        for i in range(2):
            alone = explain(x[[i]], target)
            assert alone.details["passes"].tolist() == one.details["passes"][[i]].tolist()
            assert relative_deviation(one.heatmap[[i]], alone.heatmap) < 1e-6


def test_settled_samples_cost_nothing_more() -> None:
    model = Counting(bright_spot)
    x = torch.stack([torch.ones(1, 24, 32), torch.full((1, 24, 32), 0.2)])
    made = mg.explainer("rise", model, n_samples=3000, stop_at=0.97)(x, 0)
    assert len(set(made.details["passes"].tolist())) == 2
    assert model.samples == int(made.details["passes"].sum())


# Odd inputs.


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (7, 7)], ids=str)
def test_small_pictures(size) -> None:
    heat = rise(lambda x: x.flatten(2).mean(2), batch_for(size=size), 1, n_samples=40).heatmap
    assert heat.shape == (2, *size)
    assert heat.isfinite().all()


def test_a_model_that_says_the_same_of_everything() -> None:
    constant = torch.tensor([[1.0, 2.0, 0.5]])
    made = rise(lambda x: constant.expand(len(x), -1), batch_for(), 1, n_samples=200, output="logit")
    masks = drawn((24, 32), (8, 8), 200)
    assert relative_deviation(made.heatmap[0], 2.0 * masks.mean(0) / 0.5) < 1e-6


def test_masks_are_not_held_all_at_once(monkeypatch) -> None:
    counts = []
    original = RiseMasks.next
    monkeypatch.setattr(RiseMasks, "next", lambda self, count: counts.append(count) or original(self, count))
    model = lambda x: x.mean((2, 3))  # noqa: E731
    mg.explainer("rise", model, n_samples=20, batch_size=3)(torch.rand(1, 3, 1000, 1100), 0)
    assert counts == [3, 3, 3, 3, 3, 3, 2]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_samples": 0}, ValueError, "n_samples: expected 1 or more, got 0"),
        ({"n_samples": 10.0}, TypeError, "n_samples: expected an int, got float"),
        ({"grid": 0}, ValueError, "grid: expected 1 or more, got 0"),
        ({"grid": (8, 0)}, ValueError, "grid: expected 1 or more, got 0"),
        ({"grid": (8,)}, ValueError, r"grid: expected an int, \(rows, columns\)"),
        ({"grid": "8"}, TypeError, "grid: expected an int, got str"),
        ({"keep": 0}, ValueError, "keep: expected a positive finite number, got 0"),
        ({"keep": 1.5}, ValueError, "keep: expected 0 < keep <= 1, got 1.5"),
        ({"keep": None}, TypeError, "keep: expected a number, got NoneType"),
        ({"output": "softmax"}, ValueError, "output: expected one of probability, logit, got 'softmax'"),
        ({"stop_at": 1.5}, ValueError, r"stop_at: expected None or a rank correlation in 0 \.\. 1, got 1.5"),
        ({"stop_at": "high"}, TypeError, "stop_at: expected None or a rank correlation, got str"),
        ({"batch_size": 0}, ValueError, "batch_size: expected 1 or more, got 0"),
        ({"seed": -1}, ValueError, "seed: expected 0"),
        ({"progress": 1}, TypeError, "progress: expected a bool, got int"),
        ({"samples": 3}, TypeError, "'rise' has no option samples"),
    ],
)
def test_bad_options(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer("rise", tiny_net(), **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"grid": (4, 8, 8)}, r"grid: expected one int per spatial axis \(2\), got 3"),
        ({"grid": (25, 8)}, r"grid: expected no more cells than pixels along an axis, \[24, 32\], got \[25, 8\]"),
        (
            {"baseline": "grey"},
            "baseline: expected a number, mean, blur, noise, median, black, white or a tensor, got 'grey'",
        ),
    ],
)
def test_what_does_not_fit_the_input(options, match) -> None:
    with pytest.raises(ValueError, match=match):
        rise(tiny_net(), batch_for(), **options)


def test_no_targets() -> None:
    with pytest.raises(ValueError, match="targets: expected at least one target"):
        mg.explainer("rise", tiny_net()).several(batch_for(), [])


def test_a_model_that_fails_behind_a_mask() -> None:
    def model(x):
        return torch.where(x[:, :2, 0, 0] == 0, torch.nan, 1.0)

    with pytest.raises(ValueError, match="NaN or infinite"):
        rise(model, torch.ones(1, 3, 16, 16), 0, grid=1, keep=0.1)


def test_a_bar(capfd, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    rise(tiny_net(), batch_for())
    assert capfd.readouterr() == ("", "")
    rise(tiny_net(), batch_for(), progress=True)
    assert "masking at random" in capfd.readouterr().err
