"""`midgrain compare`, and `--layer`, as a user meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import midgrain as mg
from midgrain.plots import plot_comparison
from midgrain.registry import method_options
from models_for_tests import one_thread as one_thread
from models_for_tests import seeded
from test_cli import COFFEE, PHOTOS, read
from test_cli import run as run


class TwoLayers(nn.Module):
    """Layers of two sizes."""

    def __init__(self, nonlinearity):
        super().__init__()
        self.early = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nonlinearity)
        self.late = nn.Sequential(nn.Conv2d(8, 8, 3, stride=4), nonlinearity)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7))

    def forward(self, x):
        return self.head(self.late(self.early(x)))


def relu_net():
    return seeded(lambda: TwoLayers(nn.ReLU()))


def gelu_net():
    return seeded(lambda: TwoLayers(nn.GELU()))


RELU_NET, GELU_NET = f"{__name__}:relu_net", f"{__name__}:gelu_net"


def test_the_usual_methods_on_the_demo_network(run):
    code, out, err = run("compare", COFFEE)
    assert (code, err) == (0, "")
    names = [line.split()[0] for line in out.splitlines()[1:-1]]
    assert names[:3] == ["gradcam", "gradcam++", "layercam"]
    assert names[-2:] == ["swag-ig", "guided"]
    assert ("jittercam" in names) == ("jittercam" in mg.methods())
    assert re.search(r"coffee\.png: espresso \(\d+\.\d%\) -> comparison\.png", out)
    picture = read("comparison.png")
    assert picture.shape[0] > 700  # two rows
    assert picture[..., :3].std() > 20


def test_methods_target_and_json(run):
    options = ("--method", "gradcam", "--method", "sobel", "--method", "gradcam", "--target", "Coffee Mug", "--json")
    code, out, err = run("compare", COFFEE, "-o", "new/mug.webp", *options)
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["method"] for row in facts["methods"]] == ["gradcam", "sobel"]
    assert all(row["seconds"] > 0 for row in facts["methods"])
    assert facts["target"]["index"] == 504
    assert facts["target"]["label"].lower() == "coffee mug"
    assert 0 < facts["target"]["probability"] < 1
    assert facts["top5"][0]["label"] == "espresso"
    assert facts["output"] == "new/mug.webp"
    assert Path("new/mug.webp").read_bytes()[8:12] == b"WEBP"


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml"), ("JPG", b"\xff")]
)
def test_the_ending_decides_the_format(run, suffix, start):
    assert run("compare", COFFEE, "--model", RELU_NET, "--method", "centre", "-o", f"a.{suffix}")[0] == 0
    assert Path(f"a.{suffix}").read_bytes().startswith(start)


def test_what_does_not_suit_the_network_is_left_out_unless_asked_for(run):
    code, out, err = run("compare", COFFEE, "--model", GELU_NET)
    assert code == 0
    assert "gradcam" in out
    assert re.search(r"^midgrain: guided left out: scorer 'guided': .*no ReLU", err, re.MULTILINE)
    assert "guided" not in [line.split()[0] for line in out.splitlines()]
    Path("comparison.png").unlink()
    code, out, err = run("compare", COFFEE, "--model", GELU_NET, "--method", "gradcam", "--method", "guided")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not Path("comparison.png").exists()


def test_explain_looks_at_the_layer_asked_for(run):
    shapes, maps = [], []
    for layer in ("early", "late.0"):
        options = ("--method", "gradcam", "--layer", layer, "--npz", "-o", "a.png", "--model", RELU_NET)
        assert run("explain", COFFEE, *options)[0] == 0
        saved = mg.Explanation.load("a.npz")
        shapes.append(list(saved.cam.shape))
        maps.append(saved.heatmap)
    assert shapes == [[1, 55, 55], [1, 14, 14]]
    assert not torch.equal(*maps)


def test_methods_without_a_layer_ignore_it(run):
    options = ("--method", "centre", "--method", "swag-i", "--method", "gradcam", "--n-segments", "50")
    assert run("compare", COFFEE, "--model", RELU_NET, "--layer", "early", *options)[0] == 0
    assert run("explain", COFFEE, "--model", RELU_NET, "--layer", "early", *options)[0] == 0


BAD = {
    "no photograph": ([], "PHOTO"),
    "no such file": (["nope.png"], "nope.png"),
    "not a picture": (["text.png"], "text.png"),
    "two photographs": ([COFFEE, COFFEE], "coffee.png"),
    "unknown method": ([COFFEE, "--method", "gradcamm"], "method.*gradcam"),
    "unknown class name": ([COFFEE, "--target", "expresso"], "target.*espresso"),
    "class out of range": ([COFFEE, "--target", "1000"], "target.*0 .. 999.*1000"),
    "unknown layer": ([COFFEE, "--model", RELU_NET, "--layer", "earl"], "layer.*'earl'.*did you mean early"),
    "an empty layer": ([COFFEE, "--model", RELU_NET, "--layer", ""], "layer.*''"),
    "a layer that is not spatial": ([COFFEE, "--model", RELU_NET, "--layer", "head.2"], "layer.*head.2.*not spatial"),
    "n_segments 0": ([COFFEE, "--model", RELU_NET, "--n-segments", "0"], "n_segments.*0"),
    "alpha": ([COFFEE, "--alpha", "2"], "alpha"),
    "device": ([COFFEE, "--device", "toaster"], "device.*toaster"),
    "no such model": ([COFFEE, "--model", "resnet"], "model.*torchvision:NAME"),
    "a model that returns a tuple": ([COFFEE, "--model", "test_cli:tuple_net"], "tuple.*target"),
    "no picture's ending": ([COFFEE, "-o", "out"], r"output.*\.png.*'out'"),
    "output is a folder": ([COFFEE, "-o", "folder.png"], "output.*folder.png"),
    "output under a file": ([COFFEE, "-o", "text.png/out.png"], "text.png"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(run, case, tmp_path):
    (tmp_path / "text.png").write_text("this is text")
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    arguments, pattern = BAD[case]
    code, out, err = run("compare", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("midgrain: ")
    assert re.search(pattern, err), err
    assert sorted(tmp_path.rglob("*")) == before, "something was half-written"


@pytest.mark.parametrize(("layer", "pattern"), [("earl", "did you mean early"), ("head.2", "not spatial")])
def test_explain_refuses_a_layer(run, layer, pattern):
    photos = (COFFEE,) if layer == "head.2" else (COFFEE, str(PHOTOS / "rocket.jpg"))
    code, out, err = run("explain", *photos, "--model", RELU_NET, "--method", "gradcam", "--layer", layer)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(pattern, err), err


def test_help(run):
    code, out, _ = run("compare", "--help")
    assert code == 0
    assert "--layer" in out
    assert "--layer" in run("explain", "--help")[1]


@pytest.mark.parametrize("name", mg.methods())
def test_options_of_methods_are_those_that_they_take(name):
    for option, value in (("layer", "early"), ("n_segments", 50), ("mean", None)):
        try:
            mg.explainer(name, relu_net(), **{option: value})
            taken = True
        except TypeError:
            taken = False
        assert (option in method_options(name)) == taken, option


def test_options_of_an_unknown_method():
    with pytest.raises(ValueError, match=r"name: expected one of swag-i.*'gradcamm'"):
        method_options("gradcamm")


@pytest.mark.parametrize(("overlays", "rows", "columns"), [(1, 1, 2), (4, 1, 5), (5, 2, 3), (6, 2, 4), (10, 3, 4)])
def test_panels_are_in_even_rows(overlays, rows, columns):
    picture = np.zeros((20, 30, 3), np.uint8)
    figure = plot_comparison(picture, {f"panel {i}": picture for i in range(overlays)}, "title")
    assert len(figure.axes) == overlays + 1
    assert [axes.get_title() for axes in figure.axes] == ["input", *(f"panel {i}" for i in range(overlays))]
    grid = figure.axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == (rows, columns)
