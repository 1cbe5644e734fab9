"""Networks for clips by name, and the command with them."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models as tv

from clips_for_tests import numbered_frames, write_video
from midgrain.clips import ClipPreprocess, open_clip
from midgrain.models import LoadedModel, load_model
from midgrain.pictures import Preprocess
from models_for_tests import one_thread, tiny_net  # noqa: F401

CLIPS = ClipPreprocess((24, 32), 24, (0.5,) * 3, (0.25,) * 3, frames=4, rate=10)


def loaded_network() -> LoadedModel:
    return LoadedModel(tiny_net(3), CLIPS, ["cat", "dog", "cow", "hen", "pig"], "mine")


def network() -> nn.Module:
    return tiny_net(3)


@pytest.fixture
def untrained(monkeypatch) -> None:
    """Torchvision's networks without their weights, which cannot be fetched here."""
    own = tv.get_model
    monkeypatch.setattr(tv, "get_model", lambda name, weights: own(name, weights=None))


@pytest.mark.parametrize("name", tv.list_models(module=tv.video))
def test_torchvisions_networks_bring_their_preprocessing(name, monkeypatch) -> None:
    monkeypatch.setattr(tv, "get_model", lambda name, weights: nn.Identity())
    loaded = load_model(f"torchvision:{name}")
    weights = tv.get_model_weights(name).DEFAULT
    frames = np.random.default_rng(0).integers(0, 256, (2, 150, 210, 3), np.uint8)
    expected = weights.transforms()(torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous())
    torch.testing.assert_close(loaded.preprocess(frames)[0], expected, rtol=0, atol=0)
    # The window stands in the weights' notes only.
    noted = dict(re.findall(r"`(clip_len|frame_rate)=([\d.]+)`", weights.meta["_docs"]))
    assert loaded.preprocess.frames == int(noted["clip_len"])
    assert loaded.preprocess.rate == float(noted["frame_rate"])
    assert loaded.labels == weights.meta["categories"]
    assert loaded.label(0) == "abseiling"


@pytest.mark.usefixtures("untrained")
def test_a_network_of_torchvision_runs_on_a_video(tmp_path) -> None:
    loaded = load_model("torchvision:mc3_18")
    path = write_video(tmp_path / "x.mkv", numbered_frames(30))
    window = loaded.preprocess.sized(32)
    x = window(open_clip(path, window.frames, rate=window.rate))
    assert x.shape == (1, 3, 16, 32, 32)
    with torch.no_grad():
        assert loaded.model(x).shape == (1, 400)
    assert not loaded.model.training


