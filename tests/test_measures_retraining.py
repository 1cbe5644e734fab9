"""Remove and retrain: what is removed, who is trained, what the accuracies say, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import midgrain as mg
from midgrain.measures.retraining import without_top_pixels
from models_for_tests import seeded


def nearest_mean(x, y, seed):
    """A classifier that is trained in one line."""
    means = torch.stack([x[y == c].flatten(1).mean(0) for c in range(2)])
    return lambda pictures: -torch.cdist(pictures.flatten(1), means)


def dots(n=80, seed=0):
    """Noise with a bright dot at one of two places, the classes; and heat maps that know the places."""

    def build():
        y = torch.arange(n) % 2
        x = 0.2 * torch.randn(n, 3, 6, 6)
        heatmap = torch.rand(n, 6, 6)
        x[torch.arange(n), :, 1 + 3 * y, 2] += 3.0
        heatmap[:, 1, 2] += 2.0
        heatmap[:, 4, 2] += 2.0
        return x, y, heatmap

    return seeded(build, seed)


def test_good_maps_cost_accuracy_and_bad_ones_do_not() -> None:
    train, test = dots(), dots(seed=1)
    good = mg.measures.roar(nearest_mean, train, test, shares=(0, 0.1, 0.5), repeats=2)
    bad = mg.measures.roar(
        nearest_mean, (*train[:2], -train[2]), (*test[:2], -test[2]), shares=(0, 0.1, 0.5), repeats=2
    )
    assert good.accuracy.shape == (3, 2)
    assert (good.accuracy[0] == 1).all()
    assert (good.accuracy[1:] < 0.75).all()
    assert (bad.accuracy == 1).all()
    assert bad.auc == pytest.approx(1.0)
    assert good.value == pytest.approx(np.trapezoid(good.accuracy.mean(1), [0, 0.1, 0.5]) / 0.5)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
def test_the_top_pixels_become_the_colour(share) -> None:
    x, _, heatmap = dots(4)
    colour = torch.tensor([1.0, 2.0, 3.0])
    changed = without_top_pixels(x, heatmap, share, colour)
    count = round(share * 36)
    for picture, before, own in zip(changed, x, heatmap, strict=True):
        gone = own >= own.flatten().sort(descending=True).values[count - 1] if count else torch.zeros(6, 6).bool()
        assert int(gone.sum()) == count
        assert torch.equal(picture, torch.where(gone, colour[:, None, None], before))


def test_networks_get_the_mean_colour_their_seeds_and_copies() -> None:
    train, test = dots(), dots(seed=1)
    seen = []

    def fit(x, y, seed):
        seen.append((seed, x.clone()))
        x.zero_(), y.zero_()
        return lambda pictures: torch.stack([pictures.mean((1, 2, 3)), torch.zeros(len(pictures))], 1)

    before = [each.clone() for each in (*train, *test)]
    mg.measures.roar(fit, train, test, shares=(0.0, 0.5), repeats=3, seed=7)
    assert [seed for seed, _ in seen] == [7, 8, 9] * 2
    assert torch.equal(seen[0][1], before[0])
    assert torch.equal(seen[3][1], seen[5][1])
    removed = seen[3][1] != before[0]
    assert removed[:, 0].flatten(1).sum(1).tolist() == [18] * 80
    mean = before[0].mean((0, 2, 3))
    torch.testing.assert_close(seen[3][1][removed], mean[:, None, None].expand(80, 3, 6, 6)[removed])
    assert all(torch.equal(a, b) for a, b in zip((*train, *test), before, strict=True))


def test_clips() -> None:
    x, y, heatmap = dots()
    clip, maps = x[:, :, None].expand(-1, -1, 2, -1, -1), heatmap[:, None].expand(-1, 2, -1, -1)
    result = mg.measures.roar(nearest_mean, (clip, y, maps), (clip, y, maps), shares=(0, 0.3), repeats=1, batch_size=7)
    assert result.accuracy[0, 0] == 1 > result.accuracy[1, 0]


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"fit": None}, TypeError, "fit: expected a callable"),
        ({"train": dots()[:2]}, TypeError, r"train: expected \(x, y, heatmap\)"),
        ({"test": (dots()[0], dots()[1].float(), dots()[2])}, TypeError, "test: expected classes as an int64 tensor"),
        ({"test": (dots()[0], dots()[1][:3], dots()[2])}, ValueError, "test: expected one class for each of 80"),
        ({"train": (*dots()[:2], dots()[2][:, 1:])}, ValueError, "train's heatmap: expected shape"),
        ({"shares": ()}, TypeError, "shares: expected numbers from 0"),
        ({"shares": (0.5, 0.1)}, ValueError, "shares: expected numbers from 0 to below 1, ascending"),
        ({"shares": (0.5, 1.0)}, ValueError, "shares: expected numbers from 0 to below 1"),
        ({"repeats": 0}, ValueError, "repeats: expected 1 or more, got 0"),
    ],
)
def test_bad_arguments(change, error, match) -> None:
    arguments = {"fit": nearest_mean, "train": dots(), "test": dots(), "shares": (0, 0.5), "repeats": 1} | change
    with pytest.raises(error, match=match):
        mg.measures.roar(**arguments)
