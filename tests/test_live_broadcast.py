"""One stream for many viewers: the newest frame wins, nobody waits, nothing grows."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from live_for_tests import drawn_frame
from midgrain.classes import ClassScore
from midgrain.video import Broadcast, Choices, Controls, Settings
from midgrain.video import broadcast as broadcast_module


def picture(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


@given(st.lists(st.sampled_from(["write", "take", "pause", "go on"]), max_size=40))
def test_the_newest_frame_wins_and_skipped_ones_are_counted(steps) -> None:
    broadcast = Broadcast()
    viewer = broadcast.join()
    waiting, skipped, taken, number, paused = None, 0, 0, 0, False
    for step in steps:
        if step == "write":
            broadcast.write(drawn_frame(number, size=(8, 16)))
            if not paused:
                skipped += waiting is not None
                waiting = number
            number += 1
        elif step == "take":
            shot = viewer.take()
            assert (shot.number if shot else None) == waiting
            taken += waiting is not None
            waiting = None
        else:
            paused = step == "pause"
            viewer.paused = paused
            waiting = None if paused else waiting
    assert (viewer.skipped, viewer.taken, viewer.paused) == (skipped, taken, paused)


def test_a_frame_is_encoded_once_for_all_and_not_at_all_for_none(monkeypatch) -> None:
    encoded = []
    real = broadcast_module._encode
    monkeypatch.setattr(broadcast_module, "_encode", lambda *a: encoded.append(1) or real(*a))
    broadcast = Broadcast()
    broadcast.write(drawn_frame(0))
    assert encoded == []
    viewers = [broadcast.join() for _ in range(5)]
    first = [viewer.take().jpeg for viewer in viewers]
    assert len(encoded) == 1
    assert len(set(map(id, first))) == 1
    broadcast.write(drawn_frame(1))
    assert len({id(viewer.take().jpeg) for viewer in viewers}) == 1
    assert len(encoded) == 2
    for viewer in viewers:
        viewer.paused = True
    broadcast.write(drawn_frame(2))
    assert len(encoded) == 2
    assert broadcast.latest.number == 2


@pytest.mark.parametrize("threads", [8])
def test_a_frame_is_encoded_once_by_many_threads_at_once(monkeypatch, threads) -> None:
    encoded = []
    real = broadcast_module._encode
    monkeypatch.setattr(broadcast_module, "_encode", lambda *a: (encoded.append(1), time.sleep(0.02), real(*a))[-1])
    broadcast = Broadcast()
    broadcast.write(drawn_frame(0))
    together = threading.Barrier(threads)

    def look():
        together.wait()
        assert broadcast.latest.jpeg[:2] == b"\xff\xd8"

    workers = [threading.Thread(target=look) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(encoded) == 1


def test_the_picture_is_the_drawn_one() -> None:
    broadcast = Broadcast(quality=95)
    drawn = drawn_frame(4, Controls(Settings(contours=False)))
    broadcast.write(drawn)
    seen = picture(broadcast.latest.jpeg)
    assert seen.shape == drawn.pixels.shape
    grey = seen.astype(int).mean(-1) - drawn.pixels.astype(int).mean(-1)
    assert np.abs(grey).mean() < 1
    facts = broadcast.latest.facts
    assert (facts["number"], facts["seconds"], facts["width"], facts["height"]) == (4, 0.16, 160, 96)
    assert (facts["method"], facts["target"]["label"], facts["explained"]) == ("swag-ig", "class 3", True)


@pytest.mark.parametrize(
    ("size", "expected"), [((100, 400), (50, 200)), ((400, 10), (200, 5)), ((200, 199), (200, 199))]
)
def test_large_pictures_are_shrunk(size, expected) -> None:
    broadcast = Broadcast(max_side=200)
    broadcast.write(drawn_frame(0, size=size))
    assert picture(broadcast.latest.jpeg).shape == (*expected, 3)
    assert broadcast.latest.facts["height"] == size[0]


def test_pixels_that_are_a_view_and_of_odd_size() -> None:
    drawn = drawn_frame(3, size=(51, 77))
    turned = replace(drawn, pixels=drawn.pixels[::-1, ::-1])
    broadcast = Broadcast(quality=95)
    broadcast.write(turned)
    assert np.abs(picture(broadcast.latest.jpeg).astype(int) - turned.pixels.astype(int)).mean() < 30


def test_history_is_bounded_spaced_and_survives_a_clock_that_goes_back() -> None:
    broadcast = Broadcast(points=20, spacing=0.1)
    for number in range(100):
        broadcast.write(drawn_frame(number, rate=25.0, size=(8, 16)))
    history = broadcast.history
    assert len(history) == 20
    gaps = np.diff([point.seconds for point in history])
    assert gaps.min() >= 0.1
    assert gaps.max() < 0.2
    broadcast.write(drawn_frame(0, size=(8, 16)))
    assert broadcast.history[-1].seconds == 0.0
    assert broadcast.history[-1].classes[0].label == "class 3"


def test_what_no_json_has_becomes_null() -> None:
    drawn = drawn_frame(0)
    odd = ClassScore(1, "one", float("nan"))
    explained = replace(drawn.explained, target=odd, classes=(odd,), heat=None)
    broadcast = Broadcast()
    broadcast.write(replace(drawn, explained=explained))
    facts = broadcast.latest.facts
    assert facts["target"] == {"index": 1, "label": "one", "probability": None}
    assert facts["explained"] is False
    broadcast.write(replace(drawn, explained=replace(explained, target=None, classes=())))
    assert broadcast.latest.facts["target"] is None


def test_viewers_come_and_go_while_frames_come() -> None:
    broadcast = Broadcast()
    stop = threading.Event()
    errors = []

    def come_and_go():
        try:
            while not stop.is_set():
                viewer = broadcast.join()
                viewer.take()
                broadcast.leave(viewer)
                broadcast.leave(viewer)
        except Exception as error:
            errors.append(error)

    workers = [threading.Thread(target=come_and_go) for _ in range(4)]
    for worker in workers:
        worker.start()
    for number in range(100):
        broadcast.write(drawn_frame(number, size=(8, 16)))
    stop.set()
    for worker in workers:
        worker.join()
    assert errors == []
    assert broadcast.viewers == 0


def test_closed() -> None:
    broadcast = Broadcast()
    broadcast.write(drawn_frame(0))
    broadcast.close()
    assert broadcast.join().take().number == 0
    with pytest.raises(RuntimeError, match="closed"):
        broadcast.write(drawn_frame(1))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"quality": 0}, ValueError, "quality: expected 1 .. 95, got 0"),
        ({"quality": 80.0}, TypeError, "quality: expected an int, got float"),
        ({"quality": True}, TypeError, "quality: expected an int, got bool"),
        ({"max_side": 8}, ValueError, "max_side: expected 16 .. 65500, got 8"),
        ({"points": 0}, ValueError, "points: expected 1 .. 1000000, got 0"),
        ({"spacing": -1.0}, ValueError, "spacing: expected 0 or more seconds, got -1.0"),
        ({"spacing": float("nan")}, ValueError, "spacing: expected 0 or more seconds, got nan"),
    ],
)
def test_bad_options(options, error, text) -> None:
    with pytest.raises(error, match=text.replace(".", r"\.")):
        Broadcast(**options)


@pytest.mark.parametrize(
    ("pixels", "error", "text"),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError, "pixels: expected uint8, got float32"),
        (np.zeros((4, 4), np.uint8), ValueError, r"pixels: expected \[H, W, 3\], got \[4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"pixels: expected \[H, W, 3\], got \[0, 4, 3\]"),
    ],
)
def test_bad_pixels(pixels, error, text) -> None:
    with pytest.raises(error, match=text):
        Broadcast().write(replace(drawn_frame(0), pixels=pixels))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method": "lime"}, "method: expected one of swag-ig, sobel, got 'lime'"),
        ({"target": 3}, "target: expected a class 0 .. 2, got 3"),
        ({"n_segments": 10**9}, "n_segments: expected at most 20000, got 1000000000"),
    ],
)
def test_choices_that_are_none(changes, text) -> None:
    with pytest.raises(ValueError, match=text.replace(".", r"\.")):
        Choices("swag-ig", {"swag-ig": "", "sobel": ""}, classes=3).check(changes)


def test_choices_of_a_stream_whose_method_cannot_change() -> None:
    with pytest.raises(ValueError, match="method: expected one of mine alone, got 'sobel'"):
        Choices("mine").check({"method": "sobel"})
    Choices("mine").check({"method": None, "target": 10**6, "n_segments": 5, "alpha": 0.1})
