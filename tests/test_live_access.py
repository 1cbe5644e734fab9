"""Who may see a stream's page: names, origins, the token."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from live_for_tests import LivePage
from midgrain.video import Broadcast, Controls, PageServer, StreamReport, server_access
from midgrain.video.server_access import host_name, is_loopback
from waiting_for_tests import until

PATHS = ("/", "/settings", "/report", "/methods", "/classes", "/snapshot.jpg", "/mjpeg", "/stream", "/assets/live.js")
TOKEN = "a-token-of-32-letters-and-digits"


def ask(server, path: str, method: str = "GET", body=None, **headers: str):
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=20)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        endless = answer.getheader("Content-Type", "").startswith("multipart/")
        return answer.status, answer.headers, b"" if endless else answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def page():
    """Without a token, at a loopback address."""
    with LivePage(allowed_hosts=["Stream.Example"]) as page:
        yield page


@pytest.fixture(scope="module")
def secret():
    """With a token, at all addresses."""
    with LivePage(host="0.0.0.0", token=TOKEN) as page:
        yield page


def change(server, **headers: str) -> int:
    return ask(server, "/settings", "PATCH", '{"alpha": 0.25}', Content_Type="application/json", **headers)[0]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[", "localhost.evil"]
)
def test_other_names_are_refused(page, path, host) -> None:
    status, _, body = ask(page.server, path, Host=host)
    assert status == 403
    assert json.loads(body)["error"].startswith("host: ")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.0.0.1:9",
        "[::1]:80",
        "10.1.2.3",
        "stream.example",
        "stream.example.",
    ],
)
def test_own_names_and_addresses_are_answered(page, host) -> None:
    assert ask(page.server, "/settings", Host=host)[0] == 200


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        ("http://localhost:8000", "localhost:8000", 200),
        ("https://stream.example", "stream.example", 200),
        ("http://localhost:8001", "localhost:8000", 403),
        ("http://evil.example", "localhost:8000", 403),
        ("http://127.0.0.1:8000", "localhost:8000", 403),
        ("null", "localhost:8000", 403),
        ("", "localhost:8000", 403),
        ("http://[", "localhost:8000", 403),
    ],
)
def test_pages_of_others_change_nothing_and_see_no_stream(page, origin, host, expected) -> None:
    page.controls.change(alpha=0.5)
    assert change(page.server, Origin=origin, Host=host) == expected
    assert page.controls.now.alpha == (0.25 if expected == 200 else 0.5)

    async def look() -> int:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.ws_connect(page.url + "stream", headers={"Origin": origin, "Host": host}):
                    return 200
            except aiohttp.WSServerHandshakeError as error:
                return error.status

    assert asyncio.run(look()) == expected


@pytest.mark.parametrize("path", PATHS)
def test_nothing_without_the_token(secret, path) -> None:
    status, headers, body = ask(secret.server, path)
    assert status == 401
    assert headers["WWW-Authenticate"] == "Bearer"
    assert TOKEN.encode() not in body


def test_the_token_in_each_place(secret) -> None:
    server = secret.server
    cookie = f"midgrain-{server.port}={TOKEN}"
    for path in PATHS:
        expected = 426 if path == "/stream" else 200
        assert ask(server, f"{path}?token={TOKEN}")[0] == expected, path
        assert ask(server, path, Authorization=f"Bearer {TOKEN}")[0] == expected, path
        assert ask(server, path, Cookie=cookie)[0] == expected, path
    assert change(server, Cookie=cookie) == 200
    assert change(server, Authorization=f"bearer {TOKEN}") == 200
    # A link changes nothing, whatever it says.
    headers = {"Content_Type": "application/json"}
    assert ask(server, f"/settings?token={TOKEN}", "PATCH", '{"alpha": 1}', **headers)[0] == 401


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_have(secret) -> None:
    server = secret.server
    _, headers, _ = ask(server, f"/?token={TOKEN}")
    cookie = headers["Set-Cookie"]
    assert cookie.startswith(f"midgrain-{server.port}={TOKEN};")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert ask(server, f"/settings?token={TOKEN}")[1]["Set-Cookie"] is None
    assert ask(server, "/?token=wrong")[1]["Set-Cookie"] is None


@pytest.mark.parametrize("wrong", ["wrong", "", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "%ff%fe", "%00"])
def test_wrong_tokens(secret, wrong) -> None:
    assert ask(secret.server, f"/settings?token={wrong}")[0] == 403
    with contextlib.suppress(ValueError):  # What no header holds.
        assert ask(secret.server, "/settings", Authorization=f"Bearer {wrong}")[0] == 403
    assert change(secret.server, Cookie=f"midgrain-{secret.server.port}={wrong}") == 403


def test_a_wrong_header_is_not_made_good_by_the_right_cookie(secret) -> None:
    cookie = f"midgrain-{secret.server.port}={TOKEN}"
    assert ask(secret.server, "/settings", Cookie=cookie, Authorization="Bearer wrong")[0] == 403


def test_guessing_takes_long(secret, monkeypatch) -> None:
    monkeypatch.setattr(server_access, "_PAUSE", 3.0)  # All guesses come in one pause, on a busy machine too.

    async def guess(session, number):
        async with session.get(f"http://127.0.0.1:{secret.server.port}/settings?token=guess{number}") as answer:
            return answer.status

    async def many():
        async with aiohttp.ClientSession() as session:
            guesses = asyncio.gather(*(guess(session, number) for number in range(40)))
            await asyncio.sleep(0.1)
            async with session.get(f"http://127.0.0.1:{secret.server.port}/settings?token={TOKEN}") as answer:
                assert answer.status == 200  # Who knows it is let in meanwhile.
            return await guesses

    statuses = asyncio.run(many())
    assert set(statuses) == {403, 429}
    assert statuses.count(403) == server_access._GUESSERS


def test_who_may_put_the_pictures_into_a_page(page, secret) -> None:
    policy = "Cross-Origin-Resource-Policy"
    until(lambda: page.broadcast.latest is not None)
    assert ask(page.server, "/snapshot.jpg")[1][policy] == "same-site"
    assert ask(page.server, "/snapshot.jpg?token=any")[1][policy] == "same-site"
    assert ask(page.server, "/report")[1][policy] == "same-origin"
    assert ask(secret.server, f"/mjpeg?token={TOKEN}")[1][policy] == "cross-origin"
    assert ask(secret.server, f"/report?token={TOKEN}")[1][policy] == "same-origin"
    for path in ("/", "/report"):
        assert "Access-Control-Allow-Origin" not in ask(page.server, path, Origin="http://evil.example")[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_needs_no_token(host) -> None:
    with PageServer(Broadcast(), Controls(), StreamReport, host=host, port=0) as server:
        assert server.token is None
        assert server.url == f"http://{host}:{server.port}/"
        assert ask(server, "/settings")[0] == 200


def test_other_addresses_get_a_token_of_their_own() -> None:
    servers = [PageServer(Broadcast(), Controls(), StreamReport, host="0.0.0.0", port=0) for _ in range(2)]
    assert len({server.token for server in servers}) == 2
    assert all(len(server.token) >= 32 for server in servers)
    with servers[0] as server:
        address = urlsplit(server.url)
        assert parse_qs(address.query)["token"] == [server.token]
        assert ask(server, "/settings")[0] == 401
        assert ask(server, f"/settings?{address.query}", Host=f"{socket.gethostname()}:{server.port}")[0] == 200


def test_names_and_addresses() -> None:
    assert [host_name(text) for text in ("", "[", "a:b", "user@a", "A.:1")] == ["", "", "a", "a", "a"]
    assert [is_loopback(text) for text in ("127.9.9.9", "LOCALHOST", "::", "example.org", "")] == [
        True,
        True,
        *3 * [False],
    ]
