"""`serve` and `midgrain live`: a network's explanations on a page, from the first frame to Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from torch import nn

import midgrain as mg
from midgrain.clips import ClipPreprocess
from midgrain.models import LoadedModel
from midgrain.video import Controls, Settings
from waiting_for_tests import until

WAIT = 60.0
WINDOW = 4


class SmallNet(nn.Module):
    """Clips to three classes."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)
        )

    def forward(self, x):
        return self.layers(x)


class SmoothNet(SmallNet):
    """Without the ReLU that guided backpropagation needs."""

    def __init__(self):
        super().__init__()
        self.layers[1] = nn.SiLU()


def loaded(net=SmallNet) -> LoadedModel:
    torch.manual_seed(0)
    window = ClipPreprocess((40, 40), 32, (0.5,) * 3, (0.25,) * 3, frames=WINDOW, rate=None)
    return LoadedModel(net().eval(), window, ("red", "green", "blue"), "small")


def small_net() -> LoadedModel:
    return loaded()


@pytest.fixture
def frames() -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (12, 48, 64, 3), np.uint8)


def get(live, path: str):
    with urllib.request.urlopen(live.url + path, timeout=WAIT) as answer:
        return json.load(answer)


def change(live, **changes) -> dict:
    request = urllib.request.Request(
        live.url + "settings", json.dumps(changes).encode(), {"Content-Type": "application/json"}, method="PATCH"
    )
    with urllib.request.urlopen(request, timeout=WAIT) as answer:
        return json.load(answer)


def test_a_network_is_explained_and_follows_the_switches(frames) -> None:
    with mg.video.serve(frames, loaded(), port=0, loop=True) as live:
        until(lambda: live.broadcast.latest and live.broadcast.latest.facts["explained"])
        assert live.running
        facts = live.broadcast.latest.facts
        assert facts["method"] == "swag-ig"
        assert {each["label"] for each in facts["classes"]} == {"red", "green", "blue"}
        change(live, method="gradcam", target=1)
        until(lambda: live.broadcast.latest.facts["method"] == "gradcam")
        assert live.broadcast.latest.facts["target"]["label"] == "green"
        live.controls.change(side_by_side=True)
        until(lambda: live.broadcast.latest.facts["width"] == 128)
        assert get(live, "report")["ended"] == "running"
        assert get(live, "classes") == ["red", "green", "blue"]
        offered = {each["name"]: each for each in get(live, "methods")}
        assert offered.keys() == mg.methods().keys()
        assert offered["rise"]["slow"]
        assert not offered["gradcam"]["slow"]
        assert live.url in live._repr_html_()
    assert live.report.ended == "stopped"
    assert not live.running
    with pytest.raises(urllib.error.URLError):
        get(live, "report")
    assert live.close().ended == "stopped"


def test_a_method_that_the_network_cannot_follow_is_put_back(frames) -> None:
    with mg.video.serve(frames, mg.video.NetworkWindows(loaded(SmoothNet), "gradcam"), port=0, loop=True) as live:
        until(lambda: live.report.windows or (live.broadcast.latest and live.broadcast.latest.facts["explained"]))
        change(live, method="guided")
        until(lambda: live.controls.now.method is None)
        until(lambda: any(each["refused"] for each in get(live, "methods")))
        refused = {each["name"]: each["refused"] for each in get(live, "methods") if each["refused"]}
        assert refused.keys() == {"guided"}
        assert "ReLU" in refused["guided"]
        assert live.running


def test_a_stream_ends_by_itself(frames) -> None:
    live = mg.video.serve(frames, mg.SWAG(SmallNet().eval()), port=0, window=WINDOW)
    report = live.wait(WAIT)
    assert report.ended == "end of stream"
    assert report.frames == 12
    assert live.broadcast.latest.number == 11
    live.close()


def test_an_explainer_of_ones_own_has_no_other_methods(frames) -> None:
    def mine(x, target):
        return mg.explainer("centre", loaded().model)(x, target)

    with mg.video.serve(frames, mine, port=0, window=WINDOW, loop=True, preprocess=loaded().preprocess) as live:
        assert get(live, "methods") == []
        with pytest.raises(urllib.error.HTTPError) as refusal:
            change(live, method="gradcam")
        assert "method: expected one of" in json.load(refusal.value)["error"]
        refusal.value.close()


