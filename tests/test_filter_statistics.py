"""Filter statistics: exact arithmetic's values, merging, going on after a kill, files, memory, refusals."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import midgrain as mg
from cam_nets import curved_net
from midgrain.failures import FilterStatistics, filter_scores, images_needed
from midgrain.failures.class_table import ClassTable
from midgrain.failures.exact_sums import ExactSums
from midgrain.failures.quantiles import Sketches, largest_sketch
from models_for_tests import batch_for, one_thread, seeded, tiny_net  # noqa: F401
from oracles.filter_statistics import mean_and_variance, top

TESTS = Path(__file__).parent
needs_datasketches = pytest.mark.skipif(
    importlib.util.find_spec("datasketches") is None, reason="needs datasketches (extra 'failures')"
)
CLASSES, FILTERS = 5, 7
#: Class 4 has no image.
LABELS = torch.tensor([0, 1, 0, 3, 2, 0, 1, 1, 0, 2, 0])


def data(count=11, dims=2, seed=1):
    return batch_for(dims, batch=count, dtype=torch.float64, seed=seed), LABELS[:count]


def loader(x, y, batch_size=3, ids=None, start=0, end=None):
    """A list of batches."""
    places = torch.arange(start, len(x) if end is None else end)
    return [
        (x[rows], y[rows]) if ids is None else (x[rows], y[rows], [ids[row] for row in rows])
        for rows in places.split(batch_size)
    ]


def same(a, b) -> None:
    """Every figure is the same, bit for bit."""
    assert torch.equal(a.count, b.count)
    for name in ("mean", "variance"):
        assert torch.equal(getattr(a, name).nan_to_num(-1.0), getattr(b, name).nan_to_num(-1.0))
    seen = a.count.nonzero()[:, 0].tolist()
    for q in (0, 3, 50, 77.7, 100):
        assert torch.equal(a.percentile(q, seen, few="extreme"), b.percentile(q, seen, few="extreme"))
    for number in seen:
        for place in range(a.n_filters):
            assert a.top_images(number, place) == b.top_images(number, place)


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


def test_files(tmp_path) -> None:
    net, (x, y) = curved_net(), data()
    stats = FilterStatistics.fit(net, loader(x, y, ids=[f"{place}" for place in range(len(x))]), after_norm=True)
    file = tmp_path / "new" / "stats.npz"
    stats.save(file)
    back = FilterStatistics.load(file)
    same(back, stats)
    assert repr(back) == repr(stats)
    assert back.nbytes == stats.nbytes
    found = back.score(net, x[:2], y[:2])
    assert found.layer == "4"
    torch.testing.assert_close(
        found.scores["grad-amap"], filter_scores(net, x[:2], y[:2], after_norm=True), rtol=0, atol=0
    )
    # Open: plain arrays and JSON.
    with np.load(file, allow_pickle=False) as arrays:
        assert json.loads(str(arrays["about"]))["format"] == "midgrain filter statistics 1"
        assert arrays["high"].shape == (4, FILTERS, 8)


def test_other_files_are_refused(tmp_path) -> None:
    net, (x, y) = curved_net(), data()
    file = tmp_path / "stats.npz"
    FilterStatistics.fit(net, loader(x, y)).save(file)
    with pytest.raises(FileNotFoundError, match="path: there is no file"):
        FilterStatistics.load(tmp_path / "none.npz")
    for name, content in (("text", b"something"), ("empty", b""), ("cut", file.read_bytes()[:2000])):
        other = tmp_path / name
        other.write_bytes(content)
        with pytest.raises(ValueError, match="path: expected filter statistics saved by this version"):
            FilterStatistics.load(other)
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="path: expected filter statistics"):
        FilterStatistics.load(tmp_path / "arrays.npz")
    newer = tmp_path / "newer.npz"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(newer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content.replace("statistics 1".encode("utf-32-le"), "statistics 2".encode("utf-32-le")))
    with pytest.raises(ValueError, match=r"path: .*it says 'midgrain filter statistics 2'"):
        FilterStatistics.load(newer)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="path: expected a folder"):
        FilterStatistics.load(file).save(tmp_path / "file" / "stats.npz")


class Stopping:
    """A loader that is interrupted before one of its batches."""

    def __init__(self, batches, at):
        self.batches, self.at = batches, at

    def __iter__(self):
        for number, batch in enumerate(self.batches):
            if number == self.at:
                raise KeyboardInterrupt
            yield batch


@pytest.mark.parametrize("named", [False, True])
def test_a_stopped_fit_goes_on(tmp_path, named) -> None:
    net, (x, y) = curved_net(), data()
    ids = [f"{place}.png" for place in range(len(x))] if named else None
    batches, file = loader(x, y, 2, ids), tmp_path / "fit.npz"
    with pytest.raises(KeyboardInterrupt):
        FilterStatistics.fit(net, Stopping(batches, 0), checkpoint=file)
    assert not file.exists()
    for at in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            FilterStatistics.fit(net, Stopping(batches, at), checkpoint=file)
        with pytest.raises(ValueError, match=r"path: .* is the checkpoint of a fit that has not finished"):
            FilterStatistics.load(file)
    stats = FilterStatistics.fit(net, batches, checkpoint=file)
    same(stats, FilterStatistics.fit(net, batches))
    same(FilterStatistics.load(file), stats)
    same(FilterStatistics.fit(net, Stopping(batches, 0), checkpoint=file), stats)  # Nothing is read again.


def test_a_fit_with_other_arguments_does_not_go_on(tmp_path) -> None:
    net, (x, y) = curved_net(), data()
    file = tmp_path / "fit.npz"
    with pytest.raises(KeyboardInterrupt):
        FilterStatistics.fit(net, Stopping(loader(x, y, 2), 3), checkpoint=file)
    for options, said in (
        ({"measure": "l1"}, "measure was grad-amap and is l1"),
        ({"layer": "4"}, "asked_layer was None and is 4"),
        ({"first_id": 7}, "first_id is another"),
        ({"keep": 3}, "keep was 8 and is 3"),
    ):
        with pytest.raises(ValueError, match=f"checkpoint: .* other arguments .*{said}"):
            FilterStatistics.fit(net, loader(x, y, 2), checkpoint=file, **options)
    with pytest.raises(ValueError, match=r"checkpoint: .*model was"):
        FilterStatistics.fit(curved_net(hidden=4), loader(x, y, 2), checkpoint=file)
    for other in (loader(x, y, 3), loader(*data(seed=3), 2), loader(x.flip(0), y.flip(0), 2), loader(x, y, 2, end=2)):
        with pytest.raises(ValueError, match="loader: it gives other samples"):
            FilterStatistics.fit(net, other, checkpoint=file)
    (tmp_path / "text").write_text("something")
    with pytest.raises(ValueError, match=r"checkpoint: .*expected filter statistics"):
        FilterStatistics.fit(net, loader(x, y, 2), checkpoint=tmp_path / "text")


def test_a_fit_that_is_stopped_in_the_middle_of_a_batch_counts_none_of_it(tmp_path, monkeypatch) -> None:
    net, (x, y) = curved_net(), data()
    file = tmp_path / "fit.npz"
    with pytest.raises(KeyboardInterrupt):
        FilterStatistics.fit(net, Stopping(loader(x, y, 2), 2), checkpoint=file)
    add = ClassTable.add

    def stopping(table, *arguments):
        add(table, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(ClassTable, "add", stopping)
    with pytest.raises(KeyboardInterrupt):
        FilterStatistics.fit(net, loader(x, y, 2), checkpoint=file)
    monkeypatch.undo()
    same(FilterStatistics.fit(net, loader(x, y, 2), checkpoint=file), FilterStatistics.fit(net, loader(x, y, 2)))


def test_other_processes_get_them_without_the_network() -> None:
    net, (x, y) = curved_net(), data()
    stats = FilterStatistics.fit(net, loader(x, y))
    stats.check_model(net)
    sent = pickle.loads(pickle.dumps(stats))
    assert sent._checked is None
    same(sent, stats)
    sent.check_model(net)


@pytest.mark.slow
def test_workers_of_ray_fit_parts() -> None:
    ray = pytest.importorskip("ray")
    path = str(TESTS)
    environment = {"env_vars": {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
        try:

            @ray.remote(num_cpus=1)
            def part(start, end):
                torch.set_num_threads(1)
                return FilterStatistics.fit(curved_net(), loader(*data(), 1, None, start, end), first_id=start)

            first, second = ray.get([part.remote(0, 6), part.remote(6, 11)])
        finally:
            ray.shutdown()
    same(first.merge(second), FilterStatistics.fit(curved_net(), loader(*data(), 1)))


KILLED = """
import sys, time, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
import midgrain.failures.fitting as fitting
from midgrain.failures import FilterStatistics
from cam_nets import curved_net
from test_filter_statistics import data, loader
fitting._SECONDS_BETWEEN_WRITES = fitting._TIMES_A_WRITE = 0.0
def slowly():
    for batch in loader(*data(), 1):
        yield batch
        time.sleep(0.2)
