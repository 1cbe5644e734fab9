"""Filter statistics where memory is short: extremes alone, sketches of quantiles."""

from __future__ import annotations

import importlib.util
import pickle
import re
import warnings

import numpy as np
import pytest

from cam_nets import curved_net
from midgrain.failures import FilterStatistics
from midgrain.failures.class_table import ClassTable
from midgrain.failures.quantiles import Sketches, largest_sketch
from models_for_tests import one_thread as one_thread
from models_for_tests import seeded
from statistics_for_tests import CLASSES, FILTERS, data, loader, same

needs_datasketches = pytest.mark.skipif(
    importlib.util.find_spec("datasketches") is None, reason="needs datasketches (extra 'failures')"
)


def filled(table, images, seed=0, classes=2):
    values = np.random.default_rng(seed).standard_normal((images, table.filters)).astype(np.float32)
    for rows in np.array_split(np.arange(images), max(1, images // 100)):
        table.add(rows % classes, values[rows], rows)
    return values


def test_without_room_only_the_extremes_stay() -> None:
    table = ClassTable(2, 3, 4, memory=1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values = filled(table, 400)
    assert [re.sub(r"and .*;", "...", str(each.message)) for each in caught] == [
        "memory: the values no longer fit into 1000 bytes, ... percentiles between the 4 least and greatest values of "
        "a filter are given up"
    ]
    assert table.between == "none"
    each = table.by_class[0]
    expected = np.percentile(values[::2].astype(np.float64), [0.5, 99, 50], axis=0)
    np.testing.assert_array_equal(each.percentile(0.5), expected[0])
    np.testing.assert_array_equal(each.percentile(99), expected[1])
    assert each.percentile(50) is None
    assert table.nbytes == 2 * 3 * (32 + 16 * 4)
    net, (x, y) = curved_net(), data()
    with pytest.warns(UserWarning, match="memory: the values no longer fit into 0 bytes"):
        stats = FilterStatistics.fit(net, loader(x, y), keep=1, memory=0)
    assert not stats.exact
    assert np.isnan(stats.rank_error)
    with pytest.raises(ValueError, match="q: percentile 50 of class 0 lies between the 1 least and greatest values"):
        stats.percentile(50, 0)
    exact = FilterStatistics.fit(net, loader(x, y), keep=1, first_id=100)
    assert not exact.merge(stats).exact


@needs_datasketches
def test_sketches_keep_their_promises(tmp_path) -> None:
    memory = 2 * 3 * (700 + 14 * 60)
    table = ClassTable(2, 3, 4, memory)
    values = filled(table, 20000)
    assert table.between == "sketches"
    assert table.sketch_size == 60
    assert table.nbytes <= memory + 2 * 3 * (32 + 16 * 4)
    each = table.by_class[1]
    assert isinstance(each.between, Sketches)
    error = each.between.rank_error
    assert 0.02 < error < 0.06
    mine = np.sort(values[1::2], axis=0)
    for q in (5, 25, 50, 90):
        for place, value in enumerate(each.percentile(q)):
            assert abs(np.searchsorted(mine[:, place], value) / len(mine) - q / 100) <= 1.5 * error
    np.testing.assert_array_equal(each.percentile(99.99), np.percentile(mine.astype(np.float64), 99.99, axis=0))


@needs_datasketches
def test_sketches_merge_and_are_saved(tmp_path) -> None:
    net, (x, y) = seeded(lambda: curved_net()), data()
    needed = CLASSES * FILTERS * (700 + 14 * 20)
    stats = FilterStatistics.fit(net, loader(x, y), keep=1, memory=needed)
    assert stats.exact
    settings_ = stats._settings
    parts = []
    for seed in (0, 1):
        table = ClassTable(CLASSES, FILTERS, 2, needed)
        values = filled(table, 4000, seed)
        for each in table.by_class.values():
            each.high_images += seed * 4000
        parts.append((FilterStatistics(settings_ | {"keep": 2}, table), values))
    merged = parts[0][0].merge(parts[1][0])
    assert not merged.exact
    assert 0 < merged.rank_error < 0.2
    assert merged.count.tolist() == [4000, 4000, 0, 0, 0]
    both = np.sort(np.concatenate([values[::2] for _, values in parts]), axis=0)
    ranks = [np.searchsorted(both[:, k], float(v)) / len(both) for k, v in enumerate(merged.percentile(50, 0))]
    np.testing.assert_allclose(ranks, 0.5, atol=1.5 * merged.rank_error)
    np.testing.assert_array_equal(merged.percentile(99.99, 0, few="extreme"), both[-1])
    merged.save(tmp_path / "stats.npz")
    back = FilterStatistics.load(tmp_path / "stats.npz")
    same(back, merged)
    same(pickle.loads(pickle.dumps(merged)), merged)
    table = ClassTable(CLASSES, FILTERS, 2, 2**30)
    filled(table, 50, 5)
    for each in table.by_class.values():
        each.high_images += 8000
    few = FilterStatistics(settings_ | {"keep": 2}, table)
    assert few.exact
    assert few.merge(back).count.tolist() == back.merge(few).count.tolist() == [4025, 4025, 0, 0, 0]


def test_sizes_of_sketches() -> None:
    assert largest_sketch(10, 10 * (700 + 14 * 8)) == 8
    assert largest_sketch(10, 10 * (700 + 14 * 8) - 1) is None
    assert largest_sketch(10, 2**40) == 200
    assert largest_sketch(1000 * 2048, 4 * 2**30) == 99  # ImageNet, ResNet-50, the default


def test_memory_of_imagenet_as_stated() -> None:
    # One class of 2048 filters, its values given up, times 1000: the 0.33 GB of the documentation.
    table = ClassTable(1000, 2048, 8, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table.add(np.zeros(2, np.int64), np.zeros((2, 2048), np.float32), np.arange(2))
    each = table.by_class[0]
    held = sum(part.nbytes for part in (each.sums.parts, each.high, each.high_images, each.low))
    assert each.between is None or isinstance(each.between, Sketches)
    assert 1000 * held == 1000 * 2048 * (32 + 16 * 8) == 327_680_000
    assert "0.33 GB" in (FilterStatistics.__doc__ or "")
