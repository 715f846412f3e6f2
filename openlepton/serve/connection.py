"""Asks a server over HTTP: connections that are kept, a time limit for the whole call, and second tries where they harm nobody.

No redirect is followed and no proxy is asked; only the host of the URL is ever spoken to.
"""

import json
import random
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import openlepton
from openlepton.errors import OpenLeptonError, ServeError, Unreachable, UsageError
from openlepton.serve.problems import error_of

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
JSON = "application/json"

_REPEATABLE = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))
_IDLE = 32  # connections kept

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Reply:
    """An answer, whole."""

    status: int
    headers: Message
    body: bytes

    @property
    def kind(self) -> str:
        """The media type, without its parameters."""
        return self.headers.get_content_type() if "content-type" in self.headers else ""

    def json(self) -> Any:
        """Return what the body says as JSON.

        Raises:
            ServeError: It is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise ServeError(f"the server's answer ({self.status}, {self.kind or 'no type'}) is not JSON") from None


class Connection:
    """A server, by its URL; may be used from many threads at once.

    Args:
        url: `http://HOST:PORT` or `https://...`, with a path below which everything lies, if there is one.
        token: Sent as `Authorization: Bearer`.
        timeout_s: For a call, all its tries and pauses together.
        retries: How often a call is tried again: when the server was too busy to begin, or lost, where a second time does no harm.

    Raises:
        UsageError: The URL is not of that form.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 30.0, retries: int = 4) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise UsageError(f"url: not an address: {url!r}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise UsageError(f"url: expected http://HOST:PORT or https://HOST, got {url!r}")
        if parts.username is not None:
            raise UsageError("url: a name and a password do not belong there; give a token")
        if timeout_s <= 0 or retries < 0:
            raise UsageError("timeout_s is more than 0, retries is not negative")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self.timeout_s, self.retries = timeout_s, retries
        self._kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._host, self._port, self._prefix = parts.hostname, port, parts.path.rstrip("/")
        self._headers = {"User-Agent": f"openlepton/{openlepton.__version__}"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._idle: list[HTTPConnection] = []
        self._lock = threading.Lock()

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
    ) -> Reply:
        """Return the answer to a request, one that is no error.

        Args:
            method: Of HTTP.
            path: Below the URL, percent-encoded, with a leading `/`.
            query: Names and values.
            body: What is sent.
            headers: Besides the usual ones.
            repeatable: Whether asking twice does no more than asking once; by default what HTTP says of the method.

        Raises:
            OpenLeptonError: What the server said, by its code; `ServeError` if it gave none.
            Unreachable: Nobody answered in time.
        """
        target = f"{self._prefix}{path}" + (f"?{urlencode(query)}" if query else "")
        repeatable = method in _REPEATABLE if repeatable is None else repeatable
        ends, wait_s = time.monotonic() + self.timeout_s, FIRST_WAIT_S
        for left in range(self.retries, -1, -1):
            try:
                reply = self._once(method, target, body, headers or {}, ends, repeatable)
            except (OSError, HTTPException) as error:
                failure: OpenLeptonError = Unreachable(f"{self.url}: {_reason(error)}")
                again, pause_s = repeatable or isinstance(error, ConnectionRefusedError | socket.gaierror), 0.0
            else:
                if reply.status < 300:
                    return reply
                failure, asked_s = _failure(reply), _retry_after_s(reply)
                busy = reply.status in (429, 503)
                again, pause_s = busy and (repeatable or asked_s is not None), asked_s or 0.0
                again |= repeatable and reply.status == 502
            pause_s = max(pause_s, wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - so that clients do not return together
            if not (again and left) or time.monotonic() + pause_s >= ends:
                raise failure
            time.sleep(pause_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        raise AssertionError("unreachable: the last try returns or raises")

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _once(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], ends: float, repeatable: bool
    ) -> Reply:
        """Ask on a connection that is open, if there is one; on a new one if the server has closed that meanwhile."""
        connection = self._taken() if repeatable else None
        if connection is not None:
            try:
                return self._on(connection, method, target, body, headers, ends)
            except (ConnectionError, HTTPException):
                pass
        return self._on(self._kind(self._host, self._port), method, target, body, headers, ends)

    def _on(
        self,
        connection: HTTPConnection,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        ends: float,
    ) -> Reply:
        left_s = max(ends - time.monotonic(), 0.001)
        connection.timeout = left_s
        if connection.sock is not None:
            connection.sock.settimeout(left_s)
        told = {**self._headers, **headers, "Deadline-Ms": str(max(1, int(1000 * left_s)))}
        try:
            connection.request(method, target, body, told)
            response = connection.getresponse()
            reply = Reply(response.status, response.headers, _read(connection, response, ends))
        except BaseException:
            connection.close()
            raise
        self._give(connection)
        return reply

    def _taken(self) -> HTTPConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _give(self, connection: HTTPConnection) -> None:
        with self._lock:
            if connection.sock is not None and len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()


def segment(text: str) -> str:
    """Return a part of a path, percent-encoded."""
    return quote(text, safe="")


def _read(connection: HTTPConnection, response: HTTPResponse, ends: float) -> bytes:
    parts = []
    while part := response.read1(2**20):
        parts.append(part)
        left_s = ends - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        if connection.sock is not None:
            connection.sock.settimeout(left_s)
    if response.length:
        raise HTTPException("the answer ended early")
    response.close()  # so that the connection takes another request
    return b"".join(parts)


def _failure(reply: Reply) -> OpenLeptonError:
    """Return the error that an answer tells of."""
    if reply.kind.endswith("json"):
        try:
            said = reply.json()
        except ServeError:
            said = None
        if isinstance(said, dict) and isinstance(said.get("code"), str):
            return error_of(said["code"], " ".join(filter(None, (str(said.get("detail", "")), said.get("instance")))))
        if isinstance(said, dict) and "detail" in said:  # as FastAPI has it by itself
            return ServeError(f"{reply.status}: {json.dumps(said['detail'], ensure_ascii=False)[:500]}")
    if 300 <= reply.status < 400:
        return ServeError(f"{reply.status}: the server sends elsewhere, which is not followed")
    return ServeError(f"the server answered {reply.status}")


def _retry_after_s(reply: Reply) -> float | None:
    """Return how long the server asks to wait, in either form that HTTP knows, or None if it does not."""
    said = (reply.headers.get("retry-after") or "").strip()
    if said.isascii() and said.isdigit():
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or "the connection was closed"
