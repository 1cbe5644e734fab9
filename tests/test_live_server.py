"""The page's server as its viewers meet it: frames, settings, errors, and goodbye."""

from __future__ import annotations

import asyncio
import http.client
import io
import itertools
import json
import logging
import os
import socket
import threading
import time
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest
from PIL import Image

from live_for_tests import LABELS, METHODS, LivePage
from midgrain.video import Broadcast, Controls, PageServer, StreamReport

WAIT = 20.0


@pytest.fixture
def page():
    with LivePage() as page:
        yield page


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog):
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def run(coroutine):
    async def in_time():
        async with asyncio.timeout(WAIT):
            return await coroutine

    return asyncio.run(in_time())


@asynccontextmanager
async def viewer(url: str, **options):
    """A WebSocket to the stream."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url + "stream", **options) as socket:
        yield socket


def open_frame(data: bytes) -> tuple[dict, np.ndarray]:
    length = int.from_bytes(data[:4], "big")
    return json.loads(data[4 : 4 + length]), np.asarray(Image.open(io.BytesIO(data[4 + length :])))


async def next_frame(socket, *, ack: bool = True) -> tuple[dict, np.ndarray]:
    async for message in socket:
        if message.type == aiohttp.WSMsgType.BINARY:
            facts, picture = open_frame(message.data)
            if ack:
                await socket.send_json({"ack": facts["id"]})
            return facts, picture
    raise AssertionError(f"closed with {socket.close_code}")


async def next_text(socket, kind: str) -> dict:
    async for message in socket:
        if message.type == aiohttp.WSMsgType.BINARY:
            await socket.send_json({"ack": open_frame(message.data)[0]["id"]})
        elif message.type == aiohttp.WSMsgType.TEXT and message.json()["type"] == kind:
            return message.json()
    raise AssertionError(f"closed with {socket.close_code}")


def ask(page, path: str, method: str = "GET", body=None, **headers: str) -> tuple[int, dict, bytes]:
    """(status, headers, body); the connection is this request's alone."""
    address = urlsplit(page.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=WAIT)
    try:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def change(page, changes, **headers: str) -> tuple[int, dict]:
    body = changes if isinstance(changes, str | bytes) else json.dumps(changes)
    status, _, answer = ask(page, "/settings", "PATCH", body, **{"Content-Type": "application/json", **headers})
    return status, json.loads(answer)


def test_frames_come_in_order_with_what_explains_them(page) -> None:
    async def look():
        async with viewer(page.url) as socket:
            hello = (await socket.receive()).json()
            return hello, [await next_frame(socket) for _ in range(12)]

    hello, frames = run(look())
    assert (hello["type"], hello["protocol"], hello["title"]) == ("hello", 1, "A stream of <stripes>")
    assert hello["given"] == "swag-ig"
    assert hello["settings"]["alpha"] == 0.5
    numbers = [facts["number"] for facts, _ in frames]
    assert numbers == sorted(set(numbers))
    assert [facts["id"] for facts, _ in frames] == list(range(1, 13))
    facts, picture = frames[-1]
    assert picture.shape == (96, 160, 3)
    assert facts["target"]["label"] == "class 3"
    assert [each["label"] for each in facts["classes"]] == ["class 3", LABELS[10], "crane"]
    assert 0 <= facts["latency"] < 5
    assert (facts["dropped"], facts["rate"], facts["method"]) == (7, 25.0, "swag-ig")
    assert any(np.abs(a.astype(int) - b).mean() > 5 for (_, a), (_, b) in itertools.pairwise(frames))


def test_the_report_tells_of_the_stream_and_of_the_viewer(page) -> None:
    async def look():
        async with viewer(page.url) as socket:
            for _ in range(3):
                await next_frame(socket)
            while not (report := await next_text(socket, "report"))["viewer"]["shown_after"]:
                pass
            return report

    report = run(look())
    assert report["viewers"] == 1
    assert report["viewer"]["sent_after"]["p50"] <= report["viewer"]["shown_after"]["p95"]
    assert report["stages"]["network"]["p50"] is None
    assert report["complaints"] == ["the camera <b>blinked</b>"]
    status, _, body = ask(page, "/report")
    assert status == 200
    assert json.loads(body)["dropped"] == 7


