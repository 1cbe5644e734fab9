"""Who may see a stream's page: names that the server answers to, pages that may talk to it, the token."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

__all__ = ["Access", "error_response", "host_name", "is_loopback"]

_log = logging.getLogger(__name__)
# The page needs nothing but what this server sends; other pages may not put it into a frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# Pictures may be shown by other pages of the same site (another port of this machine), or with the token by any page.
_PICTURES = frozenset({"/snapshot.jpg", "/mjpeg"})
# A wrong token is answered after a pause, so many of them at a time: guessing takes longer than anyone lives.
_PAUSE = 0.5
_GUESSERS = 8


class Access:
    """Checks every request, and gives every answer its headers.

    Args:
        host: the address that is listened at.
        port: likewise.
        token: what a viewer must know; None lets everybody in.
        allowed: further names that the server is reached by.
    """

    def __init__(self, host: str, port: int, token: str | None, allowed: Iterable[str] = ()):
        self._token = token
        self._cookie = f"midgrain-{port}"
        self._names = {"localhost", host.lower(), socket.gethostname().lower(), *(name.lower() for name in allowed)}
        self._guessers = 0

    @property
    def middleware(self) -> Middleware:
        """For an `aiohttp.web.Application`."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                refusal = await self._refusal(request)
                response = refusal if refusal is not None else await handler(request)
                if refusal is None and self._token and request.path == "/" and "token" in request.query:
                    # The page itself takes the token out of the address. A redirection would lose the cookie where
                    # another site's link brought the viewer here.
                    response.set_cookie(self._cookie, self._token, httponly=True, samesite="Strict", path="/")
            except web.HTTPException as error:
                response = error_response(error.status, error.text or error.reason)
                if "Allow" in error.headers:
                    response.headers["Allow"] = error.headers["Allow"]
            except (ConnectionError, asyncio.CancelledError):
                raise  # The viewer is gone, or the server closes.
            except Exception:
                _log.exception("%s %s failed", request.method, request.path)
                response = error_response(500, "the server failed; its log says more")
            return response

        return guarded

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """For `Application.on_response_prepare`."""
        response.headers.update(_HEADERS)
        sharing = "same-origin"
        if request.path in _PICTURES:
            sharing = "cross-origin" if self._token and "token" in request.query else "same-site"
        response.headers["Cross-Origin-Resource-Policy"] = sharing

    async def _refusal(self, request: web.Request) -> web.StreamResponse | None:
        host = request.headers.get("Host", "")
        name = host_name(host)
        # Another site may let its name point here (DNS rebinding), but it cannot make the browser send another name.
        if not (name in self._names or _is_address(name)):
            return error_response(403, f"host: {host[:100]!r} is not a name of this server; see --allow-host")
        origin = request.headers.get("Origin")
        changes = request.method not in ("GET", "HEAD") or request.path == "/stream"
        if origin is not None and changes and _site(origin) != host.lower():
            return error_response(403, f"origin: pages of {origin[:100]!r} may not talk to this server")
        return await self._token_refusal(request)

    async def _token_refusal(self, request: web.Request) -> web.StreamResponse | None:
        if self._token is None:
            return None
        given = self._given(request)
        if given is None:
            response = error_response(401, "token: expected ?token=... as in the address that was printed, got none")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
            return None
        if self._guessers >= _GUESSERS:
            return error_response(429, "token: too many wrong ones")
        self._guessers += 1
        try:
            await asyncio.sleep(_PAUSE)
        finally:
            self._guessers -= 1
        return error_response(403, "token: this is not the one of this stream")

    def _given(self, request: web.Request) -> str | None:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return value.strip()
        # In an address it only ever reads: changing something by a link is never possible.
        if request.method in ("GET", "HEAD") and "token" in request.query:
            return request.query["token"]
        return request.cookies.get(self._cookie)


def error_response(status: int, message: str) -> web.Response:
    """What went wrong, for programs and people: {"error": message}."""
    return web.json_response({"error": message}, status=status)


def host_name(host: str) -> str:
    """Of a Host header, without the port and in lower case: "[::1]:8000" -> "::1".

    Example:
        >>> from midgrain.video.server_access import host_name
        >>> host_name("LocalHost:8000"), host_name("[::1]:8000"), host_name("127.0.0.1")
        ('localhost', '::1', '127.0.0.1')
    """
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address.

    Example:
        >>> from midgrain.video.server_access import is_loopback
        >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _site(origin: str) -> str:
    """Of an Origin header what a Host header says of the same place."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