def test_what_the_explainer_raises_reaches_who_waits(frames) -> None:
    def broken(x, target):
        raise RuntimeError("the network is on fire")

    live = mg.video.serve(frames, broken, port=0, window=WINDOW, loop=True, preprocess=loaded().preprocess)
    with pytest.raises(RuntimeError, match="on fire"):
        live.wait(WAIT)
    assert not live.running
    live.close()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"port": 70000}, ValueError, "port: expected 0 .. 65535, got 70000"),
        ({"quality": 0}, ValueError, "quality: expected 1 .. 95, got 0"),
        ({"speed": 3}, TypeError, "serve: there is no option speed"),
        ({"controls": Settings()}, TypeError, "controls: expected midgrain.video.Controls, got Settings"),
        ({"controls": Controls(Settings(method="magic"))}, ValueError, "method: expected one of swag-i, "),
        ({"controls": Controls(Settings(target=3))}, ValueError, "target: expected a class 0 .. 2, got 3"),
    ],
)
def test_bad_arguments_leave_no_thread(frames, options, error, text) -> None:
    before = threading.active_count()
    with pytest.raises(error, match=text):
        mg.video.serve(frames, loaded(), **{"port": 0, **options})
    assert threading.active_count() == before


def test_streams_leave_no_thread(frames) -> None:
    before = threading.active_count()
    for _ in range(2):
        with mg.video.serve(frames, loaded(), port=0, loop=True) as live:
            until(lambda live=live: live.broadcast.latest)
    until(lambda: threading.active_count() <= before)


# --- The command ---


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "noise.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), np.uint8).repeat(4, axis=0)
    mg.clips.write_clip(frames, path, 12)
    return path


def test_the_command_plays_a_film_to_its_end(command, film) -> None:
    code, out, err = command("live", str(film), "--port", "0", "-m", "test_live_stream:small_net", "--no-loop")
    assert (code, err) == (0, "")
    address, summary = out.splitlines()
    assert address.startswith("http://127.0.0.1:")
    assert address.endswith("/  (Ctrl-C ends it)")
    assert summary.startswith(f"{film}: ")
    assert summary.endswith("(end of stream)")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("interruptible")
def test_the_command_ends_cleanly_when_it_is_asked_to(film, number) -> None:
    command = [sys.executable, "-m", "midgrain", "live", str(film), "--port", "0", "--json", "--host", "0.0.0.0"]
    command += ["-m", "test_live_stream:small_net", "--method", "gradcam", "--alpha", "0.25", "--target", "green"]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__), "MIDGRAIN_TOKEN": "a-token-from-outside"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        line = process.stderr.readline()
        warning = process.stderr.readline()
        address = line.split()[0]
        assert address.startswith("http://"), line + warning
        assert address.endswith("/?token=a-token-from-outside")
        port = address.split(":")[2].partition("/")[0]
        url = f"http://127.0.0.1:{port}/settings?token=a-token-from-outside"
        with urllib.request.urlopen(url, timeout=WAIT) as answer:
            settings = json.load(answer)
        assert (settings["alpha"], settings["target"], settings["method"]) == (0.25, 1, None)
        process.send_signal(number)
        out, err = process.communicate(timeout=WAIT)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    assert process.returncode == 0, err
    report = json.loads(out)
    assert report["ended"] == "stopped"
    assert report["source"] == str(film)
    assert "token" not in report["url"]
    assert "not encrypted" in warning
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nothing.mp4",), "there is no file"),
        (("--port", "70000"), "port: expected 0 .. 65535, got 70000"),
        (("--method", "magic"), "method: expected one of"),
        (("--alpha", "2"), "alpha: expected 0 .. 1, got 2"),
        (("--target", "purple"), "target: test_live_stream:small_net has no class 'purple'"),
        (("--n-segments", "0"), "n_segments: expected 1 or more, got 0"),
        (("--host", "203.0.113.7"), "host: '203.0.113.7' is no address of this machine"),
        (("--token", "two words"), "token: expected letters, digits and signs without spaces"),
        (("--quality", "0"), "quality: expected 1 .. 95, got 0"),
    ],
)
def test_bad_input_is_one_line(command, film, arguments, text) -> None:
    source = () if arguments[0].endswith(".mp4") else (str(film),)
    port = () if "--port" in arguments else ("--port", "0")
    code, out, err = command("live", *source, *arguments, *port, "-m", "test_live_stream:small_net")
    assert (code, out) == (2, "")
    assert text in err
    assert err.count("\n") == 1


def test_a_busy_port_is_said_before_the_network_is_loaded(command, film) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = command("live", str(film), "--port", str(port), "-m", "nowhere:nothing")
    assert code == 2
    assert err == f"midgrain: port: {port} is in use at 127.0.0.1; port 0 takes a free one\n"
