"""The command as a user meets it: what it prints, what it writes, and one sentence for bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
import typer
from PIL import Image
from torch import nn

import midgrain as mg
from midgrain.cli.app import app
from midgrain.models import load_model
from midgrain.pictures import open_picture

PHOTOS = Path(skimage.__file__).parent / "data"
COFFEE = str(PHOTOS / "coffee.png")


class SmallNet(nn.Module):
    """Small enough to export in a moment."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7)
        )

    def forward(self, x):
        return self.layers(x)


class TupleNet(SmallNet):
    """Returns what SWAG cannot explain without a callable target."""

    def forward(self, x):
        return self.layers(x), None


def small_net():
    torch.manual_seed(0)
    return SmallNet()


def tuple_net():
    return TupleNet()


def no_net():
    return 3


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    """Runs the command in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    return command


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_pickled_networks_are_taken_when_asked_for(run, tmp_path):
    torch.save(small_net(), tmp_path / "net.pt")
    arguments = ("explain", COFFEE, "--model", "net.pt", "--method", "sobel", "--size", "32")
    code, _, err = run(*arguments)
    assert code == 2
    assert "runs whatever its author put into it, so that is done with --allow-pickle only" in err
    code, out, err = run(*arguments, "--allow-pickle")
    assert (code, err) == (0, "")
    assert "coffee.png: class" in out


def test_every_command_with_a_network_has_the_same_options_for_it():
    def commands(command, name):
        for each, found in getattr(command, "commands", {name: command}).items():
            yield from commands(found, f"{name} {each}") if hasattr(found, "commands") else [(each, found)]

    shared = {"--size", "--mean", "--std", "--layer", "--rate", "--frames", "--alpha", "--allow-pickle"}
    seen = {}
    for name, command in commands(typer.main.get_command(app), "midgrain"):
        options = {option: parameter for parameter in command.params for option in parameter.opts}
        if "--model" in options:
            assert {"--size", "--mean", "--std", "--device", "--allow-pickle", "--json"} <= options.keys(), name
            for option in shared & options.keys():
                assert seen.setdefault(option, options[option].help) == options[option].help
    assert seen.keys() == shared


def test_demo_prints_classes_and_writes_pictures(run, tmp_path):
    code, out, err = run("demo")
    assert (code, err) == (0, "")
    assert "tiger cat" in out
    assert "Egyptian cat" in out
    assert out.count("%") == 5
    assert sorted(p.name for p in (tmp_path / "midgrain-demo").iterdir()) == ["comparison.png", "overlay.png"]
    overlay = read(tmp_path / "midgrain-demo" / "overlay.png")
    assert overlay.shape[2] == 3
    assert overlay.std() > 20
    assert read(tmp_path / "midgrain-demo" / "comparison.png").shape[1] > 1000


def test_explain_writes_one_overlay_per_photo_and_method(run, tmp_path):
    code, out, _ = run(
        "explain", COFFEE, str(PHOTOS / "rocket.jpg"), "--method", "swag-ig", "--method", "sobel", "-o", "out"
    )
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "coffee.sobel.png",
        "coffee.swag-ig.png",
        "rocket.sobel.png",
        "rocket.swag-ig.png",
    ]
    assert "espresso" in out


def test_explain_takes_folders_and_all_three_formats(run, tmp_path):
    (tmp_path / "in").mkdir()
    for suffix in ("jpg", "png", "webp"):
        Image.open(COFFEE).resize((300, 260)).save(tmp_path / "in" / f"{suffix}.{suffix}")
    Image.open(COFFEE).convert("RGBA").save(tmp_path / "in" / "webp.png")  # the same stem twice
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    code, out, _ = run("explain", "in", "--method", "centre", "--json")
    rows = json.loads(out)
    assert code == 0
    assert len(rows) == 4
    assert len({row["output"] for row in rows}) == 4
    assert all(Path(row["output"]).is_file() for row in rows)


def test_explain_json_target_by_name_and_npz(run):
    code, out, _ = run("explain", COFFEE, "-o", "x.webp", "--target", "Coffee Mug", "--json", "--npz")
    (row,) = json.loads(out)
    assert code == 0
    assert row["target"]["index"] == 504
    assert row["top5"][0]["label"] == "espresso"
    saved = mg.Explanation.load("x.npz")
    assert saved.target.tolist() == [504]
    assert int(saved.outputs.argmax()) == row["top5"][0]["index"]
    assert Path("x.webp").read_bytes()[8:12] == b"WEBP"


def test_overlay_is_drawn_on_the_network_crop_of_the_photo(run):
    run("explain", COFFEE, "--alpha", "0", "--no-contours", "-o", "plain.png", "--method", "constant")
    side = round(400 * 224 / 256)
    photo = Image.open(COFFEE).convert("RGB")
    box = (300 - 175, 200 - 175, 300 + 175, 200 + 175)
    assert np.abs(read("plain.png").astype(int) - np.asarray(photo.crop(box)).astype(int)).max() <= 1
    assert read("plain.png").shape == (side, side, 3)


@pytest.mark.parametrize("name", ["demo", "methods", "info", "explain", "bench"])
def test_help(run, name):
    code, out, _ = run(name, "--help")
    assert code == 0
    assert "Usage" in out


def test_version_methods_and_info(run):
    assert run("--version")[1].strip() == f"midgrain {mg.__version__}"
    code, out, _ = run("methods", "--json")
    assert code == 0
    assert json.loads(out) == mg.methods()
    code, out, _ = run("info", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["midgrain"] == mg.__version__
    assert facts["kernels"]["cpu"]["usable"] is True
    assert facts["kernels"]["cuda"]["usable"] is False
    assert facts["kernels"]["cuda"]["reason"]
    assert "CUDA kernels" in run("info")[1]
    assert "swag-ig" in run("methods")[1]


def test_bench_times_superpixels_and_an_explanation(run):
    code, out, err = run("bench", "--quick")
    assert (code, err) == (0, "")
    assert "slic, 224 x 224" in out
    assert "scikit-image" in out
    assert "EfficientNet-Lite0" in out
    code, out, _ = run("bench", "--quick", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["machine"]["processor"]
    assert [line["what"].partition(",")[0] for line in facts["lines"]] == ["slic", "pool"]
    assert all(times["median"] > 0 for line in facts["lines"] for times in line["threads"].values())
    assert facts["lines"][0]["times faster"].keys() == facts["lines"][0]["threads"].keys()
    assert facts["network"]["ratio"] > 0


def test_bench_without_the_demo_network(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    code, out, _ = run("bench", "--quick")
    assert code == 0
    assert "times faster" in out
    assert "no explanation timed" in out


def test_models_from_files_and_functions_agree(run):
    model = small_net().eval()
    x = torch.zeros(1, 3, 224, 224)
    torch.export.save(torch.export.export(model, (x,)), "net.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch calls TorchScript deprecated
        torch.jit.trace(model, x).save("net.pt")
    options = ("explain", COFFEE, "--method", "swag-ig", "--target", "3", "-o", "a.png", "--npz")
    maps = []
    for spec in (f"{__name__}:small_net", "net.pt2", "net.pt"):
        assert run(*options, "--model", spec)[0] == 0
        maps.append(mg.Explanation.load("a.npz").heatmap)
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(maps[2], maps[0], rtol=1e-4, atol=1e-6)


def test_a_broken_photo_does_not_stop_the_others(run, tmp_path):
    (tmp_path / "in").mkdir()
    Image.open(COFFEE).resize((256, 256)).save(tmp_path / "in" / "b.png")
    whole = (tmp_path / "in" / "b.png").read_bytes()
    (tmp_path / "in" / "a.png").write_bytes(whole[: len(whole) // 2])
    code, out, err = run("explain", "in", "--method", "centre", "-o", "out")
    assert code == 2
    assert "b.png" in out
    assert "a.png" in err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b.centre.png"]


BAD = {
    "no such file": (["nope.png"], "nope.png"),
    "not a picture": (["text.png"], "text.png"),
    "empty folder": (["empty"], "empty"),
    "class out of range": ([COFFEE, "--target", "1000"], "target.*0 .. 999.*1000"),
    "negative class": ([COFFEE, "--target", "-1"], "target.*-1"),
    "unknown class name": ([COFFEE, "--target", "expresso"], "target.*espresso"),
    "unknown method": ([COFFEE, "--method", "gradcamm"], "method.*swag-ig"),
    "n_segments 0": ([COFFEE, "--n-segments", "0"], "n_segments.*0"),
    "more segments than pixels": ([COFFEE, "--n-segments", "50177"], "n_segments.*50176.*50177"),
    "not a number": ([COFFEE, "--n-segments", "many"], "n-segments"),
    "alpha": ([COFFEE, "--alpha", "2"], "alpha"),
    "mean": ([COFFEE, "--mean", "1,2"], "mean"),
    "size": ([COFFEE, "--size", "0"], "size"),
    "device": ([COFFEE, "--device", "toaster"], "device.*toaster"),
    "unknown option": ([COFFEE, "--colour"], "--colour"),
    "no such model": ([COFFEE, "--model", "resnet"], "model.*torchvision:NAME"),
    "unknown torchvision model": ([COFFEE, "--model", "torchvision:resnet5"], "resnet5"),
    "unknown timm model": ([COFFEE, "--model", "timm:nonet"], "nonet"),
    "no such model file": ([COFFEE, "--model", "net.pt2"], "net.pt2"),
    "a file that is no model": ([COFFEE, "--model", "text.pt2"], "text.pt2"),
    "weights alone": ([COFFEE, "--model", "weights.pt"], "weights.pt.*torch.export"),
    "a pickled model": ([COFFEE, "--model", "pickled.pt"], "pickled.pt"),
    "no such module": ([COFFEE, "--model", "nomodule:net"], "nomodule"),
    "no such function": ([COFFEE, "--model", f"{__name__}:nonet"], "nonet"),
    "a function that returns no model": ([COFFEE, "--model", f"{__name__}:no_net"], "int"),
    "a model that returns a tuple": ([COFFEE, "--model", f"{__name__}:tuple_net"], "tuple.*target"),
    "output under a file": ([COFFEE, "-o", "text.png/out"], "text.png"),
    "output cannot be made": ([COFFEE, "-o", "/proc/midgrain/out"], "/proc/midgrain"),
    "one file for two": ([COFFEE, COFFEE, "-o", "a.png"], "output.*folder.*2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(run, case, tmp_path):
    (tmp_path / "text.png").write_text("this is text")
    (tmp_path / "text.pt2").write_text("this is text")
    (tmp_path / "empty").mkdir()
    torch.save(small_net().state_dict(), tmp_path / "weights.pt")
    torch.save(small_net(), tmp_path / "pickled.pt")
    before = sorted(tmp_path.rglob("*"))
    arguments, pattern = BAD[case]
    code, out, err = run("explain", *arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("midgrain: ")
    assert re.search(pattern, err), err
    assert sorted(tmp_path.rglob("*")) == before, "something was half-written"


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("demo", "-o", "text.png"),
        ("bench", "--seconds", "-1"),
        ("bench", "--seconds", "nan"),
        ("bench", "--seconds", "long"),
        ("bench", "more"),
    ],
)
def test_other_commands_refuse_in_one_sentence(run, arguments, tmp_path):
    (tmp_path / "text.png").write_text("this is text")
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_missing_torchvision_weights_are_named(run, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    code, _, err = run("explain", COFFEE, "--model", "torchvision:resnet18")
    assert code == 2
    assert "resnet18-f37072fd.pth" in err
    assert str(tmp_path / "cache") in err


def test_torchvision_weights_in_the_cache_are_used(run, monkeypatch, tmp_path):
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    (tmp_path / "cache" / "hub" / "checkpoints").mkdir(parents=True)
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    file = tmp_path / "cache" / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    torch.save(torchvision.models.resnet18().state_dict(), file)
    code, out, _ = run("explain", COFFEE, "--model", "torchvision:resnet18", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert row["target"]["label"] in weights.meta["categories"]


def test_installed_command_runs():
    done = subprocess.run([sys.executable, "-m", "midgrain", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"midgrain {mg.__version__}"


def test_options_of_methods(run):
    options = ("-O", "compactness=40", "--option", "gradient-compactness=5.5", "-O", "reduce=max")
    code, _, err = run("explain", COFFEE, "--method", "swag-ig", "--npz", "-o", "out", *options)
    assert (code, err) == (0, "")
    loaded = load_model("demo")
    normalisation = {"mean": loaded.preprocess.mean, "std": loaded.preprocess.std}
    explainer = mg.SWAG(loaded.model, compactness=40, gradient_compactness=5.5, reduce="max", **normalisation)
    expected = explainer(loaded.preprocess(open_picture(COFFEE)))
    saved = mg.Explanation.load(next(Path("out").glob("*.npz")))
    assert torch.equal(saved.segments, expected.segments)
    assert torch.equal(saved.heatmap, expected.heatmap)


def test_options_go_to_the_methods_that_have_them(run):
    methods = ("--method", "gradcam", "--method", "noise")
    code, _, err = run("explain", COFFEE, *methods, "--npz", "-o", "out", "-O", "seed=7")
    assert (code, err) == (0, "")
    noise = mg.Explanation.load("out/coffee.noise.npz").heatmap
    loaded = load_model("demo")
    assert torch.equal(
        noise, mg.explainer("noise", loaded.model, seed=7)(loaded.preprocess(open_picture(COFFEE))).heatmap
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("seed", "option: expected NAME=VALUE, like n_samples=500, got 'seed'"),
        ("=3", "option: expected NAME=VALUE, like n_samples=500, got '=3'"),
        ("sed=3", "option: 'sed' is no option of gradcam, noise; did you mean seed?"),
        ("mean=3", "option: 'mean' has an option of its own; see --help"),
        ("layer=features", "option: 'layer' has an option of its own; see --help"),
        ("seed=three", "seed: expected an int, got str"),
    ],
)
@pytest.mark.parametrize("name", ["explain", "compare"])
def test_options_that_no_method_has(run, name, option, message):
    code, _, err = run(name, COFFEE, "--method", "gradcam", "--method", "noise", "-O", option)
    assert code == 2
    assert message in err
