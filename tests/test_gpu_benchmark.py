"""The GPU's benchmark without a GPU: its parts run, its models fit the sources, and it says why it cannot measure."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import midgrain as mg

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
no_gpu = pytest.mark.skipif(mg.build_info()["cuda"]["usable"], reason="there is a GPU")

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs the repository, not the package")


@pytest.fixture(autouse=True)
def _benchmarks_importable(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=600
    )


@no_gpu
def test_without_a_gpu_it_says_why():
    done = run(sys.executable, "-m", "benchmarks.gpu")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"gpu: nothing to measure: {mg.build_info()['cuda']['reason']}\n"


@no_gpu
def test_the_one_command_says_why(tmp_path):
    done = run("bash", str(ROOT / "benchmarks" / "on_gpu.sh"), str(tmp_path), PYTHON=sys.executable)
    assert done.returncode == 2, done.stderr
    assert (tmp_path / "summary.txt").read_text() == "on_gpu.sh: torch sees no CUDA device\n"


@pytest.mark.parametrize("arguments", [[], ["--no-such-option", "out"]], ids=["nothing", "unknown"])
def test_the_one_command_says_how(arguments):
    done = run("bash", str(ROOT / "benchmarks" / "on_gpu.sh"), *arguments)
    assert done.returncode == 2
    assert "OUT_FOLDER" in done.stderr or "--no-such-option" in done.stderr


@pytest.mark.slow
def test_the_one_command_runs_dry(tmp_path):
    done = run("bash", str(ROOT / "benchmarks" / "on_gpu.sh"), str(tmp_path), "--dry-run", PYTHON=sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = (tmp_path / "summary.txt").read_text()
    for part in ("tests", "benchmark", "sanitizer"):
        assert f"{part}: passed" in summary
        assert (tmp_path / f"{part}.log").stat().st_size > 0
    assert "failed" not in (tmp_path / "tests.log").read_text().splitlines()[-1]
    assert not json.loads((tmp_path / "gpu.json").read_text())["measurement"]


def test_every_part_runs_on_a_cpu_and_says_that_it_measures_nothing(tmp_path, capsys):
    from benchmarks.gpu import NOT_A_MEASUREMENT, PARTS
    from benchmarks.gpu import run as run_parts

    arguments = SimpleNamespace(device="cpu", out=tmp_path / "out", quick=True, parts=PARTS, seconds=0.0, budget=500.0)
    threads = torch.get_num_threads()
    try:
        assert run_parts(arguments) == 0
    finally:
        torch.set_num_threads(threads)
    content = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert content["measurement"] is False
    assert NOT_A_MEASUREMENT in content["notes"]
    assert list(content["parts"]) == list(PARTS)
    text = (tmp_path / "out" / "gpu.md").read_text()
    assert NOT_A_MEASUREMENT in text
    assert capsys.readouterr().out.startswith(f"cpu: {NOT_A_MEASUREMENT}")
    tables = content["tables"]
    for title, rows in tables.items():
        assert f"## {title}" in text
        assert rows
        assert all(list(row) == list(rows[0]) for row in rows)
    assert {row["reached"] for row in tables["Aims on an H200"]} == {"not a measurement"}
    assert {row["of the bandwidth"] for row in tables["Kernels"]} == {"not measured"}
    assert any("not a measurement" in row["aim"] for row in tables["SWAG beside the network's own passes"])


def test_a_part_that_fails_leaves_the_others(tmp_path, monkeypatch):
    from benchmarks import gpu

    def broken(*_):
        raise RuntimeError("no luck")

    monkeypatch.setattr(gpu, "part_slic", broken)
    arguments = SimpleNamespace(
        device="cpu", out=tmp_path, quick=True, parts=["slic", "peers"], seconds=0.0, budget=500.0
    )
    assert gpu.run(arguments) == 1
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert "FAILED: slic: RuntimeError: no luck" in content["notes"]
    assert content["tables"]["Beside other SLICs"]
    arguments.budget = -1.0
    assert gpu.run(arguments) == 0
    assert "peers: no time left of -1 s." in json.loads((tmp_path / "gpu.json").read_text())["notes"]


def test_a_network_that_fails_leaves_the_others(tmp_path, monkeypatch):
    import time

    from benchmarks import gpu_models
    from benchmarks.gpu_timing import Clock

    from models_for_tests import tiny_net

    def broken():
        net = tiny_net()
        net[0].forward = lambda x: x.no_such_thing
        return net

    fine, *_ = gpu_models.networks(quick=True)
    wrong = gpu_models.Network("broken", broken, (3, 24, 32), {})
    monkeypatch.setattr(gpu_models, "networks", lambda quick: [wrong, fine])
    rows, notes = gpu_models.rows(CPU, Clock(CPU, 0.0, least=1), True, time.monotonic() + 500)
    assert {row["network"] for row in rows} == {fine.name}
    assert len(notes) == 2
    assert all(note.startswith("FAILED: broken, batch 1, ") for note in notes)
    rows, notes = gpu_models.rows(CPU, Clock(CPU, 0.0, least=1), True, time.monotonic() - 1)
    assert rows == []
    assert all(note.endswith("no time left.") for note in notes)


def test_the_aims_are_those_of_the_page():
    from benchmarks.gpu_models import networks
    from benchmarks.gpu_slic import CASES

    aims = {case.name: case.aim for case in CASES if case.aim is not None}
    assert aims == {"1 x 224 x 224": 150.0, "64 x 224 x 224": 1280.0, "1 clip of 16 x 112 x 112": 300.0}
    page = (ROOT / "docs" / "gpu_benchmarks.md").read_text()
    assert all(text in page for text in ("150 us", "50,000", "300 us", "3 %"))
    pytest.importorskip("torchvision")
    found = {network.name: set(network.aims) for network in networks(quick=False)}
    assert found["ResNet-50"] == {(16, "fp32"), (16, "bf16")}
    assert found["R(2+1)D-18"] == {(1, "fp32"), (1, "bf16")}


def test_other_labels_than_the_cpus_are_noticed():
    from benchmarks.gpu_slic import QUICK, assert_like_the_cpu, inputs

    case = QUICK[0]
    batch = inputs(case, 1)[0]
    labels, counts = (torch.from_numpy(each) for each in mg.ops.slic_pictures(batch, case.wanted, channel_axis=-1))
    assert_like_the_cpu(labels, counts, batch, case)
    labels[0, 0, 0] += 1
    with pytest.raises(AssertionError, match="other labels"):
        assert_like_the_cpu(labels, counts, batch, case)


def test_inputs_differ():
    from benchmarks.gpu_slic import QUICK, inputs

    for case in QUICK:
        batches = inputs(case, 3)
        assert len({batch.tobytes() for batch in batches}) == 3
        expected = (case.items, *((case.frames,) if case.frames > 1 else ()), case.height, case.width, 3)
        assert {batch.shape for batch in batches} == {expected}


# --- times ---------------------------------------------------------------------------------------------------------


def test_spread_and_turns():
    from benchmarks.gpu_timing import Clock, spread

    found = spread([3.0, 1.0, 2.0, 4.0, 5.0])
    assert (found.median, found.runs) == (3.0, 5)
    assert found.p10 == pytest.approx(1.4)
    assert found.p90 == pytest.approx(4.6)
    seen: list[str] = []
    clock = Clock(CPU, 0.0, least=4)
    clock.alone([lambda: seen.append("a"), lambda: seen.append("b")])
    assert seen[1:] == ["a", "b", "a", "b"]  # the first one is the warm-up
    seen.clear()
    times = clock.race({"one": [lambda: seen.append("1")], "two": [lambda: seen.append("2")]})
    assert seen[2:] == ["1", "2"] * 4
    assert {name: found.runs for name, found in times.items()} == {"one": 4, "two": 4}


# --- floors --------------------------------------------------------------------------------------------------------


def test_names_of_kernels_are_found():
    from benchmarks.gpu_floors import short_name, sum_by_kernel

    names = {
        "void midgrain::cuda::(anonymous namespace)::assign_kernel<4>(SlicJob, int, bool)": "assign_kernel",
        "midgrain::cuda::(anonymous namespace)::begin_kernel(ConnectivityJob)": "begin_kernel",
        "void midgrain::cuda::(anonymous namespace)::pack_kernel<midgrain::cuda::(anonymous namespace)::PictureSource>"
        "(midgrain::cuda::SlicJob, midgrain::cuda::(anonymous namespace)::PictureSource)": "pack_kernel",
        "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>(int)": None,
        "Memset (Device)": None,
    }
    assert {name: short_name(name) for name in names} == names
    events = [(name, 6.0) for name in names] * 2
    assert sum_by_kernel(events, 4) == {"assign_kernel": 3.0, "begin_kernel": 3.0, "pack_kernel": 3.0}


def test_floors_are_shares_of_the_time():
    from benchmarks.gpu_floors import floor_rows
    from benchmarks.gpu_kernel_models import Model

    models = [Model("a_kernel", 2, 1e6, 3e6), Model("b_kernel", 1, 1e6, 0.0)]
    rows = floor_rows("op", models, {"a_kernel": 10.0}, bandwidth=1e12, rate=1e12)
    assert rows[0]["memory floor [us]"] == pytest.approx(1.0)
    assert rows[0]["integer floor [us]"] == pytest.approx(3.0)
    assert (rows[0]["of the bandwidth"], rows[0]["of the integer rate"]) == ("10.0%", "30.0%")
    assert (rows[1]["time [us]"], rows[1]["of the bandwidth"]) == ("not measured", "not measured")
    without = floor_rows("op", models, {"a_kernel": 10.0}, bandwidth=1e12, rate=None)
    assert without[0]["of the integer rate"] == "not measured"


def test_the_models_kernels_are_the_sources():
    """Every kernel that a model names exists, and every kernel of an operation has its model."""
    from benchmarks import gpu_kernel_models as models

    sources = {path.name: path.read_text() for path in (ROOT / "csrc" / "cuda").glob("*.cu")}
    found = {name: set(re.findall(r"__global__[^;{]*?\b(\w+_kernel)\(", text)) for name, text in sources.items()}
    case = models.SlicCase(2, 1, 40, 50, 20, gradient=True)
    modelled = {model.kernel for model in models.slic_models(case)}
    wanted = found["slic.cu"] | found["slic_assign.cu"] | found["slic_pack.cu"] | found["ranges.cu"]
    assert modelled == wanted | {"fill_srgb_table_kernel"}
    assert {model.kernel for model in models.connectivity_models(100)} == found["connectivity.cu"]
    assert {model.kernel for model in models.lab_models(100)} == found["color.cu"]
    pool = {model.kernel for model in models.pool_models(1, 1, 100, 5) + models.paint_models(1, 1, 100, 5)}
    assert pool <= found["pool.cu"] | found["pool_sums.cu"]
    assert found["pool.cu"] <= pool
    patches = models.patches_models(1, 1) + models.aggregate_models(1, 1)
    assert {model.kernel for model in patches} <= found["patches.cu"]


def test_the_models_launches_are_the_sources():
    """As many launches as the sources make when they are executed on the CPU."""
    cuda = pytest.importorskip("cuda_library")
    if cuda.COMPILER is None:
        pytest.skip("needs g++")
    from benchmarks import gpu_kernel_models as models

    import cuda_kernels

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, 12, 14, 3)).astype(np.uint8)
    slope = rng.random((1, 12, 14)).astype(np.float32)
    labels = rng.integers(0, 5, (1, 12, 14))
    values = rng.random((1, 2, 12, 14)).astype(np.float32)
    options = {"channel_axis": -1, "max_num_iter": 3}
    calls = {
        "slic": (
            lambda: mg.ops.slic_pictures(images, 9, gradient=slope, enforce_connectivity=False, **options),
            models.slic_models(models.SlicCase(1, 1, 12, 14, 9, gradient=True, iterations=3)),
        ),
        "slic without a gradient": (
            lambda: mg.ops.slic_pictures(images, 9, enforce_connectivity=False, **options),
            models.slic_models(models.SlicCase(1, 1, 12, 14, 9, iterations=3)),
        ),
        "connectivity": (lambda: mg.ops.enforce_connectivity(labels, 5), models.connectivity_models(168)),
        "lab": (lambda: mg.ops.rgb_to_lab(images, channel_axis=-1), models.lab_models(168)),
        "pool": (lambda: mg.pool(values, labels, n=5), models.pool_models(1, 2, 168, 5)),
        "paint": (lambda: mg.paint(values[:, :, 0, :5], labels), models.paint_models(1, 2, 168, 5)),
        "extract": (lambda: mg.ops.extract_patches(values, 3, 2), models.patches_models(1, 1)),
        "aggregate": (lambda: mg.ops.aggregate_patches(values.reshape(2, 4, 6, 7), 2), models.aggregate_models(1, 1)),
    }
    with cuda_kernels.as_backend():
        for name, (call, needs) in calls.items():
            before = cuda.launches()
            call()
            assert cuda.launches() - before == sum(model.launches for model in needs), name


def test_competing_centres():
    """Far from the borders of a large picture a pixel meets the 4 x 4 centres within two steps, its tile more."""
    from benchmarks.gpu_kernel_models import SlicCase, competing

    found, reaching = competing(SlicCase(1, 1, 2000, 2000, 10_000))
    assert reaching == pytest.approx(16, rel=0.06)
    assert found == pytest.approx((4 + 7 / 20) * (4 + 31 / 20), rel=0.06)
    assert competing(SlicCase(1, 1, 8, 8, 1)) == (1.0, 1.0)
    deep, _ = competing(SlicCase(1, 16, 112, 112, 120))
    assert deep > reaching
