"""Filter statistics: exact arithmetic's values, merging, percentiles."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import midgrain as mg
from cam_nets import curved_net
from midgrain.failures import FilterStatistics, filter_scores, images_needed
from midgrain.failures.class_table import ClassTable
from midgrain.failures.exact_sums import ExactSums
from models_for_tests import one_thread as one_thread
from oracles.filter_statistics import mean_and_variance, top
from statistics_for_tests import CLASSES, FILTERS, data, loader, same


@pytest.mark.parametrize("measure", ["grad-amap", "l1", "taylor", "random"])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_figure_is_that_of_the_scores(measure, dims) -> None:
    net, (x, y) = curved_net(dims), data(dims=dims)
    stats = FilterStatistics.fit(net, loader(x, y), measure=measure, keep=3)
    scores = torch.cat([filter_scores(net, a, b, measure) for a, b in loader(x, y)]).numpy()
    assert (stats.n_classes, stats.n_filters, stats.layer) == (CLASSES, FILTERS, "3")
    assert stats.count.tolist() == [5, 3, 2, 1, 0]
    assert stats.mean.shape == stats.variance.shape == (CLASSES, FILTERS)
    assert stats.mean.dtype == torch.float64
    assert stats.mean[4].isnan().all()
    assert stats.exact
    assert stats.rank_error == 0.0
    for number in range(4):
        mine = scores[(y == number).numpy()]
        mean, variance = mean_and_variance(mine)
        np.testing.assert_array_equal(stats.mean[number], mean)
        np.testing.assert_allclose(stats.variance[number], variance, rtol=1e-15, atol=0)
        for q in (0, 12.5, 37, 50, 90, 100):
            if len(mine) >= images_needed(q):
                expected = np.percentile(mine.astype(np.float64), q, axis=0)
                np.testing.assert_array_equal(stats.percentile(q, number), expected)
        ids = np.flatnonzero(y == number).tolist()
        for place in range(FILTERS):
            assert stats.top_images(number, place) == top(mine[:, place], ids, 3)
            assert stats.top_images(number, place, 1) == top(mine[:, place], ids, 1)


def test_batches_and_their_order_do_not_matter() -> None:
    net, (x, y) = curved_net(), data()
    ids = list(range(100, 100 + len(x)))
    # One image at a time, so that the network rounds alike.
    whole = loader(x, y, 1, ids)
    first = FilterStatistics.fit(net, whole)
    mixed = whole[:]
    random.Random(0).shuffle(mixed)
    same(first, FilterStatistics.fit(net, mixed))
    table = ClassTable(CLASSES, FILTERS, 8, 2**30)
    table.add(y.numpy(), np.concatenate([filter_scores(net, a, b).numpy() for a, b, _ in whole]), np.array(ids))
    same(first, FilterStatistics(first._settings, table))


@settings(deadline=None, max_examples=40)
@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=5),
)
def test_sums_do_not_depend_on_order_or_batches(values, cuts) -> None:
    rows = np.array(values, np.float32)[:, None]
    mean, variance = mean_and_variance(rows)
    parts = np.split(rows, sorted(cuts))
    forward, backward = ExactSums(1), ExactSums(1)
    for part in parts:
        forward.add(part)
    for part in reversed(parts):
        other = ExactSums(1)
        other.add(part[::-1])
        backward.merge(other)
    for sums in (forward, backward):
        assert sums.mean()[0] == mean[0]
        np.testing.assert_allclose(sums.variance(), variance, rtol=1e-13, atol=1e-20 * np.abs(rows).max() ** 2)
    assert forward.variance()[0] == backward.variance()[0]


def test_a_small_variance_beside_a_large_mean() -> None:
    rows = (np.float32(2.0**20) + np.arange(8, dtype=np.float32) / 8)[:, None]
    sums = ExactSums(1)
    sums.add(rows)
    assert sums.variance()[0] == np.var(np.arange(8) / 8)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 2.0, 3.0]), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(0, 10**6),
)
def test_extremes_agree_with_all_values(values, keep, seed) -> None:
    rows = np.array(values, np.float32)[:, None]
    table = ClassTable(1, 1, keep, 2**20)
    places = np.random.default_rng(seed).permutation(len(rows))
    for some in np.array_split(places, 3):
        if len(some):
            table.add(np.zeros(len(some), np.int64), rows[some], some)
    each = table.by_class[0]
    expected = top(rows[:, 0], range(len(rows)), keep)
    found = [(i, v) for i, v in zip(each.high_images[0].tolist(), each.high[0].tolist(), strict=True) if i >= 0]
    assert found == expected
    exact = [each.percentile(q) for q in (0, 1, 10, 50, 90, 99, 100)]
    each.between = None
    for q, wanted in zip((0, 1, 10, 50, 90, 99, 100), exact, strict=True):
        assert wanted == np.percentile(rows.astype(np.float64), q, axis=0)
        assert each.percentile(q) is None or each.percentile(q) == wanted
    assert each.percentile(100) == rows.max()


def test_halves_merged_are_the_whole() -> None:
    net, (x, y) = curved_net(), data()
    whole = FilterStatistics.fit(net, loader(x, y, 1))
    first = FilterStatistics.fit(net, loader(x, y, 1, end=4))
    second = FilterStatistics.fit(net, loader(x, y, 1, start=4, end=7), first_id=4)
    third = FilterStatistics.fit(net, loader(x, y, 1, start=7), first_id=7)
    kept = first.mean.clone()
    same(first.merge(second, third), whole)
    same(third.merge(first).merge(second), whole)
    assert torch.equal(first.mean.nan_to_num(), kept.nan_to_num())
    assert first.merge() is first


def test_images_with_names() -> None:
    net, (x, y) = curved_net(), data()
    ids = [f"{'abcdefghijk'[place]}.png" for place in range(len(x))]
    whole = FilterStatistics.fit(net, loader(x, y, 1, ids))
    numbered = FilterStatistics.fit(net, loader(x, y, 1))
    assert whole.top_images(0, 2) == [(ids[number], value) for number, value in numbered.top_images(0, 2)]
    parts = [FilterStatistics.fit(net, loader(x, y, 1, ids, *ends)) for ends in ((0, 4), (4, 11))]
    same(parts[0].merge(parts[1]), whole)
    with pytest.raises(ValueError, match=r"other: image\(s\) .*png.* are in both"):
        whole.merge(parts[0])
    with pytest.raises(ValueError, match="other: expected ids of one kind"):
        whole.merge(numbered)


def test_the_same_images_twice_are_refused() -> None:
    net, (x, y) = curved_net(), data()
    stats = FilterStatistics.fit(net, loader(x, y))
    with pytest.raises(ValueError, match=r"other: both have images numbered 0 .. 10; give the samples ids"):
        stats.merge(stats)
    named = FilterStatistics.fit(net, loader(x, y, ids=list(range(len(x)))))
    with pytest.raises(ValueError, match=r"other: image\(s\) 0, 2, 5, 8, 10 of class 0 are in both"):
        named.merge(named)


def test_what_does_not_belong_together_is_not_merged() -> None:
    net, (x, y) = curved_net(), data()
    stats = FilterStatistics.fit(net, loader(x, y))
    options = {"first_id": 100}
    for other, said in (
        (FilterStatistics.fit(curved_net(hidden=4), loader(x, y), **options), "model was"),
        (FilterStatistics.fit(net, loader(x, y), layer="4", **options), "layer was 3 and is 4"),
        (FilterStatistics.fit(net, loader(x, y), measure="l1", **options), "measure was grad-amap and is l1"),
        (FilterStatistics.fit(net, loader(x, y), keep=2, **options), "keep was 8 and is 2"),
    ):
        with pytest.raises(ValueError, match=f"other: expected statistics of the same network.* {said}"):
            stats.merge(other)
    with pytest.raises(TypeError, match="other: expected FilterStatistics, got dict"):
        stats.merge({})


def test_percentiles_that_a_class_is_too_small_for() -> None:
    net, (x, y) = curved_net(), data()
    stats = FilterStatistics.fit(net, loader(x, y))
    assert [images_needed(q) for q in (0.1, 99.9, 1, 99, 50, 0, 100)] == [1000, 1000, 100, 100, 2, 1, 1]
    with pytest.raises(ValueError, match=r"q: percentile 99.9 needs 1000 images of a class; there are 5 of class 0"):
        stats.percentile(99.9, 0)
    with pytest.raises(ValueError, match=r"q: percentile 75 needs 4 images .* 3 of class 1, 2 of class 2"):
        stats.percentile(75)
    assert stats.percentile(99.9, 0, few="nan").isnan().all()
    assert torch.equal(stats.percentile(99.9, 0, few="extreme"), stats.percentile(100, 0))
    assert torch.equal(stats.percentile(0.1, [0, 1], few="extreme"), stats.percentile(0, [0, 1]))
    every = stats.percentile(80, few="nan")
    assert every.shape == (CLASSES, FILTERS)
    assert [bool(row.isnan().all()) for row in every] == [False, True, True, True, True]


def test_it_is_public() -> None:
    assert mg.failures.FilterStatistics is FilterStatistics