def test_a_stalled_viewer_costs_the_others_nothing() -> None:
    size = (480, 640)

    async def look(page):
        async with viewer(page.url) as stalled, viewer(page.url) as first, viewer(page.url) as second:
            await asyncio.sleep(0)  # Nothing is ever read from `stalled`.
            for _ in range(40):
                (a, _), (b, _) = await asyncio.gather(next_frame(first), next_frame(second))
            report = await next_text(first, "report")
            assert report["viewers"] == 3
            skipped = page.broadcast._viewers[0].skipped, page.broadcast._viewers[0].taken
            await stalled.close()
            return a, b, skipped, page.feeder.written

    with LivePage(rate=50.0, size=size) as page:
        a, b, (skipped, taken), written = run(look(page))
        assert page.feeder.longest < 1.0
    # Those who read get nearly all frames, whatever the machine's speed: few are skipped at a time.
    assert a["number"] >= 39
    assert b["number"] >= 39
    assert a["skipped"] + b["skipped"] < 0.5 * written
    assert taken <= 2
    assert skipped >= 30


def test_what_a_stalled_viewer_holds_does_not_grow() -> None:
    """Never acknowledging: two frames are under way and one waits, whatever comes."""

    async def look(page):
        async with viewer(page.url) as socket:
            got = []
            while page.feeder.written < 60:
                try:
                    async with asyncio.timeout(0.05):
                        message = await socket.receive()
                except TimeoutError:
                    continue
                if message.type == aiohttp.WSMsgType.BINARY:
                    got.append(open_frame(message.data)[0])
            await socket.send_json({"ack": got[-1]["id"]})
            newest, _ = await next_frame(socket)
            return got, newest, page.feeder.written

    with LivePage(rate=100.0) as page:
        got, newest, written = run(look(page))
    assert len(got) == 2
    # The newest wins: what it gets next is of now, not of when it fell asleep.
    assert newest["number"] >= written - 5
    assert newest["skipped"] >= 50


def test_a_paused_viewer_gets_no_frames_and_nothing_counts_as_skipped(page) -> None:
    async def look():
        async with viewer(page.url) as socket:
            await next_frame(socket)
            await socket.send_json({"pause": True})
            while not (report := await next_text(socket, "report"))["viewer"]["paused"]:
                pass
            sent = report["viewer"]["sent"]
            for _ in range(2):
                report = await next_text(socket, "report")
            assert report["viewer"]["sent"] == sent
            skipped = report["viewer"]["skipped"]
            before = page.feeder.written
            await socket.send_json({"pause": False})
            facts, _ = await next_frame(socket)
            return facts, skipped, before

    facts, skipped, before = run(look())
    assert facts["number"] >= before - 1
    assert facts["skipped"] <= skipped + 2


def test_a_change_reaches_the_stream_and_every_viewer(page) -> None:
    async def look():
        async with viewer(page.url) as first, viewer(page.url) as second:
            await next_frame(first)
            status, settings = await asyncio.to_thread(
                change, page, {"alpha": 0, "method": "sobel", "target": 12, "n_segments": 300, "side_by_side": True}
            )
            told = [await next_text(each, "settings") for each in (first, second)]
            while True:
                facts, picture = await next_frame(second)
                if facts["method"] == "sobel":
                    return status, settings, told, facts, picture

    status, settings, told, facts, picture = run(look())
    assert status == 200
    expected = {
        "method": "sobel",
        "target": 12,
        "n_segments": 300,
        "alpha": 0,
        "contours": True,
        "side_by_side": True,
    }
    assert settings == expected
    assert [each["settings"] for each in told] == [expected, expected]
    assert facts["target"] == {"index": 12, "label": "crane", "probability": 0.25}
    assert picture.shape == (96, 320, 3)
    assert np.ptp(picture.astype(int), axis=-1).mean() < 3  # Alpha 0: no red.
    assert json.loads(ask(page, "/settings")[2]) == expected


