"""Evaluations as a Ray Data pipeline: the same rows as here, whatever dies on the way."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

import midgrain as mg
from evaluate_for_tests import EXPLAINERS, MEASURES, evaluate_slowly, picture_net, samples, write_pictures
from midgrain.cli import main
from midgrain.evaluate import Results, Sample, ray_engine
from midgrain.evaluate.ray_cluster import places
from models_for_tests import one_thread, tiny_net  # noqa: F401
from test_evaluate import stripped

ray = pytest.importorskip("ray")
TESTS = Path(__file__).parent

# Ray and Ray Data warn of their own ways with themselves; what midgrain calls is tested in `midgrain` itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")


def command_line(pid: int) -> str:
    """Of a process; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def processes_of(session: str) -> list[str]:
    """Command lines of processes that belong to a Ray session's folder."""
    lines = [command_line(int(path.name)) for path in Path("/proc").glob("[0-9]*")]
    return [line for line in lines if session in line]


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [pid]
    for each in found:
        found.extend(child for child, parent in parents.items() if parent == each)
    return found[1:]


def alive(pids: list[int]) -> list[int]:
    """Those that still run; ended ones that nobody waited for do not."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


def assert_ends(left: Callable[[], object], seconds: float = 60.0) -> None:
    """Something that takes a moment to end ends."""
    end = time.monotonic() + seconds
    while left():
        assert time.monotonic() < end, left()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray on this machine that runs already, with room for two workers."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    session = ray._private.worker._global_node.get_session_dir_path()
    assert processes_of(session)
    yield
    assert ray.is_initialized(), "it was shut down by somebody else"
    ray.shutdown()
    assert_ends(lambda: processes_of(session))


def assert_idle() -> None:
    """No actor holds the cluster's processors any more."""
    assert_ends(lambda: ray.available_resources().get("CPU") != 2.0)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense"])
def test_no_cluster_answers(address, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConnectionError, match=rf"^engine: Ray could not be reached at RAY_ADDRESS={address} "):
        mg.evaluate(tiny_net(), samples(1), ["vanilla"], ["deletion"], tmp_path, engine="ray")


