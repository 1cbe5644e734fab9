"""The server of a stream's page: HTTP and WebSocket in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Self
from urllib.parse import quote

from aiohttp import web

from midgrain.video.broadcast import Broadcast
from midgrain.video.choices import Choices
from midgrain.video.report import StreamReport
from midgrain.video.server_access import Access, is_loopback
from midgrain.video.server_hub import Hub
from midgrain.video.server_routes import make_application
from midgrain.video.settings import Controls

__all__ = ["PageServer"]

_CLOSING = 10.0
_BACKLOG = 64


class PageServer:
    """A page that shows a broadcast, with switches for its settings.

    It listens from `start` (or `with`) to `close`. Its event loop runs in a thread of its own, so that a network that
    computes in another does not keep viewers waiting.

    Args:
        broadcast: the frames.
        controls: what the switches change.
        report: what became of the stream so far; called twice a second.
        choices: methods and classes to choose from.
        host: the address to listen at; "0.0.0.0" or "::" for all of this machine.
        port: 0 takes a free one.
        token: what viewers must know. None asks for none at a loopback address, and makes a random one at others.
        allowed_hosts: further names that the server is reached by, as through a reverse proxy.
        title: of the page.
        most_viewers: that are let in at a time.
        heartbeat: seconds after which a silent viewer is asked whether it is there.

    Raises:
        TypeError, ValueError: a value of another kind or out of range; a host that is not known.
        OSError: from `start`; the port is busy, or not for this user.

    Example:
        >>> import json, urllib.request
        >>> from midgrain.video import Broadcast, Controls, PageServer, StreamReport
        >>> with PageServer(Broadcast(), Controls(), StreamReport, port=0) as server:
        ...     with urllib.request.urlopen(server.url + "settings") as answer:
        ...         json.load(answer)["alpha"]
        0.5
    """

    def __init__(
        self,
        broadcast: Broadcast,
        controls: Controls,
        report: Callable[[], StreamReport],
        choices: Choices | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        allowed_hosts: Sequence[str] = (),
        title: str = "midgrain",
        most_viewers: int = 32,
        heartbeat: float = 20.0,
    ):
        if isinstance(port, bool) or not isinstance(port, int):
            raise TypeError(f"port: expected an int, got {type(port).__name__}")
        if not 0 <= port <= 65535:
            raise ValueError(f"port: expected 0 .. 65535, got {port}")
        if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
            raise ValueError("token: expected letters, digits and signs without spaces")
        self.host = host
        self.port = port
        self.token = token if token is not None or is_loopback(host) else secrets.token_urlsafe(24)
        self._hub = Hub(broadcast, controls, report, choices or Choices(), title, most_viewers)
        self._allowed_hosts = tuple(allowed_hosts)
        self._heartbeat = heartbeat
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._why = ""

    @property
    def url(self) -> str:
        """The page's address, with the token where one is needed."""
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        address = f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"
        return address + (f"?token={quote(self.token, safe='')}" if self.token else "")

    def start(self) -> Self:
        """Listen, and return at once."""
        if self._thread is not None:
            raise RuntimeError("server: it has been started already")
        listening = _listen(self.host, self.port)
        self.port = listening.getsockname()[1]
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(listening, ready), name="midgrain-page", daemon=True)
        self._thread.start()
        ready.result()
        return self

    def notify(self, text: str) -> None:
        """Have all viewers read a text; from any thread."""
        self._hub.notify(text)

    def close(self, why: str = "stopped") -> None:
        """Tell viewers that the stream ended, and close; a second time does nothing.

        Args:
            why: what the page says.
        """
        thread, loop, closing = self._thread, self._loop, self._closing
        if thread is None or loop is None or closing is None:
            return
        self._why = self._why or why
        with contextlib.suppress(RuntimeError):  # It is closed already.
            loop.call_soon_threadsafe(closing.set)
        if thread is not threading.current_thread():
            thread.join(_CLOSING)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, listening: socket.socket, ready: Future[None]) -> None:
        try:
            asyncio.run(self._serve(listening, ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            listening.close()

    async def _serve(self, listening: socket.socket, ready: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        access = Access(self.host, self.port, self.token, self._allowed_hosts)
        runner = web.AppRunner(
            make_application(self._hub, access, heartbeat=self._heartbeat), access_log=None, shutdown_timeout=1.0
        )
        await runner.setup()
        try:
            await web.SockSite(runner, listening).start()
            watching = asyncio.create_task(self._hub.watch())
            ready.set_result(None)
            closed = asyncio.create_task(self._closing.wait())
            await asyncio.wait([watching, closed], return_when=asyncio.FIRST_COMPLETED)
            await self._hub.end(self._why or "stopped")
            for task in (watching, closed):
                task.cancel()
            for result in await asyncio.gather(watching, closed, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result
        finally:
            await runner.cleanup()


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"host: {host!r} is no address or name of this machine") from error
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port: {port} is in use at {host}; port 0 takes a free one") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PermissionError(f"port: {port} is not for this user; ports from 1024 on are") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(f"host: {host!r} is no address of this machine") from error
        raise
    listening.setblocking(False)
    return listening
