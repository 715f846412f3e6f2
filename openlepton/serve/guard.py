"""The outermost layer: who may speak to the server at all, what every answer carries, and how a refused body is got rid of."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from openlepton.errors import NotAllowed, OpenLeptonError, RequestInvalid
from openlepton.serve import problems
from openlepton.serve.bodies import Receive
from openlepton.serve.metrics import Metrics
from openlepton.serve.settings import Settings

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PROBES = frozenset(("/livez", "/readyz", "/v2/health/live", "/v2/health/ready"))
"""What the machinery around the server asks, by whatever name it knows it and without a token."""

_HOST = re.compile(rb"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ORIGIN = re.compile(rb"https?://(.+)")
_OWN_NAMES = frozenset((b"localhost", b"127.0.0.1", b"[::1]"))
_SMALL = 1024 * 1024  # a refused body that is read to its end, so that the connection can go on
_LINGER_S = 1.0

_PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
]
_OF_DATA = [
    *_ALWAYS,
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
_OF_PAGE = [
    *_ALWAYS,
    (b"cache-control", b"no-cache"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (b"content-security-policy", _PAGE_POLICY),
]


class Guard:
    """An ASGI application around another one.

    Args:
        app: The application.
        settings: Which names the server may be called by.
        metrics: Counts every answer.
    """

    def __init__(self, app: App, settings: Settings, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        named = frozenset(name.lower().encode("ascii", "replace") for name in settings.hosts)
        self._names = _OWN_NAMES | named if settings.loopback or named else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        started = time.perf_counter()
        refusal = self._refusal(scope)
        try:
            if refusal is not None:
                await exchange.refuse(refusal, 400 if isinstance(refusal, RequestInvalid) else None)
            else:
                await self._app(scope, exchange.receive, exchange.send)
        finally:
            self._metrics.answered(scope, exchange.status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> OpenLeptonError | None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            return RequestInvalid("Host: expected one, a name or address with an optional port")
        if self._names is not None and match[1].lower() not in self._names and scope["path"] not in PROBES:
            return NotAllowed("Host: not a name of this server")
        for name, value in scope["headers"]:
            if name == b"origin":  # of a page; programs send none
                origin = _ORIGIN.fullmatch(value)
                if origin is None or origin[1].lower() != hosts[0].lower():
                    return NotAllowed("Origin: pages of other origins may not use this server")
        return None


class _Exchange:
    """One request and its answer: adds headers to the answer, and leaves no unread body in the way of the next request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.status = 0
        self._receive, self._send = receive, send
        headers = dict(scope["headers"])
        self._page = scope["path"] == "/" or scope["path"].startswith("/page/")
        self._declared = int(headers.get(b"content-length", 0))
        self._unread = self._declared > 0 or b"transfer-encoding" in headers
        self._expects = b"expect" in headers  # 100-continue: nothing is sent before we read
        self._close = False

    async def receive(self) -> MutableMapping[str, Any]:
        """Return the next part of the body."""
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Pass on a part of the answer."""
        if message["type"] == "http.response.start":
            if self._unread and not self._expects and 0 < self._declared <= _SMALL:
                await self._discard()
            self.status, self._close = message["status"], self._unread
            headers = [*message.get("headers", ()), *(_OF_PAGE if self._page else _OF_DATA)]
            if self._close:
                headers.append((b"connection", b"close"))
            await self._send({**message, "headers": headers})
        elif self._close and not message.get("more_body", False):
            # Closing while the client still writes would make it lose the answer that it has not read yet.
            await self._send({**message, "more_body": True})
            await self._discard()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    async def refuse(self, error: OpenLeptonError, status: int | None) -> None:
        """Answer with an error."""
        code, body = problems.body_of(error, status)
        headers = [(b"content-type", problems.TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": code, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def _discard(self) -> None:
        """Read what the client still sends, for a while and up to a size, and throw it away."""
        size = 0
        try:
            async with asyncio.timeout(_LINGER_S):
                while self._unread and size <= _SMALL:
                    size += len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass
