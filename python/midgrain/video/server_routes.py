"""What a stream's server answers at which path."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import asdict
from importlib import resources
from typing import Any

from aiohttp import web

from midgrain.video.server_access import Access, error_response
from midgrain.video.server_hub import Hub
from midgrain.video.server_viewer import MOST_BYTES, Connection

__all__ = ["make_application"]

_PAGE = "index.html"
# By name, so that no path is ever looked up that a request names.
_ASSETS = {
    "style.css": "text/css",
    "live.js": "text/javascript",
    "plot.js": "text/javascript",
    "switches.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_BOUNDARY = "midgrain-frame"
_HEARTBEAT = 20.0
# For a viewer of /mjpeg that takes nothing.
_STALLED = 20.0


def make_application(hub: Hub, access: Access, *, heartbeat: float = _HEARTBEAT) -> web.Application:
    """All paths.

    Args:
        hub: the stream.
        access: who may see it.
        heartbeat: seconds after which a silent WebSocket is asked whether it is still there; one that does not answer
            within half of them is closed.
    """
    routes = _Routes(hub, heartbeat)
    application = web.Application(middlewares=[access.middleware], client_max_size=MOST_BYTES)
    application.on_response_prepare.append(access.add_headers)
    application.router.add_get("/", routes.page)
    application.router.add_get("/assets/{name}", routes.asset)
    application.router.add_get("/stream", routes.stream)
    application.router.add_get("/settings", routes.settings)
    application.router.add_patch("/settings", routes.change)
    application.router.add_get("/methods", routes.methods)
    application.router.add_get("/classes", routes.classes)
    application.router.add_get("/report", routes.report)
    application.router.add_get("/snapshot.jpg", routes.snapshot)
    application.router.add_get("/mjpeg", routes.mjpeg)
    return application


class _Routes:
    def __init__(self, hub: Hub, heartbeat: float):
        self._hub = hub
        self._heartbeat = heartbeat
        folder = resources.files("midgrain.video") / "page"
        self._files = {name: (folder / name).read_bytes() for name in (_PAGE, *_ASSETS)}

    async def page(self, request: web.Request) -> web.Response:
        return web.Response(body=self._files[_PAGE], content_type="text/html", charset="utf-8")

    async def asset(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in _ASSETS:
            raise web.HTTPNotFound
        return web.Response(body=self._files[name], content_type=_ASSETS[name], charset="utf-8")

    async def settings(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(self._hub.controls.now))

    async def change(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return error_response(415, f"settings: expected application/json, got {request.content_type[:100]}")
        try:
            changes = json.loads(await request.text())
        except (ValueError, LookupError, RecursionError):  # LookupError: an unknown character set.
            return error_response(400, "settings: expected JSON")
        if not isinstance(changes, dict):
            return error_response(400, f"settings: expected an object of settings, got {type(changes).__name__}")
        try:
            self._hub.choices.check(changes)
            settings = self._hub.controls.change(**changes)
        except (TypeError, ValueError) as error:
            return error_response(400, str(error))
        self._hub.tell_settings(asked=True)
        return web.json_response(asdict(settings))

    async def methods(self, request: web.Request) -> web.Response:
        return web.json_response(self._hub.methods())

    async def classes(self, request: web.Request) -> web.Response:
        labels = self._hub.choices.labels
        count = self._hub.choices.classes
        names = list(labels) if labels is not None else [f"class {index}" for index in range(count or 0)]
        return web.json_response(names)

    async def report(self, request: web.Request) -> web.Response:
        return web.json_response(self._hub.report_facts())

    async def snapshot(self, request: web.Request) -> web.Response:
        shot = self._hub.broadcast.latest
        if shot is None:
            return error_response(503, "snapshot: there is no frame yet")
        jpeg = await asyncio.to_thread(lambda: shot.jpeg)
        return web.Response(body=jpeg, content_type="image/jpeg")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(timeout=1.0, heartbeat=self._heartbeat, max_msg_size=MOST_BYTES, compress=False)
        if not socket.can_prepare(request):
            return error_response(426, "stream: expected a WebSocket")
        with self._hub.viewing(request) as (viewer, wake):
            await socket.prepare(request)
            transport: Any = request.transport
            await self._hub.serve(Connection(socket, transport, viewer, self._hub.stream_facts, wake))
        return socket

    async def mjpeg(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": f"multipart/x-mixed-replace; boundary={_BOUNDARY}", "Connection": "close"}
        )
        with self._hub.viewing(request) as (viewer, wake):
            await response.prepare(request)
            with contextlib.suppress(ConnectionError, TimeoutError):
                while self._hub.ending is None:
                    await wake.wait()
                    wake.clear()
                    shot = viewer.take()
                    if shot is None:
                        continue
                    jpeg = await asyncio.to_thread(lambda shot=shot: shot.jpeg)  # type: ignore[misc]
                    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    async with asyncio.timeout(_STALLED):
                        await response.write(head.encode() + jpeg + b"\r\n")
                return response
        if request.transport is not None:
            request.transport.abort()
        return response
