"""The page's server as it is asked: settings, pictures, requests and messages that are none."""

from __future__ import annotations

import asyncio
import http.client
import io
import itertools
import json
import socket
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest
from PIL import Image

from live_for_tests import LABELS, METHODS, LivePage
from midgrain.video import Broadcast, Controls, PageServer, StreamReport
from viewers_for_tests import WAIT, ask, next_frame, next_text, run, viewer
from viewers_for_tests import nothing_is_logged as nothing_is_logged
from viewers_for_tests import page as page
from waiting_for_tests import until


def change(page, changes, **headers: str) -> tuple[int, dict]:
    body = changes if isinstance(changes, str | bytes) else json.dumps(changes)
    status, _, answer = ask(page, "/settings", "PATCH", body, **{"Content-Type": "application/json", **headers})
    return status, json.loads(answer)


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
    until(lambda: page.broadcast.latest is not None)
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


def test_too_many_viewers(page) -> None:
    async def look(page):
        async with viewer(page.url) as first:
            await next_frame(first)
            async with aiohttp.ClientSession() as session, session.get(page.url + "mjpeg") as answer:
                return answer.status, await answer.json()

    with LivePage(most_viewers=1) as page:
        assert run(look(page)) == (503, {"error": "viewers: there are 1 already"})


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
