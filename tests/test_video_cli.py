"""`midgrain video` as a user meets it."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from clips_for_tests import decoded, numbered_frames, write_video
from midgrain.clips import ClipPreprocess
from midgrain.models import LoadedModel
from models_for_tests import one_thread  # noqa: F401

TINY = "test_video_cli:tiny"


def tiny() -> LoadedModel:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv3d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    preprocess = ClipPreprocess(24, 20, (0.4,) * 3, (0.3,) * 3, frames=4, rate=10.0)
    return LoadedModel(net, preprocess, ["ant", "bee", "cat"], "tiny")


@pytest.fixture
def run(command):
    """Runs `midgrain video ...`: exit code, stdout, stderr."""
    return functools.partial(command, "video")


@pytest.fixture
def clip(tmp_path) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
    return write_video(tmp_path / "clip.mkv", frames, rate=20)


def test_a_video(run, clip, tmp_path) -> None:
    out = tmp_path / "new folder" / "out.mp4"
    code, said, complained = run(clip, "-o", out, "--model", TINY)
    assert (code, complained) == (0, "")
    assert said.startswith(f"{clip}: 30 frames, 7 windows, ")
    assert said.rstrip().endswith(f"-> {out}")
    assert decoded(out).shape == (30, 48, 64, 3)


def test_the_report_as_json(run, clip, tmp_path) -> None:
    out = tmp_path / "out.webm"
    options = ("--method", "gradcam", "--layer", "0", "--target", "bee", "--stride", 4, "--merge", "latest")
    code, said, _ = run(clip, "-o", out, "-m", TINY, *options, "--side-by-side", "--alpha", 0.3, "--json")
    found = json.loads(said)
    assert code == 0
    assert (found["frames"], found["written"], found["windows"], found["ended"]) == (30, 30, 4, "end of stream")
    assert found["stages"]["explain"]["count"] == 4
    assert found["output"] == str(out)
    assert decoded(out).shape == (30, 48, 128, 3)


def test_drawing_options(run, clip, tmp_path) -> None:
    films = {}
    for name, options in {
        "both": (),
        "no contours": ("--no-contours",),
        "faint": ("--alpha", 0.1),
        "few": ("--n-segments", 2),
    }.items():
        assert run(clip, "-o", tmp_path / "out.mkv", "-m", TINY, *options)[0] == 0
        films[name] = decoded(tmp_path / "out.mkv").astype(int)
    original = decoded(clip).astype(int)
    differs = {name: np.abs(film - original).mean() for name, film in films.items()}
    assert differs["faint"] < differs["both"]
    assert all((films["both"] != films[name]).any() for name in films if name != "both")


def test_a_damaged_video_is_written_as_far_as_it_goes(run, clip, tmp_path) -> None:
    cut, out = tmp_path / "cut.mkv", tmp_path / "out.mp4"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    code, said, complained = run(cut, "-o", out, "-m", TINY)
    assert code == 1
    assert "earlier than it says" in complained
    frames = len(decoded(out))
    assert 5 < frames < 25
    assert f"{frames} frames" in said


def test_a_folder_of_frames(run, tmp_path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, pixels in enumerate(numbered_frames(12)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    code, said, _ = run(folder, "-o", tmp_path / "out.mp4", "-m", TINY, "--source-rate", 20, "--json")
    assert code == 0
    assert json.loads(said)["windows"] == 2
    assert len(decoded(tmp_path / "out.mp4")) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("nothing.mp4", "-o", "x.mp4"), "there is no file 'nothing.mp4'"),
        (("CLIP", "-o", "x.avi"), "sink: expected a file ending in .mp4, .mkv, .webm, got 'x.avi'"),
        (("CLIP", "-o", "x.mp4", "--method", "no"), "method: expected one of"),
        (("CLIP", "-o", "x.mp4", "--alpha", "2"), "alpha: expected 0 .. 1, got 2.0"),
        (("CLIP", "-o", "x.mp4", "--stride", "0"), "stride: expected 1 .. 4096, got 0"),
        (("CLIP", "-o", "x.mp4", "--merge", "no"), "merge: expected mean, centre, latest, got 'no'"),
        (("CLIP", "-o", "x.mp4", "--target", "dog"), "target: .* has no class 'dog'"),
        (("camera:63", "-o", "x.mp4"), "there is no camera that may be used at /dev/video63"),
        (("CLIP",), "Missing option"),
    ],
)
def test_bad_input_gets_one_sentence(run, clip, options, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, complained = run(*[clip if each == "CLIP" else each for each in options], "-m", TINY)
    assert (code, said) == (2, "")
    assert complained.count("\n") == 1
    assert re.search(message, complained), complained
    assert not (tmp_path / "x.mp4").exists()


def test_ctrl_c_leaves_a_film(run, tmp_path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (8, 48, 64, 3), np.uint8)
    clip = write_video(tmp_path / "long.mkv", np.concatenate([frames] * 150), rate=20)
    out = tmp_path / "out.mp4"
    before = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not [*tmp_path.glob(".out.mp4.*")] and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    code, said, _ = run(clip, "-o", out, "-m", TINY, "--stride", 1, "--json")
    found = json.loads(said)
    assert code == 130
    assert found["ended"] == "stopped"
    assert 0 < found["written"] == len(decoded(out)) < 1200
    assert [*tmp_path.glob(".out.mp4.*")] == []
    assert signal.getsignal(signal.SIGINT) is before