def test_a_change_from_python_reaches_viewers(page) -> None:
    async def look():
        async with viewer(page.url) as socket:
            await next_frame(socket)
            page.controls.change(alpha=0.125)
            page.server.notify("method: something <b>odd</b>")
            return await next_text(socket, "settings"), await next_text(socket, "notice")

    told, notice = run(look())
    assert told["settings"]["alpha"] == 0.125
    assert notice["messages"] == ["method: something <b>odd</b>"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"alpha": 2}, "alpha: expected 0 .. 1, got 2"),
        ({"alpha": "much"}, "alpha: expected a number, got str"),
        ({"contours": 1}, "contours: expected true or false, got 1"),
        ({"n_segments": 0}, "n_segments: expected 1 or more, got 0"),
        ({"n_segments": 10**7}, "n_segments: expected at most 20000, got 10000000"),
        ({"target": 13}, "target: expected a class 0 .. 12, got 13"),
        ({"target": -1}, "target: expected 0 or more, got -1"),
        ({"target": [1]}, "target: expected an int or None, got list"),
        ({"method": "magic"}, "method: expected one of swag-ig, gradcam, sobel, got 'magic'"),
        ({"method": 3}, "method: expected a name, got int"),
        ({"speed": 3}, "settings: expected one of method, target, n_segments, alpha, contours"),
        ([1, 2], "settings: expected an object of settings, got list"),
        ("{", "settings: expected JSON"),
        ("", "settings: expected JSON"),
        ("[" * 4000, "settings: expected JSON"),
        (b"\xff\xfe", "settings: expected JSON"),
        ('{"alpha": NaN}', "alpha: expected 0 .. 1, got nan"),
        ('{"alpha": 1e999}', "alpha: expected 0 .. 1, got inf"),
        ({"alpha": 0.9, "target": 99}, "target: expected a class 0 .. 12, got 99"),
    ],
)
def test_changes_that_are_none(page, changes, text) -> None:
    before = page.controls.now
    status, answer = change(page, changes)
    assert status == 400
    assert answer["error"].startswith(text)
    assert page.controls.now == before


def test_requests_that_are_none(page) -> None:
    assert change(page, {"alpha": 1}, **{"Content-Type": "text/plain"})[0] == 415
    assert change(page, {"alpha": 1}, **{"Content-Type": "application/json; charset=nonsense"})[0] == 400
    status, answer = change(page, '{"alpha": ' + " " * 10_000 + "1}")
    assert status == 413
    assert "Maximum request body size" in answer["error"]
    for path, method, expected in (
        ("/nothing", "GET", 404),
        ("/assets/../server.py", "GET", 404),
        ("/assets/%2e%2e%2fserver.py", "GET", 404),
        ("/settings", "DELETE", 405),
        ("/settings", "POST", 405),
        ("/stream", "GET", 426),
    ):
        status, headers, body = ask(page, path, method)
        assert (status, set(json.loads(body))) == (expected, {"error"}), path
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert page.controls.now.alpha == 0.5


def test_nonsense_in_place_of_http(page) -> None:
    address = urlsplit(page.url)
    for nonsense in (
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n" + b"x: y\r\n" * 5000,
        b"G",
    ):
        with socket.create_connection((address.hostname, address.port), timeout=WAIT) as connection:
            connection.sendall(nonsense)
            connection.shutdown(socket.SHUT_WR)
            try:
                answer = connection.recv(65536)
            except ConnectionResetError:
                answer = b""
        assert not answer or b" 400 " in answer.split(b"\r\n")[0]
    assert ask(page, "/report")[0] == 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "message: expected JSON"),
        ("[" * 4000, "message: expected JSON"),
        ("[]", 'message: expected {"ack": ID} or {"pause": true | false}'),
        ('{"pause": 1}', 'message: expected {"ack": ID} or {"pause": true | false}'),
        ('{"ack": true}', 'message: expected {"ack": ID} or {"pause": true | false}'),
        ('{"ack": 1, "pause": true}', 'message: expected {"ack": ID} or {"pause": true | false}'),
        ('{"alpha": 1}', 'message: expected {"ack": ID} or {"pause": true | false}'),
        ('{"ack": -1}', "message: ack: expected the id of a frame that was sent"),
        ('{"ack": 123456789}', "message: ack: expected the id of a frame that was sent"),
        (b"\x00\x01", "message: expected text, got bytes"),
    ],
)
def test_messages_that_make_no_sense_are_answered(page, text, expected) -> None:
    async def look():
        async with viewer(page.url) as socket:
            await next_frame(socket)
            await (socket.send_bytes(text) if isinstance(text, bytes) else socket.send_str(text))
            error = await next_text(socket, "error")
            await next_frame(socket)  # It goes on.
            return error

    assert run(look())["message"].startswith(expected)


