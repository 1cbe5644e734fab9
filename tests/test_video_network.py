"""Streams from a network, which here is this machine: they come, break, come back, or stay away."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import av
import numpy as np
import pytest

from clips_for_tests import numbered_frames
from midgrain.video import explain_stream, open_source
from midgrain.video.sources import network
from streams_for_tests import Told, our_threads


def transport_stream(n: int, codec: str = "mpeg2video") -> bytes:
    """Numbered frames, 50 per second, in a container that can be cut anywhere."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream(codec, rate=50)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number, pixels in enumerate(numbered_frames(n)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


class Camera:
    """An HTTP server that sends each visitor the same stream at its own pace, then stands still or hangs up."""

    def __init__(self, content: bytes, seconds: float, *, hang_up: bool = True):
        self.content, self.seconds, self.hang_up = content, seconds, hang_up
        self.visits = 0
        self._off = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/live.ts"
        self._threads: list[threading.Thread] = []
        self._start()

    def _start(self) -> None:
        self._off.clear()
        self._listener.settimeout(0.05)
        thread = threading.Thread(target=self._serve, args=(self._listener,))
        thread.start()
        self._threads.append(thread)

    def _serve(self, listener: socket.socket) -> None:
        while not self._off.is_set():
            try:
                visitor, _ = listener.accept()
            except OSError:
                continue
            self.visits += 1
            thread = threading.Thread(target=self._send, args=(visitor,))
            thread.start()
            self._threads.append(thread)
        listener.close()

    def _send(self, visitor: socket.socket) -> None:
        size = 188 * 20
        chunks = [self.content[start : start + size] for start in range(0, len(self.content), size)]
        with visitor, suppress(OSError):
            visitor.recv(4096)
            length = f"Content-Length: {len(self.content)}\r\n" if self.hang_up else ""
            visitor.sendall(f"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n{length}\r\n".encode())
            for chunk in chunks:
                if self._off.wait(self.seconds / len(chunks)):
                    return
                visitor.sendall(chunk)
            if not self.hang_up:
                self._off.wait(60)

    def stop(self) -> None:
        self._off.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def restart(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._start()


@pytest.fixture(scope="module")
def content() -> bytes:
    return transport_stream(50)


@contextmanager
def camera(*arguments, **named) -> Iterator[Camera]:
    made = Camera(*arguments, **named)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(network, "_OPEN_TIMEOUT", 5.0)
    monkeypatch.setattr(network, "_READ_TIMEOUT", 1.5)
    monkeypatch.setattr(network, "_FIRST_PAUSE", 0.05)
    yield
    assert our_threads() == []


def level(pixels: np.ndarray) -> int:
    return round(float(pixels[20:, 20:].mean()) / 3)


def test_a_stream_as_a_file(content) -> None:
    with camera(content, 0.1) as made:
        source = open_source(made.url, live=False)
        assert not source.live
        frames = list(source)
    assert source.size == (64, 48)
    assert len(frames) == 50
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(50) / 50, atol=1e-4)
    assert [level(frame.pixels) for frame in frames] == [*range(50)]
    assert source.complaints == []


def test_films_that_come_by_http_are_no_live_streams(content) -> None:
    with camera(content, 0.1) as made:
        assert not open_source(made.url).live
    with camera(content, 0.1, hang_up=False) as made:
        assert open_source(made.url).live


def test_a_live_stream_that_is_lost_for_good(content) -> None:
    with camera(content, 0.5) as made:
        source = open_source(made.url, live=True, reconnect=0)
        assert source.live
        assert source.rate == pytest.approx(50)
        shown: list = []
        report = explain_stream(source, Told(), shown, 4, 1, draw=False)
    assert report.ended == "source lost"
    assert report.reconnects == 0
    assert report.frames == 50 == report.written + report.dropped
    assert report.complaints == (f"{made.url} was lost: it ended",)


def test_a_live_stream_that_comes_back(content) -> None:
    stop, shown = threading.Event(), []
    with camera(content, 1.0) as made:
        switched = threading.Event()

        def sink(frame) -> None:
            shown.append(frame.frame)
            if len(shown) == 5:
                switched.set()
            if len(shown) > 10 and report_now.snapshot().reconnects and frame.frame.number > 60:
                stop.set()

        from midgrain.video import StreamStats

        report_now = StreamStats()

        def switch() -> None:
            switched.wait(10)
            made.stop()
            time.sleep(0.3)
            made.restart()

        switching = threading.Thread(target=switch)
        switching.start()
        report = explain_stream(
            open_source(made.url, live=True), Told(), sink, 4, 1, stop=stop, stats=report_now, draw=False
        )
        switching.join()
    assert report.ended == "stopped"
    assert report.reconnects >= 1
    assert any("was lost" in complaint for complaint in report.complaints)
    numbers = [frame.number for frame in shown]
    seconds = [frame.seconds for frame in shown]
    assert numbers == sorted(set(numbers))
    assert (np.diff(seconds) > 0).all()
    # The clock went on while the camera was away.
    assert max(np.diff(seconds)) > 0.2


def test_a_stream_that_stands_still_is_opened_again(content) -> None:
    with camera(content, 0.1, hang_up=False) as made:
        source = open_source(made.url, live=True, reconnect=None)
        frames = []
        for frame in source:
            frames.append(frame)
            if len(frames) > 60:
                source.close()
        assert made.visits >= 2
    assert source.reconnects >= 1


def test_pauses_grow_until_it_is_given_up(content) -> None:
    pauses = []

    class Noting(threading.Event):
        def wait(self, timeout=None):
            pauses.append(timeout)
            return super().wait(timeout)

    with camera(content, 0.1) as made:
        source = open_source(made.url, live=True, reconnect=0.8)
        source._closed = Noting()
        frames = iter(source)
        next(frames)
        made.stop()
        rest = list(frames)
    assert len(rest) < 50
    assert source.lost
    assert source.reconnects == 0
    # As many as fit into the time, on a busy machine fewer.
    assert pauses == [0.05, 0.1, 0.2, 0.4][: max(1, len(pauses))]


def test_nothing_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ValueError, match=rf"source: http://127.0.0.1:{port}/x cannot be opened \(Connection refused"):
        open_source(f"http://127.0.0.1:{port}/x")
    with camera(b"no video at all" * 1000, 0.1) as made, pytest.raises(ValueError, match="cannot be opened"):
        open_source(made.url)