def test_rows_are_those_of_a_local_run(cluster, tmp_path) -> None:
    """Two workers, one of them killed midway; broken samples; an explainer that no module knows."""
    here, killed, pids = os.getpid(), tmp_path / "killed", tmp_path / "pids"
    pids.mkdir()

    def deadly(x: torch.Tensor, target: int) -> torch.Tensor:
        if os.getpid() != here:
            (pids / str(os.getpid())).touch()
            if target == 3 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return x.mean(1)

    data = samples(7)
    x = data[0].input
    data[2:2] = [Sample("file", "no/such/file.png", 0), Sample("nan", torch.full_like(x, torch.nan), 0)]
    data.append(Sample("class", x, 17))
    arguments = {
        "model": tiny_net(),
        "dataset": data,
        "explainers": {"deadly": deadly, "swag-few": ("swag-i", {"n_segments": 6}), "noise": "noise"},
        "measures": MEASURES | {"superpixel_removal": {}, "average_drop": {}},
        "seed": 5,
        "examples": 3,
    }
    state = torch.random.get_rng_state()
    there = mg.evaluate(**arguments, out=tmp_path / "ray", engine="ray", workers=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert killed.exists()
    assert len(list(pids.iterdir())) == 3  # Two, and the one that took over.
    local = mg.evaluate(**arguments, out=tmp_path / "local")
    pd.testing.assert_frame_equal(stripped(there.frame()), stripped(local.frame()))
    assert there.frame()["id"].nunique() == 7
    by_id = [each.errors().sort_values("id").reset_index(drop=True) for each in (there, local)]
    pd.testing.assert_frame_equal(*by_id)
    assert by_id[0]["id"].tolist() == ["class", "file", "nan"]
    drawn = [{each["id"]: each["pictures"] for each in results.examples()} for results in (there, local)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 2  # Of three, one of which could not be read.
    assert there.configuration["configuration"] == local.configuration["configuration"]
    # Nothing is left to do, so nothing is sent.
    again = mg.evaluate(**arguments, out=tmp_path / "ray", engine="ray", workers=2)
    pd.testing.assert_frame_equal(again.frame(), there.frame())
    assert_idle()


class Pictures(torch.utils.data.Dataset):
    """A data set in torchvision's manner that must not be sent with every sample."""

    sent = 0

    def __getstate__(self) -> dict[str, object]:
        Pictures.sent += 1
        return self.__dict__

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return samples(5)[index].input, index


@pytest.mark.slow
def test_a_data_set_is_sent_once_and_windows_follow_each_other(cluster, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ray_engine, "_WINDOW_SAMPLES", 3)
    Pictures.sent = 0
    net, measures = tiny_net(), ["deletion"]
    there = mg.evaluate(net, Pictures(), EXPLAINERS, measures, tmp_path / "ray", engine="ray", limit=4)
    assert Pictures.sent == 1
    local = mg.evaluate(net, Pictures(), EXPLAINERS, measures, tmp_path / "local", limit=4)
    pd.testing.assert_frame_equal(stripped(there.frame()), stripped(local.frame()))
    # The first window ends before the second begins.
    assert set(there.frame()["id"].unique()[:3]) == {"000000", "000001", "000002"}
    assert there.frame()["id"].nunique() == 4


@pytest.mark.slow
def test_an_iterator_that_breaks_off_keeps_what_came_before(cluster, tmp_path) -> None:
    def stream() -> Iterator[Sample]:
        yield from samples(3)
        raise ZeroDivisionError("no more")

    with pytest.raises(ZeroDivisionError, match="no more"):
        mg.evaluate(tiny_net(), stream(), ["vanilla"], ["deletion"], tmp_path, engine="ray", workers=2)
    assert Results(tmp_path).frame()["id"].nunique() == 3
    assert_idle()


@pytest.mark.slow
def test_a_sample_that_kills_its_worker_every_time(cluster, tmp_path) -> None:
    here = os.getpid()

    def deadly(x: torch.Tensor, target: int) -> torch.Tensor:
        if target == 1 and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return x.mean(1)

    data = samples(4)
    arguments = (tiny_net(), data, {"deadly": deadly}, MEASURES, tmp_path)
    results = mg.evaluate(*arguments, engine="ray", workers=2, baselines=())
    (error,) = results.errors().to_dict("records")
    assert (error["id"], error["stage"]) == ("sample 1", "worker")
    assert "died 3 times" in error["error"]
    assert set(results.frame()["id"]) == {"sample 0", "sample 2", "sample 3"}
    # It is not tried again unless asked for; then here it works.
    assert len(mg.evaluate(*arguments, baselines=()).errors()) == 1
    results = mg.evaluate(*arguments, baselines=(), retry=True)
    assert not len(results.errors())
    assert results.frame()["id"].nunique() == 4


@pytest.mark.slow
def test_what_never_works_ends_the_run_and_its_workers(cluster, tmp_path) -> None:
    def broken(x: torch.Tensor, target: int) -> torch.Tensor:
        raise RuntimeError("never")

    # Endless: the run has to end of itself.
    def stream() -> Iterator[Sample]:
        (sample,) = samples(1)
        number = 0
        while True:
            yield Sample(f"{number}", sample.input, 0)
            number += 1

    with pytest.raises(ValueError, match=r"^own: failed on each of the first 5 samples: RuntimeError: never"):
        mg.evaluate(tiny_net(), stream(), {"own": broken}, ["deletion"], tmp_path, engine="ray", workers=2, limit=10**6)
    assert not len(Results(tmp_path).frame())
    assert_idle()


class OnlyHere(torch.nn.Module):
    """Cannot be read by another process."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def __reduce__(self) -> tuple[object, ...]:
        return __import__, ("a_module_that_workers_lack",)


@pytest.mark.slow
def test_a_network_that_workers_cannot_read(cluster, tmp_path) -> None:
    with pytest.raises(RuntimeError, match=r"^engine: .* cannot be used by a worker \(ModuleNotFoundError: "):
        mg.evaluate(OnlyHere(), samples(2), ["centre"], ["deletion"], tmp_path, engine="ray", baselines=())


class Deadly(torch.nn.Module):
    """Kills whoever reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (9,)


@pytest.mark.slow
def test_a_network_that_kills_whoever_reads_it(cluster, tmp_path) -> None:
    with pytest.raises(RuntimeError, match=r"^engine: .* every process died while it read them"):
        mg.evaluate(Deadly(), samples(2), ["centre"], ["deletion"], tmp_path, engine="ray", workers=1, baselines=())


def test_what_cannot_be_sent_is_named(cluster, tmp_path) -> None:
    file = open(os.devnull, "rb")  # noqa: SIM115
    with file:
        closed_over = lambda x, target: x.mean(1) if file else None  # noqa: E731
        with pytest.raises(TypeError, match=r"^model, explainers, preprocess: expected what can be sent to workers"):
            mg.evaluate(tiny_net(), samples(1), {"own": closed_over}, ["deletion"], tmp_path / "a", engine="ray")
        data = Pictures()
        data.file = file
        with pytest.raises(TypeError, match=r"^dataset: expected what can be sent to workers"):
            mg.evaluate(tiny_net(), data, ["vanilla"], ["deletion"], tmp_path / "b", engine="ray")


def test_room_for_workers() -> None:
    two = [{"CPU": 2.0}]
    assert places(two, None, None) == (2, 0.0, 1)
    assert places(two, 1, None) == (1, 0.0, 2)
    assert places([{"CPU": 3.0}, {"CPU": 5.0}], 2, None) == (2, 0.0, 3)
    assert places([{"CPU": 2.0}, {"CPU": 6.0}], 2, None) == (2, 0.0, 3)  # Both on the second.
    assert places([{"CPU": 16.0, "GPU": 4.0}, {"CPU": 64.0}], None, None) == (4, 1.0, 4)
    assert places([{"CPU": 16.0, "GPU": 4.0}], None, 0.5) == (8, 0.5, 2)
    assert places([{"CPU": 16.0, "GPU": 4.0}], None, 0) == (16, 0, 1)
    assert places([{"CPU": 1.0, "GPU": 4.0}, {}], None, 2.0) == (1, 2.0, 1)
    with pytest.raises(ValueError, match=r"^workers: expected at most 2, .* 2 CPUs and 0 GPUs .*, got 3$"):
        places(two, 3, None)
    with pytest.raises(ValueError, match=r"^gpus_per_worker: .* 0 GPUs .*, got 1$"):
        places(two, 2, 1.0)
    with pytest.raises(ValueError, match=r"^gpus_per_worker: "):
        places([{"CPU": 8.0, "GPU": 1.0}], 1, 2.0)


def test_more_workers_than_the_cluster_has_room_for(cluster, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"^workers: expected at most 2"):
        mg.evaluate(tiny_net(), samples(1), ["vanilla"], ["deletion"], tmp_path, engine="ray", workers=3)
    with pytest.raises(ValueError, match=r"^gpus_per_worker: "):
        mg.evaluate(tiny_net(), samples(1), ["vanilla"], ["deletion"], tmp_path, engine="ray", gpus_per_worker=1)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"engine": "dask"}, ValueError, "engine: expected one of local, ray, got 'dask'"),
        ({"engine": None}, ValueError, "engine: "),
        ({"engine": "ray", "workers": 0}, ValueError, "workers: "),
        ({"engine": "ray", "workers": 1.5}, TypeError, "workers: "),
        ({"engine": "ray", "gpus_per_worker": -1}, ValueError, "gpus_per_worker: "),
        ({"engine": "ray", "gpus_per_worker": "all"}, TypeError, "gpus_per_worker: "),
        ({"workers": 2}, ValueError, "workers: expected None unless engine='ray', got 2"),
        ({"gpus_per_worker": 1}, ValueError, "gpus_per_worker: expected None unless engine='ray'"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(options, kind, said, tmp_path) -> None:
    with pytest.raises(kind) as error:
        mg.evaluate(tiny_net(), samples(1), ["vanilla"], ["deletion"], tmp_path / "out", **options)
    assert str(error.value).startswith(said)
    assert not (tmp_path / "out").exists()


def test_without_ray_its_extra_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'midgrain\[ray\]'"):
        mg.evaluate(tiny_net(), samples(1), ["vanilla"], ["deletion"], tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()


class Elsewhere(torch.nn.Parameter):
    """Says that it is on a GPU."""

    device = torch.device("cuda", 1)


@pytest.mark.parametrize("kind", [Elsewhere, pytest.param(torch.nn.Parameter, marks=pytest.mark.gpu)])
def test_a_network_on_a_gpu_travels_by_the_cpu(kind) -> None:
    net = tiny_net()
    for module in net.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            moved = value.detach() if kind is Elsewhere else value.detach().cuda()
            setattr(module, name, kind(moved, requires_grad=name == "weight"))
    tied = torch.nn.ModuleList([net, net])
    found = pickle.loads(ray_engine._pickled({"model": tied, "layer": net[0]}, ray))
    assert found["model"][0] is found["model"][1]
    assert found["model"][0][0] is found["layer"]
    for (name, one), other in zip(found["model"].named_parameters(), tied.parameters(), strict=True):
        assert type(one) is torch.nn.Parameter
        assert (one.device.type, one.requires_grad) == ("cpu", other.requires_grad), name
        assert torch.equal(one, other.detach().cpu())


def network() -> torch.nn.Module:
    return picture_net()


@pytest.mark.slow
def test_the_command(cluster, tmp_path, monkeypatch, capsys) -> None:
    write_pictures(tmp_path / "in", 3)
    (tmp_path / "in" / "9.jpg").write_text("broken")
    monkeypatch.chdir(tmp_path)
    usual = ["midgrain", "evaluate", "in", "--model", "test_evaluate_ray:network", "--size", "32", "--methods"]
    usual += ["vanilla", "--measures", "deletion", "--examples", "1", "-o"]
    for arguments in (["ray", "--engine", "ray", "--workers", "2"], ["local"]):
        monkeypatch.setattr(sys, "argv", usual + arguments)
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        assert "3 samples, 1 left out" in capsys.readouterr().out
    pd.testing.assert_frame_equal(stripped(Results("ray").frame()), stripped(Results("local").frame()))


@pytest.mark.slow
def test_a_run_whose_own_process_is_killed_goes_on_elsewhere(tmp_path) -> None:
    """It started a Ray of its own, of which nothing stays; the rest is done here."""
    n, out = 8, tmp_path / "killed"
    command = [sys.executable, str(TESTS / "evaluate_for_tests.py"), str(out), str(n), "0.2", "ray"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    process = subprocess.Popen(command, cwd=TESTS, env={**environment, "OMP_NUM_THREADS": "1"})
    journal = out / "journal-00000.jsonl"
    end = time.monotonic() + 300
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.01)
    # Ray's agents look for their parent once a minute; what works or holds memory ends at once.
    started = [pid for pid in descendants(process.pid) if "Agent" not in command_line(pid)]
    assert any("Worker" in command_line(pid) for pid in started)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert_ends(lambda: alive(started), 120.0)
    before = Results(out).frame()
    assert 2 <= before["id"].nunique() < n
    evaluate_slowly(str(out), n, 0.0)
    evaluate_slowly(str(tmp_path / "whole"), n, 0.0)
    after, whole = Results(out).frame(), Results(tmp_path / "whole").frame()
    pd.testing.assert_frame_equal(stripped(after), stripped(whole))
    pd.testing.assert_frame_equal(after.head(len(before)), before)


def finished(*arguments: str) -> str:
    """What a process of its own printed."""
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, str(TESTS / "evaluate_for_tests.py"), *arguments],
        cwd=TESTS,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_ray_that_was_started_leaves_nothing(tmp_path) -> None:
    assert "no ray unchanged" in finished(str(tmp_path / "ray"), "3", "0.0", "ray")
    evaluate_slowly(str(tmp_path / "here"), 3, 0.0)
    pd.testing.assert_frame_equal(*(stripped(Results(tmp_path / name).frame()) for name in ("ray", "here")))


@pytest.mark.slow
def test_a_machine_that_is_lost(tmp_path) -> None:
    """Its samples are done again on the one that is left."""
    n, out = 12, tmp_path / "lost"
    assert "lost after two samples" in finished(str(out), str(n), "0.02", "lose")
    evaluate_slowly(str(tmp_path / "whole"), n, 0.0)
    after, whole = Results(out), Results(tmp_path / "whole")
    pd.testing.assert_frame_equal(stripped(after.frame()), stripped(whole.frame()))
    # The last two samples' masks are empty.
    assert after.errors()["id"].nunique() == whole.errors()["id"].nunique()