def test_who_makes_no_sense_for_long_is_sent_away(page) -> None:
    async def look():
        async with viewer(page.url) as socket:
            for _ in range(25):
                await socket.send_str("nonsense")
            async for _ in socket:
                pass
            return socket.close_code

    assert run(look()) == aiohttp.WSCloseCode.POLICY_VIOLATION
    assert ask(page, "/report")[0] == 200


def test_a_huge_message_ends_its_viewer_alone(page) -> None:
    async def look():
        async with viewer(page.url) as other, viewer(page.url) as socket:
            await socket.send_str("[" + "1," * 100_000)
            async for _ in socket:
                pass
            await next_frame(other)
            return socket.close_code

    assert run(look()) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


def test_a_viewer_that_vanishes_in_the_middle_of_a_frame() -> None:
    with LivePage(rate=50.0, size=(720, 1280)) as page:
        address = urlsplit(page.url)
        for path, upgrade in (("/stream", True), ("/mjpeg", False)):
            connection = socket.create_connection((address.hostname, address.port), timeout=WAIT)
            head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            if upgrade:
                head += (
                    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                )
            connection.sendall(head.encode() + b"\r\n")
            connection.recv(700)  # The head, and the beginning of something.
            linger = (1).to_bytes(4, "little") + bytes(4)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)  # It goes without a goodbye.
            connection.close()
        until = time.monotonic() + WAIT
        while page.broadcast.viewers and time.monotonic() < until:
            time.sleep(0.02)
        assert page.broadcast.viewers == 0
        assert ask(page, "/report")[0] == 200


def test_a_silent_viewer_is_let_go() -> None:
    async def look(page):
        async with viewer(page.url, autoping=False) as socket:
            until = time.monotonic() + WAIT
            while page.broadcast.viewers and time.monotonic() < until:
                await asyncio.sleep(0.05)
            assert page.broadcast.viewers == 0
            await socket.close()

    with LivePage(heartbeat=0.4) as page:
        run(look(page))


def test_mjpeg_is_parts_of_pictures(page) -> None:
    address = urlsplit(page.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=WAIT)
    connection.request("GET", "/mjpeg")
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "multipart/x-mixed-replace; boundary=midgrain-frame"
    pictures = []
    for _ in range(4):
        assert answer.readline() == b"--midgrain-frame\r\n"
        assert answer.readline() == b"Content-Type: image/jpeg\r\n"
        length = int(answer.readline().split(b":")[1])
        assert answer.readline() == b"\r\n"
        pictures.append(np.asarray(Image.open(io.BytesIO(answer.read(length)))))
        assert answer.readline() == b"\r\n"
    answer.close()
    connection.close()
    assert {picture.shape for picture in pictures} == {(96, 160, 3)}
    assert any((a != b).any() for a, b in itertools.pairwise(pictures))


def test_the_snapshot_is_the_newest_frame(page) -> None:
    until = time.monotonic() + WAIT
    while page.broadcast.latest is None and time.monotonic() < until:
        time.sleep(0.01)
    status, headers, body = ask(page, "/snapshot.jpg")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert np.asarray(Image.open(io.BytesIO(body))).shape == (96, 160, 3)
    with PageServer(Broadcast(), Controls(), StreamReport, port=0) as server:
        status, _, body = ask(server, "/snapshot.jpg")
    assert (status, json.loads(body)) == (503, {"error": "snapshot: there is no frame yet"})


def test_what_there_is_to_choose(page) -> None:
    methods = json.loads(ask(page, "/methods")[2])
    assert {each["name"]: each["line"] for each in methods} == METHODS
    assert [each["name"] for each in methods if each["slow"]] == ["sobel"]
    assert {each["refused"] for each in methods} == {None}
    assert json.loads(ask(page, "/classes")[2]) == list(LABELS)


