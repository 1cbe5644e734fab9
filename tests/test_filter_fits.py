"""Fits of filter statistics: files, going on after a stop or a kill, other processes, refusals."""

from __future__ import annotations

import json
import os
import pickle
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
from torch import nn

from cam_nets import curved_net
from midgrain.failures import FilterStatistics, filter_scores
from midgrain.failures.class_table import ClassTable
from models_for_tests import one_thread as one_thread
from models_for_tests import tiny_net
from statistics_for_tests import FILTERS, LABELS, data, loader, same

TESTS = Path(__file__).parent


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
from statistics_for_tests import data, loader
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
