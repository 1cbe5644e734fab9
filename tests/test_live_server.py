"""The page's server as its viewers meet it: frames, stalled and vanished viewers, and goodbye."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import threading
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest

from live_for_tests import LABELS, LivePage
from midgrain.video import Broadcast, Controls, PageServer, StreamReport
from viewers_for_tests import WAIT, ask, next_frame, next_text, open_frame, run, viewer
from viewers_for_tests import nothing_is_logged as nothing_is_logged
from viewers_for_tests import page as page
from waiting_for_tests import until


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
    assert 0 <= facts["latency"] < WAIT
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
            return a, b, skipped

    with LivePage(rate=50.0, size=size) as page:
        a, b, (skipped, taken) = run(look(page))
    assert a["number"] >= 39
    assert b["number"] >= 39
    assert taken <= 2
    # What those who read were given, the stalled one was not.
    assert max(a["skipped"], b["skipped"]) <= skipped - 30


def test_what_a_stalled_viewer_holds_does_not_grow() -> None:
    """Never acknowledging: two frames are under way and one waits, whatever comes."""

    async def look(page):
        async with viewer(page.url) as socket:
            got, before = [], page.feeder.written
            while page.feeder.written < before + 60:
                try:
                    async with asyncio.timeout(0.05):
                        message = await socket.receive()
                except TimeoutError:
                    continue
                if message.type == aiohttp.WSMsgType.BINARY:
                    got.append(open_frame(message.data)[0])
            written = page.feeder.written
            await socket.send_json({"ack": got[-1]["id"]})
            newest, _ = await next_frame(socket)
            return got, newest, written

    with LivePage(rate=100.0) as page:
        got, newest, written = run(look(page))
    assert len(got) == 2
    # The newest wins: what it gets next is of now, not of when it fell asleep.
    assert newest["number"] >= written - 1
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
    assert facts["skipped"] - skipped <= facts["number"] - before + 1  # Only since it goes on.


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
        until(lambda: page.broadcast.viewers == 0)
        assert ask(page, "/report")[0] == 200


def test_a_silent_viewer_is_let_go() -> None:
    async def look(page):
        async with viewer(page.url, autoping=False) as socket:
            await asyncio.to_thread(until, lambda: page.broadcast.viewers == 0)
            await socket.close()

    with LivePage(heartbeat=0.4) as page:
        run(look(page))


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