def test_functions_may_bring_a_preprocessing() -> None:
    loaded = load_model("test_models_for_clips:loaded_network")
    assert loaded.preprocess is CLIPS
    assert (loaded.label(3), loaded.name) == ("hen", "test_models_for_clips:loaded_network")
    assert isinstance(load_model("test_models_for_clips:network").preprocess, Preprocess)


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    """Runs the command in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name, n in (("a.mkv", 30), ("b.mkv", 12)):
        write_video(tmp_path / name, numbered_frames(n))
    Image.new("RGB", (40, 30)).save(tmp_path / "picture.png")
    return command


MINE = ("--model", "test_models_for_clips:loaded_network")
PLAIN = ("--model", "test_models_for_clips:network", "--frames", "4", "--size", "24")


def test_a_video_becomes_a_picture_and_a_film(run, tmp_path) -> None:
    code, out, err = run("explain", "a.mkv", *MINE, "--method", "vanilla", "--method", "swag-ig", "-o", "out")
    assert (code, err) == (0, "")
    assert "a.mkv: " in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"a.{method}.{suffix}" for method in ("swag-ig", "vanilla") for suffix in ("mp4", "png")
    ]
    with Image.open(tmp_path / "out" / "a.vanilla.png") as sheet:
        assert sheet.width > sheet.height
    film = open_clip(tmp_path / "out" / "a.vanilla.mp4", 4)
    # The crop at the video's own resolution, as fast as the network sees it.
    assert (film.length, film.frames.shape[1:3], film.rate) == (4, (48, 48), 10.0)


def test_one_film_as_json(run, tmp_path) -> None:
    arguments = ("explain", "a.mkv", *MINE, "--method", "vanilla", "--target", "hen", "--json", "--npz")
    code, out, err = run(*arguments, "-o", "x.webp", "--start", "0.4", "--end", "0.8", "--frames", "3")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)
    assert (row["target"]["label"], row["film"], row["output"]) == ("hen", "x.webp", "x.webp")
    assert (row["frames"], row["seconds"]) == ([10, 12, 15], [0.4, 0.48, 0.6])
    with Image.open(tmp_path / "x.webp") as film:
        assert film.n_frames == 3
    with np.load(tmp_path / "x.npz") as archive:
        assert archive["heatmap"].shape == (1, 3, 24, 24)


def test_folders_of_videos_and_of_frames(run, tmp_path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number, frame in enumerate(numbered_frames(6)):
        Image.fromarray(frame).save(frames / f"{number}.png")
    code, out, err = run("explain", ".", "frames", *MINE, "--method", "vanilla", "-o", "out", "--json")
    assert (code, err) == (0, "")
    assert [row["picture"] for row in json.loads(out)] == ["a.mkv", "b.mkv", "frames"]
    assert json.loads(out)[2]["seconds"] == [None] * 4
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_a_network_that_does_not_say_what_it_takes(run) -> None:
    code, out, _ = run("explain", "a.mkv", *PLAIN, "--rate", "5", "--method", "vanilla", "-o", "x.png", "--json")
    assert code == 0
    assert json.loads(out)[0]["frames"] == [5, 10, 15, 20]
    code, _, err = run("explain", "a.mkv", *PLAIN[:2], "--method", "vanilla")
    assert (code, "takes pictures, got the video 'a.mkv'" in err) == (2, True)


def test_videos_are_evaluated(run, tmp_path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a.mkv", "b.mkv"):
        (tmp_path / name).rename(videos / name)
    options = ("--methods", "vanilla", "--measures", "deletion", "--no-baselines", "-o", "run")
    code, out, err = run("evaluate", "videos", *MINE, *options)
    assert (code, err) == (0, "")
    assert "2 samples, 0 left out -> run/report.html" in out
    code, _, err = run("evaluate", "videos", "--frames", "8", *MINE, *options)
    assert code == 2  # Another configuration.
    assert "frames was 4 and is 8" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("explain", "a.mkv", "--model", "demo"),
            "picture: demo takes pictures, got the video 'a.mkv'; try --model demo-cl",
        ),
        (("explain", "picture.png", *MINE), "clip: test_models_for_clips:loaded_network takes clips, got the picture"),
        (("explain", "a.mkv", "--model", "demo", "--frames", "4"), "frames: demo takes pictures; there are demo-clip"),
        (
            ("explain", "picture.png", "--model", "demo", "--rate", "4"),
            "rate: demo takes pictures; there are demo-clip",
        ),
        (
            ("explain", "picture.png", "--model", "demo", "--start", "4"),
            "start: expected a network that takes clips, got",
        ),
        (
            ("explain", "picture.png", "--model", "demo", "-o", "x.mp4"),
            "output: expected a folder or a .png/.jpg/.webp",
        ),
        (("explain", "a.mkv", *MINE, "--frames", "0"), "frames: expected 1 .. 4096, got 0"),
        (("explain", "a.mkv", *MINE, "--start", "50"), "start: expected seconds before the end (1.200), got 50"),
        (("explain", "a.mkv", "b.mkv", *MINE, "-o", "x.mp4"), "output: expected a folder for 2 explanations"),
        (("explain", "no.mkv", *MINE), "picture: there is no file or folder 'no.mkv'"),
        (("explain", "empty", *MINE), "clip: the folder 'empty' holds no videos"),
        (
            ("compare", "picture.png", *MINE),
            "model: expected one for pictures, and test_models_for_clips:loaded_networ",
        ),
        (("evaluate", "a.mkv", *MINE), "dataset: expected a folder or a .csv file, got 'a.mkv'"),
        (("evaluate", "pictures", *MINE), "data: no sample could be evaluated; the first, x.png: input: the network"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, said, run, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "picture.png").rename(tmp_path / "pictures" / "x.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "picture.png")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"midgrain: {said}")
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))
