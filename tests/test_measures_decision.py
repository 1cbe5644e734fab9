"""How much can go until the decision changes: the oracle's shares, ties, superpixels, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import midgrain as mg
from cam_nets import Counting
from models_for_tests import batch_for, one_thread, seeded, tiny_net  # noqa: F401
from oracles.measures import first_change, without

MEASURES = ("n_morf", "n_lerf")


def distinct(x, seed=0):
    return seeded(lambda: torch.stack([torch.randperm(x[0, 0].numel()) for _ in x]), seed).reshape(len(x), *x.shape[2:])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("steps", [1, 7, 40])
@pytest.mark.parametrize("name", MEASURES)
def test_the_oracle(name, steps, dims) -> None:
    net, x = tiny_net(dims), batch_for(dims, 4)
    heatmap = distinct(x).float()
    result = getattr(mg.measures, name)(net, x, heatmap, steps=steps, baseline=0.5)
    pixels = x[0, 0].numel()
    for index, target in enumerate(net(x).argmax(1).tolist()):
        picture, values = x[index].numpy(), heatmap[index].numpy()
        counts = [(2 * step * pixels + steps) // (2 * steps) for step in range(steps + 1)]
        states = [
            (c / pixels, without(picture, np.full_like(picture, 0.5), values, c, least_first=name == "n_lerf"))
            for c in counts
        ]
        assert float(result.value[index]) == pytest.approx(first_change(net, target, states))
        assert bool(result.changed[index]) == (first_change(net, target, [(-1, p) for _, p in states]) == -1)
    assert result.target.tolist() == net(x).argmax(1).tolist()


def test_integers_are_ordered_too() -> None:
    net, x = tiny_net(), batch_for()
    heatmap = distinct(x)
    for name in MEASURES:
        measure = getattr(mg.measures, name)
        assert torch.equal(measure(net, x, heatmap).value, measure(net, x, heatmap.double()).value)
        assert torch.equal(
            measure(net, x, (heatmap % 256).to(torch.uint8)).value, measure(net, x, (heatmap % 256).float()).value
        )


@pytest.mark.parametrize("batch_size", [1, 3, 200])
def test_batches_do_not_matter(batch_size) -> None:
    net, x = tiny_net(), batch_for(batch=3)
    heatmap = distinct(x).float()
    for name in MEASURES:
        measure = getattr(mg.measures, name)
        assert torch.equal(measure(net, x, heatmap, batch_size=batch_size).value, measure(net, x, heatmap).value)


def test_the_passes_end_where_the_decision_changes() -> None:
    net, x = Counting(tiny_net()), batch_for(batch=1)
    result = mg.measures.n_morf(net, x, distinct(x).float(), batch_size=1)
    assert 0 < float(result.value) < 1
    assert net.samples == 1 + round(float(result.value) * 100) + 1


def test_a_class_that_is_not_decided_for_needs_nothing_removed() -> None:
    net, x = tiny_net(), batch_for()
    other = (net(x).argmax(1) + 1) % 5
    result = mg.measures.n_morf(net, x, distinct(x).float(), target=other)
    assert result.value.tolist() == [0.0, 0.0]
    assert result.changed.all()


def test_a_network_that_never_changes_its_mind() -> None:
    constant = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 24 * 32, 2))
    torch.nn.init.zeros_(constant[1].weight)
    result = mg.measures.n_lerf(constant, batch_for(), distinct(batch_for()).float())
    assert result.value.tolist() == [1.0, 1.0]
    assert not result.changed.any()


def test_groups_of_one_value_go_whole() -> None:
    net, x = tiny_net(), batch_for(batch=3)
    heatmap = torch.zeros(3, 24, 32)
    heatmap[:, :12] = 1.0
    shares = mg.measures.n_morf(net, x, heatmap).value.tolist()
    assert set(shares) <= {0.5, 1.0}
    divided = [mg.measures.n_morf(net, x, heatmap, ties="random", seed=seed).value for seed in (3, 3, 4)]
    assert torch.equal(divided[0], divided[1])
    assert not torch.equal(divided[0], divided[2])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("order", ["best", "worst"])
def test_superpixels(order, dims) -> None:
    net, x = tiny_net(dims), batch_for(dims, 3)
    explained = mg.SWAG(net, n_segments=12)(x)
    result = mg.measures.superpixel_removal(net, x, explained.segments, explained.scores, order=order)
    for index, target in enumerate(net(x).argmax(1).tolist()):
        count = int(explained.counts[index])
        scores, labels = explained.scores[index, :count].numpy(), explained.segments[index].numpy()
        ranked = np.argsort(scores)[:: -1 if order == "best" else 1]
        pictures = [np.where(np.isin(labels, ranked[:n])[None], 0, x[index].numpy()) for n in range(count + 1)]
        states = [(n / count, picture) for n, picture in enumerate(pictures)]
        assert float(result.value[index]) == pytest.approx(first_change(net, target, states))


def test_superpixels_with_one_score_go_in_an_order_of_the_seed() -> None:
    net, x = tiny_net(), batch_for(batch=4)
    segments = mg.SWAG(net, n_segments=40)(x).segments
    scores = torch.zeros(4, int(segments.max()) + 1)
    found = [mg.measures.superpixel_removal(net, x, segments, scores, seed=seed).value for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("name", MEASURES)
def test_a_callable_target_is_refused(name) -> None:
    with pytest.raises(TypeError, match="target: expected a class or one per sample, got a callable"):
        getattr(mg.measures, name)(tiny_net(), batch_for(), torch.rand(2, 24, 32), lambda outputs: outputs[:, 0])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"steps": 0}, ValueError, r"steps: expected 1 \.\. 768, got 0"),
        ({"steps": 2.0}, TypeError, "steps: expected an int, got float"),
        ({"ties": "raster"}, ValueError, "ties: expected 'together' or 'random', got 'raster'"),
        ({"baseline": "grey"}, ValueError, "baseline: expected a number"),
        ({"batch_size": 0}, ValueError, "batch_size: expected 1 or more, got 0"),
        ({"target": 5}, ValueError, r"target: expected classes in 0 \.\. 4, got 5"),
    ],
)
@pytest.mark.parametrize("name", MEASURES)
def test_bad_options(name, options, error, match) -> None:
    with pytest.raises(error, match=match):
        getattr(mg.measures, name)(tiny_net(), batch_for(), torch.rand(2, 24, 32), **options)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"order": "first"}, ValueError, "order: expected 'best' or 'worst', got 'first'"),
        ({"order": 1}, TypeError, "order: expected 'best' or 'worst', got int"),
        ({"segments": torch.zeros(2, 24, 32)}, TypeError, "segments: expected a tensor of integers, got torch.float32"),
        (
            {"segments": torch.zeros(2, 24, 31, dtype=torch.int32)},
            ValueError,
            r"segments: expected shape \[2, 24, 32\]",
        ),
        ({"scores": torch.zeros(3, 4)}, ValueError, r"scores: expected shape \[2, superpixels\], got \[3, 4\]"),
        ({"scores": torch.zeros(2, 4, dtype=torch.int64)}, TypeError, "scores: expected a tensor of floats"),
        ({"scores": torch.full((2, 4), torch.nan)}, ValueError, "scores: expected a finite score for every superpixel"),
        ({"segments": torch.full((2, 24, 32), 4)}, ValueError, r"expected labels in 0 \.\. 3, .* got 4 \.\. 4"),
        ({"segments": torch.full((2, 24, 32), -1)}, ValueError, r"expected labels in 0 \.\. 3, .* got -1 \.\. -1"),
    ],
)
def test_bad_superpixels(changes, error, match) -> None:
    arguments = {"segments": torch.zeros(2, 24, 32, dtype=torch.int32), "scores": torch.zeros(2, 4)} | changes
    with pytest.raises(error, match=match):
        mg.measures.superpixel_removal(tiny_net(), batch_for(), **arguments)
