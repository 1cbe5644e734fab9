"""One viewer at a WebSocket: frames as it acknowledges them, messages of which the newest counts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from midgrain.video.broadcast import Shot, Viewer

__all__ = ["MOST_BYTES", "Connection", "json_text", "percentiles"]

#: Of a message from a viewer.
MOST_BYTES = 4096
# Frames under way: one is shown while the next one travels.
_UNDER_WAY = 2
# What a viewer may say wrongly before it is sent away.
_PATIENCE = 20
_LATENCIES = 256
# For a stalled viewer to hear that the stream ended.
_FAREWELL = 1.0


class Connection:
    """A WebSocket and its place in the broadcast.

    A frame is sent when fewer than two are under way, that is not acknowledged yet; in the meantime the newest wins.
    Of each kind of message likewise only the newest waits. So a viewer that reads nothing holds two frames and a few
    texts.

    Args:
        socket: prepared.
        transport: what it travels by, to cut off who does not listen.
        viewer: its place in the broadcast.
        stream_facts: what the stream as a whole adds to every frame.
        wake: set when there is something to send.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        viewer: Viewer,
        stream_facts: Callable[[], Mapping[str, Any]],
        wake: asyncio.Event,
    ):
        self._socket = socket
        self._transport = transport
        self._viewer = viewer
        self._stream_facts = stream_facts
        self._wake = wake
        self._messages: dict[str, str] = {}
        self._under_way: dict[int, float] = {}
        self._last = 0
        self._mistakes = 0
        self._ending = False
        self._sent: deque[float] = deque(maxlen=_LATENCIES)
        self._shown: deque[float] = deque(maxlen=_LATENCIES)

    def tell(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Send a message; it takes the place of one of this kind that still waits."""
        self._messages[kind] = json_text({"type": kind, **facts})
        self._wake.set()

    @property
    def facts(self) -> dict[str, Any]:
        """What became of its frames: counts, and seconds from their arrival to sending and to their being shown."""
        return {
            "sent": self._viewer.taken,
            "skipped": self._viewer.skipped,
            "paused": self._viewer.paused,
            "sent_after": percentiles(self._sent),
            "shown_after": percentiles(self._shown),
        }

    async def run(self) -> None:
        """Until either side closes."""
        tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            error = task.exception()
            if error is not None and not isinstance(error, ConnectionError):
                raise error
        if not self._ending:
            await self._close(WSCloseCode.OK, "")

    async def end(self, why: str) -> None:
        """Say that the stream ended, and close; a viewer that does not listen is cut off."""
        self._ending = True
        try:
            async with asyncio.timeout(_FAREWELL):
                with contextlib.suppress(ConnectionError):
                    await self._socket.send_str(json_text({"type": "end", "why": why}))
        except TimeoutError:
            self._cut_off()
        else:
            await self._close(WSCloseCode.GOING_AWAY, "stream ended")

    async def _close(self, code: int, why: str) -> None:
        try:
            async with asyncio.timeout(2 * _FAREWELL):
                with contextlib.suppress(ConnectionError):
                    await self._socket.close(code=code, message=why.encode())
        except TimeoutError:
            self._cut_off()

    def _cut_off(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _send(self) -> None:
        while not self._ending:
            await self._wake.wait()
            self._wake.clear()
            while self._messages:
                await self._socket.send_str(self._messages.pop(next(iter(self._messages))))
            if len(self._under_way) < _UNDER_WAY:
                shot = self._viewer.take()
                if shot is not None:
                    await self._send_shot(shot)
                    self._wake.set()

    async def _send_shot(self, shot: Shot) -> None:
        self._last += 1
        self._under_way[self._last] = shot.arrived
        jpeg = await asyncio.to_thread(lambda: shot.jpeg) if not shot.ready else shot.jpeg
        latency = time.monotonic() - shot.arrived
        facts = {"id": self._last, **shot.facts, "latency": round(latency, 4), "skipped": self._viewer.skipped}
        head = json_text({**facts, **self._stream_facts()}).encode()
        await self._socket.send_bytes(len(head).to_bytes(4, "big") + head + jpeg)
        self._sent.append(latency)

    async def _receive(self) -> None:
        async for message in self._socket:
            mistake = self._mistake(message.data) if message.type == WSMsgType.TEXT else "expected text, got bytes"
            if mistake is None:
                continue
            self._mistakes += 1
            if self._mistakes >= _PATIENCE:
                await self._close(WSCloseCode.POLICY_VIOLATION, "too many messages that make no sense")
                return
            self.tell("error", {"message": f"message: {mistake}"})

    def _mistake(self, text: str) -> str | None:
        """Follow a message; what is wrong with it."""
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            return "expected JSON"
        if not isinstance(said, dict) or len(said) != 1:
            return 'expected {"ack": ID} or {"pause": true | false}'
        ((name, value),) = said.items()
        if name == "pause" and isinstance(value, bool):
            self._viewer.paused = value
            return None
        if name == "ack" and isinstance(value, int) and not isinstance(value, bool):
            return self._acknowledge(value)
        return 'expected {"ack": ID} or {"pause": true | false}'

    def _acknowledge(self, last: int) -> str | None:
        if not 0 < last <= self._last:
            return f"ack: expected the id of a frame that was sent, 1 .. {self._last}, got {last}"
        now = time.monotonic()
        for each in [each for each in self._under_way if each <= last]:
            arrived = self._under_way.pop(each)
            if each == last:
                self._shown.append(now - arrived)
        self._wake.set()
        return None


def percentiles(seconds: deque[float]) -> dict[str, float] | None:
    """Median and 95th percentile; None without any."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {"p50": round(statistics.median(ordered), 4), "p95": round(p95, 4)}


def json_text(value: Any) -> str:
    """JSON without NaN, as short as it goes."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