FilterStatistics.fit(curved_net(), slowly(), checkpoint={file!r})
"""


@pytest.mark.slow
def test_a_killed_fit_goes_on(tmp_path) -> None:
    file = tmp_path / "fit.npz"
    code = KILLED.format(tests=str(TESTS), file=str(file))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    limit = time.monotonic() + 120
    while not file.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    calls = []
    net = curved_net()
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    stats = FilterStatistics.fit(net, loader(*data(), 1), checkpoint=file)
    assert len(calls) < len(LABELS)  # Some of it was done before.
    same(stats, FilterStatistics.fit(curved_net(), loader(*data(), 1)))


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


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda stats: stats.percentile(101, 0), ValueError, "q: expected a number in 0 .. 100, got 101"),
        (lambda stats: stats.percentile("median", 0), TypeError, "q: expected a number"),
        (lambda stats: stats.percentile(50, 0, few="guess"), ValueError, "few: expected one of"),
        (lambda stats: stats.percentile(50, 4), ValueError, "class: the statistics hold no image of class 4"),
        (lambda stats: stats.percentile(50, [0, 5]), ValueError, "class: expected 0 .. 4, got 5"),
        (lambda stats: stats.check_classes(torch.tensor([4, 0, 4])), ValueError, "no image of class 4;"),
        (lambda stats: stats.check_classes("cat"), TypeError, "class: expected an int, got str"),
        (lambda stats: stats.top_images(4, 0), ValueError, "no image of class 4"),
        (lambda stats: stats.top_images(0, 7), ValueError, "filter_: expected 0 .. 6, got 7"),
        (lambda stats: stats.top_images(0, 0, 9), ValueError, "n: expected 1 .. 8"),
        (lambda stats: stats.score(curved_net(hidden=4), data()[0]), ValueError, "stats: .* of another network"),
        (lambda stats: stats.check_model(lambda x: x), TypeError, "model: expected a torch.nn.Module"),
    ],
)
def test_refused_questions(call, error, message) -> None:
    stats = FilterStatistics.fit(curved_net(), loader(*data()))
    with pytest.raises(error, match=message):
        call(stats)


def test_a_network_with_other_weights_is_another() -> None:
    net, (x, y) = curved_net(), data()
    stats = FilterStatistics.fit(net, loader(x, y))
    stats.check_model(net)
    stats.check_model(nn.DataParallel(net))
    with torch.no_grad():
        net[8].weight[0, 0] += 1e-3
    with pytest.raises(ValueError, match="stats: these statistics are of another network"):
        stats.check_model(net)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"measure": ["l1", "taylor"]}, TypeError, "measure: expected one name"),
        ({"measure": "l2"}, ValueError, "measure: expected some of"),
        ({"keep": 0}, ValueError, "keep: expected 1 or more"),
        ({"memory": -1}, ValueError, "memory: expected 0 or more"),
        ({"first_id": -1}, ValueError, "first_id: expected 0 or more"),
        ({"layer": "x"}, ValueError, "layer: the model has no module 'x'"),
        ({"loader": []}, ValueError, "loader: expected at least one batch"),
        ({"loader": [(torch.zeros(1, 3, 24, 32, dtype=torch.float64), [5])]}, ValueError, "target: expected classes"),
        ({"loader": loader(*data(2), ids=[-1, 0])}, ValueError, "loader: expected ids from 0 on, got -1"),
        ({"loader": loader(*data(2), ids=[0, "a"])}, TypeError, "loader: expected ids that are all integers or all"),
        ({"loader": loader(*data(4), 2) + loader(*data(1), 2, [3])}, ValueError, "loader: ids were none and are"),
        ({"model": 3}, TypeError, "model: expected"),
    ],
)
def test_refused_fits(options, error, message) -> None:
    with pytest.raises(error, match=message):
        FilterStatistics.fit(**({"model": curved_net(), "loader": loader(*data())} | options))


def test_scores_that_are_not_finite() -> None:
    net, (x, y) = tiny_net(), data()
    with torch.no_grad():
        net[3].weight[0] = 3e38
    with pytest.raises(ValueError, match="NaN or infinite"):
        FilterStatistics.fit(net, loader(x.float(), y), measure="l1", layer="3")


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


def test_it_is_public() -> None:
    assert mg.failures.FilterStatistics is FilterStatistics
