"""What the handlers of a stream's page share: the stream, its settings, who is connected."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from aiohttp import web

from midgrain.video.broadcast import Broadcast, Viewer
from midgrain.video.choices import Choices
from midgrain.video.report import StreamReport
from midgrain.video.server_viewer import Connection
from midgrain.video.settings import Controls, Settings

__all__ = ["Hub"]

_REPORT_PAUSE = 0.5
_SETTINGS_PAUSE = 0.1
_KEPT_NOTICES = 20
# So a stream's complaints of settings begin.
_COMPLAINT = "settings: "


class Hub:
    """The stream as its viewers see it. Everything but `notify` belongs to the server's event loop.

    Args:
        broadcast: the frames.
        controls: the settings, which others may change, too.
        report: what became of the stream so far.
        choices: what may be chosen.
        title: of the page.
        most_viewers: that are let in at a time.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        controls: Controls,
        report: Callable[[], StreamReport],
        choices: Choices,
        title: str,
        most_viewers: int,
    ):
        self.broadcast = broadcast
        self.controls = controls
        self.choices = choices
        self.title = title
        self.ending: str | None = None
        self._report = report
        self._most_viewers = most_viewers
        self._connections: set[Connection] = set()
        self._transports: set[asyncio.Transport] = set()
        self._notices: deque[str] = deque(maxlen=_KEPT_NOTICES)
        self._notices_lock = threading.Lock()
        self._latest_report = StreamReport()
        self._told: Settings | None = None
        #: What the network could not follow, by method.
        self.refused: dict[str, str] = {}

    def notify(self, text: str) -> None:
        """Have viewers read a text; from any thread."""
        with self._notices_lock:
            self._notices.append(text)

    async def watch(self) -> None:
        """Tell viewers what changes, until cancelled."""
        loop = asyncio.get_running_loop()
        next_report = loop.time()
        while True:
            self.tell_settings()
            with self._notices_lock:
                notices, self._notices = self._notices, deque(maxlen=_KEPT_NOTICES)
            for connection in self._connections if notices else ():
                connection.tell("notice", {"messages": list(notices)})
            if loop.time() >= next_report:
                next_report = loop.time() + _REPORT_PAUSE
                self._latest_report = self._report()
                facts = self.report_facts()
                for connection in self._connections:
                    connection.tell("report", {**facts, "viewer": connection.facts})
            await asyncio.sleep(_SETTINGS_PAUSE)

    def tell_settings(self, *, asked: bool = False) -> None:
        """Tell every viewer the settings, if they are others than last time.

        Args:
            asked: a viewer asked for them. Others may be the stream's own doing, which puts back what the network
                cannot follow; then viewers are told why.
        """
        now, before = self.controls.now, self._told
        if now == before:
            return
        refused = {} if asked or before is None else _refused(before, now, self._report().complaints)
        if before is not None and before.method is not None and "method" in refused:
            self.refused[before.method] = refused["method"]
        self._told = now
        for connection in self._connections:
            connection.tell("settings", {"settings": asdict(now), "refused": refused})

    def stream_facts(self) -> dict[str, Any]:
        """What goes with every frame."""
        return {"dropped": self._latest_report.dropped, "rate": round(_number(self._latest_report.rate), 2)}

    def report_facts(self) -> dict[str, Any]:
        """The report as JSON has it, and how many look at the stream."""
        return {**self._latest_report.facts(), "viewers": self.broadcast.viewers}

    def methods(self) -> list[dict[str, Any]]:
        """What may be chosen, with what is known of each."""
        return [
            {"name": name, "line": line, "slow": name in self.choices.slow, "refused": self.refused.get(name)}
            for name, line in self.choices.methods.items()
        ]

    def hello(self) -> dict[str, Any]:
        """What a viewer is told first."""
        history = [
            [point.number, round(point.seconds, 3), [[each.index, each.probability] for each in point.classes]]
            for point in self.broadcast.history
        ]
        labels = {each.index: each.label for point in self.broadcast.history for each in point.classes}
        return {
            "protocol": 1,
            "title": self.title,
            "settings": asdict(self.controls.now),
            "given": self.choices.given,
            "max_segments": self.choices.max_segments,
            "history": history,
            "labels": {str(index): label for index, label in labels.items()},
        }

    @contextlib.contextmanager
    def viewing(self, request: web.Request) -> Iterator[tuple[Viewer, asyncio.Event]]:
        """A place in the broadcast, and what says that there is something in it.

        Raises:
            web.HTTPServiceUnavailable: there are too many viewers.
        """
        if self.ending is not None or self.broadcast.viewers >= self._most_viewers:
            why = self.ending or f"viewers: there are {self._most_viewers} already"
            raise web.HTTPServiceUnavailable(text=why)
        loop = asyncio.get_running_loop()
        wake = asyncio.Event()

        def notify() -> None:
            with contextlib.suppress(RuntimeError):  # The loop has just been closed.
                loop.call_soon_threadsafe(wake.set)

        transport = request.transport
        viewer = self.broadcast.join(notify)
        if isinstance(transport, asyncio.Transport):
            self._transports.add(transport)
        try:
            yield viewer, wake
        finally:
            self.broadcast.leave(viewer)
            self._transports.discard(transport)

    async def serve(self, connection: Connection) -> None:
        """A WebSocket, until either side closes it."""
        connection.tell("hello", self.hello())
        connection.tell("report", {**self.report_facts(), "viewer": connection.facts})
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def end(self, why: str) -> None:
        """Say goodbye to all viewers; who does not listen is cut off."""
        self.ending = why
        await asyncio.gather(*(connection.end(why) for connection in list(self._connections)), return_exceptions=True)
        for transport in list(self._transports):
            transport.abort()


def _refused(before: Settings, now: Settings, complaints: Sequence[str]) -> dict[str, str]:
    """By setting why it was put back, as far as the stream complained of settings."""
    complaints = [text.removeprefix(_COMPLAINT) for text in complaints if text.startswith(_COMPLAINT)]
    found = {}
    for name in ("method", "target", "n_segments") if complaints else ():
        tried = getattr(before, name)
        if tried != getattr(now, name):
            # The latest that speaks of it, or the latest.
            found[name] = next((text for text in reversed(complaints) if str(tried) in text), complaints[-1])
    return found


def _number(value: float) -> float:
    return value if math.isfinite(value) else 0.0
