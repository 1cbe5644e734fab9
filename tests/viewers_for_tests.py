"""A page's viewers: what they ask, and what they get."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest
from PIL import Image

from live_for_tests import LivePage

WAIT = 60.0


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
