"""`midgrain reproduce` as a user meets it."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from torch import nn

import layouts_for_tests as stand_in
from midgrain.cli.reproduce import _names
from midgrain.evaluate import TABLES, Results
from models_for_tests import one_thread, seeded  # noqa: F401

NETWORK = ("--model", "test_reproduce_cli:network", "--size", "32")


def network() -> nn.Module:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1000)
        )

    return seeded(build).eval()


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    """Runs the command in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return functools.partial(command, "reproduce")


def test_the_paper_beside_the_measured(run, tmp_path) -> None:
    stand_in.imagenet(tmp_path / "in", boxes=False)
    arguments = (
        "--table",
        "swag-deletion",
        "--data",
        "in",
        *NETWORK,
        "--methods",
        "Grad-CAM ++,SWAG I+G",
        "--out",
        "o",
    )
    code, out, err = run(*arguments, "--limit", "2")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("deletion AUC of SWAG and other methods on images; T. Hartley, PhD thesis, Table 3.7")
    (row,) = [line.split() for line in lines if line.startswith("Grad-CAM ++ ") and "0.111" in line]
    frame = Results("o/swag-deletion/vgg16").frame()
    mean = frame[frame["explainer"] == "Grad-CAM ++"]["deletion"].mean()
    assert row[2:4] == ["0.111", f"{mean:.3f}"]
    assert row[-1] == f"{mean - 0.111:+.3f}"
    assert "VGG16: test_reproduce_cli:network, given" in out
    assert "here [95 %]" in out
    assert "ResNet50: not run, the figures of the paper" in out
    assert "- samples: 2 here; in the paper 50,000 pictures, ImageNet's validation set" in lines
    assert "-> o/swag-deletion/vgg16/report.html" in lines
    code, out, _ = run(*arguments, "--json")
    found = json.loads(out)
    assert code == 0
    measured = [line for line in found["lines"] if line["measured"] is not None]
    assert [(line["network"], line["method"], line["n"]) for line in measured] == [
        ("VGG16", "Grad-CAM ++", 4),
        ("VGG16", "SWAG I+G", 4),
    ]
    assert measured[0]["as printed"] == "0.111"


def test_errors_of_samples_are_said(run, tmp_path) -> None:
    stand_in.imagenet(tmp_path / "in", boxes=False)
    next((tmp_path / "in" / "val" / "n01440764").iterdir()).write_text("broken")
    code, out, err = run("-t", "swag-deletion", "-d", "in", *NETWORK, "--method", "Centre")
    assert code == 0
    assert err.startswith("midgrain: VGG16: read failed on 1 sample, first on ILSVRC2012_val_00000001.JPEG: picture:")
    assert "- samples: 3 here" in out


def test_the_list(run) -> None:
    code, out, _ = run("--list")
    assert code == 0
    for table in TABLES.values():
        assert f"{table.name}: {table.title}" in out
        assert table.source in out
    assert "VGG16: torchvision:vgg16@IMAGENET1K_V1, about 8,853 passes for each sample" in out
    assert "annotations/instances_val2014.json" in out
    code, out, _ = run("--list", "--json")
    found = {entry["table"]: entry for entry in json.loads(out)}
    assert list(found) == list(TABLES)
    assert found["filters"]["passes for each sample"]["VGG16"] > 200
    assert found["timing"]["data"] is None


def test_timing(run, tmp_path) -> None:
    code, out, _ = run("--table", "timing", *NETWORK, "--network", "R(2+1)D", "--methods", "Grad-CAM", "--limit", "1")
    assert code == 0
    assert "here [10 to 90 %]" in out
    assert Path("reproduced/timing/timing.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "table: expected one of swag-deletion, "),
        (("--table", "nope"), "table: expected one of swag-deletion, "),
        (
            ("--table", "pointing"),
            "data: expected a folder with COCO 2014's validation set (val2014/*.jpg, annotations/",
        ),
        (("--table", "pointing", "--data", "nowhere"), "data: there is no folder 'nowhere'"),
        (("--table", "pointing", "--data", "in"), "data: COCO 2014 needs the folder 'val2014/' in 'in', which is"),
        (("--table", "swag-deletion", "--data", "in", "--limit", "0"), "limit: expected 1 or more, got 0"),
        (("--table", "swag-deletion", "--data", "in", "--methods", "Tea"), "methods: expected some of Random, "),
        (("--table", "swag-deletion", "--data", "in", "--network", "LeNet"), "network: expected one of VGG16, "),
        (("--table", "swag-deletion", "--data", "in", "--size", "3"), "size, mean, std: expected with --model alone"),
        (("--table", "swag-deletion", "--data", "in", "--model", "nope"), "model: expected demo, "),
        (("--table", "swag-deletion", "--data", "in", "--weights", "w.pt"), "weights: there is no file 'w.pt'"),
        (
            ("--table", "sise", "--data", "voc"),
            "model: expected one for ResNet-50 of sise, got none; the paper's network is",
        ),
        (("--table", "timing", "--data", "in"), "data: timing needs none, got 'in'"),
        (("--table", "swag-deletion", "--data", "in", "--out", "in/file"), "out: expected a folder, but"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, arguments, message) -> None:
    stand_in.imagenet(tmp_path / "in", boxes=False)
    stand_in.voc07(tmp_path / "voc")
    (tmp_path / "in" / "file").touch()
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"midgrain: {message}")
    assert err.count("\n") == 1


def test_names_with_commas() -> None:
    assert _names(None) is None
    assert _names(["SISE, mu 0.3,Grad-CAM", "LIME"]) == ["SISE, mu 0.3", "Grad-CAM", "LIME"]