def test_the_page_takes_nothing_from_elsewhere(page) -> None:
    status, headers, body = ask(page, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert (headers["Referrer-Policy"], headers["Cache-Control"]) == ("no-referrer", "no-store")
    assert b"http://" not in body
    assert b"https://" not in body
    assert b"style=" not in body
    for name in ("style.css", "live.js", "plot.js", "switches.js"):
        status, _, asset = ask(page, f"/assets/{name}")
        assert status == 200
        assert b"innerHTML" not in asset
        assert b"https://" not in asset


def test_viewers_are_told_that_the_stream_ended() -> None:
    async def look(page):
        async with viewer(page.url) as stalled, viewer(page.url) as socket:
            await next_frame(socket)
            closing = asyncio.create_task(asyncio.to_thread(page.__exit__))
            said = await next_text(socket, "end")
            async for _ in socket:
                pass
            await closing
            del stalled
            return said, socket.close_code

    page = LivePage().__enter__()
    assert run(look(page)) == ({"type": "end", "why": "end of stream"}, aiohttp.WSCloseCode.GOING_AWAY)


def test_too_many_viewers(page) -> None:
    async def look(page):
        async with viewer(page.url) as first:
            await next_frame(first)
            async with aiohttp.ClientSession() as session, session.get(page.url + "mjpeg") as answer:
                return answer.status, await answer.json()

    with LivePage(most_viewers=1) as page:
        assert run(look(page)) == (503, {"error": "viewers: there are 1 already"})


def descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # That of the listing itself.
            continue
    return found


def test_closing_leaves_no_thread_and_no_socket() -> None:
    async def look():
        page = LivePage(rate=100.0, size=(240, 320)).__enter__()
        async with viewer(page.url) as stalled, viewer(page.url) as socket, aiohttp.ClientSession() as session:
            answer = await session.get(page.url + "mjpeg")  # It is never read.
            for _ in range(3):
                await next_frame(socket)
            await asyncio.to_thread(page.__exit__)
            answer.close()
            await stalled.close()
        page.server.close()  # A second time.

    run(look())  # What only the first one opens.
    before, threads = descriptors(), threading.active_count()
    for _ in range(3):
        run(look())
    assert descriptors() <= before
    assert threading.active_count() == threads


def test_a_busy_port(page) -> None:
    port = page.server.port
    with pytest.raises(OSError, match=f"port: {port} is in use at 127.0.0.1; port 0 takes a free one"):
        PageServer(Broadcast(), Controls(), StreamReport, port=port).start()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"port": 70000}, ValueError, "port: expected 0 .. 65535, got 70000"),
        ({"port": "8000"}, TypeError, "port: expected an int, got str"),
        ({"host": "203.0.113.7", "port": 0}, ValueError, "host: '203.0.113.7' is no address of this machine"),
        ({"host": "no.such.host.invalid", "port": 0}, ValueError, "host: 'no.such.host.invalid' is no address"),
        ({"token": ""}, ValueError, "token: expected letters, digits and signs"),
        ({"token": "two words"}, ValueError, "token: expected letters, digits and signs"),
    ],
)
def test_bad_options(options, error, text) -> None:
    with pytest.raises(error, match=text):
        PageServer(Broadcast(), Controls(), StreamReport, **options).start()


def test_what_the_network_cannot_follow_is_put_back_and_said(page) -> None:
    """As `explain_stream` does: it complains, and changes the settings back."""

    async def look():
        async with viewer(page.url) as socket:
            await next_frame(socket)
            assert (await asyncio.to_thread(change, page, {"method": "gradcam", "n_segments": 50}))[0] == 200
            told = await next_text(socket, "settings")
            page.feeder.complaints += ["settings: gradcam: no layer", "settings: something else"]
            page.controls.change(method=None)
            return told, await next_text(socket, "settings")

    told, back = run(look())
    assert (told["settings"]["method"], told["refused"]) == ("gradcam", {})
    assert (back["settings"]["method"], back["settings"]["n_segments"]) == (None, 50)
    assert back["refused"] == {"method": "gradcam: no layer"}
    refused = {each["name"]: each["refused"] for each in json.loads(ask(page, "/methods")[2])}
    assert refused == {"swag-ig": None, "gradcam": "gradcam: no layer", "sobel": None}
