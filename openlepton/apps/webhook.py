"""Sends events to the URLs that a user's rules name: the one place of the package that opens a connection.

A redirect is not followed, no proxy is asked, and certificates are verified. Nothing here ever holds up the video: messages wait
in a bounded queue and are sent, in order, by a thread of their own.
"""

import http.client
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from openlepton.apps.rules import Hook
from openlepton.errors import UsageError

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
AGAIN = frozenset((408, 425, 429))
"""Client errors that may pass; the others say that the message itself is refused, and trying again would not help."""


@dataclass(frozen=True)
class Delivery:
    """How a webhook has fared."""

    delivered: int = 0
    """Answered with 2xx."""
    failed: int = 0
    """Given up: refused, or tried as often as the rules say."""
    dropped: int = 0
    """Never tried: the queue was full, or there was no time left at the end."""
    problem: str = ""
    """The last one, in words."""


class Webhook:
    """Posts messages to one URL, retried with back-off; `send` never waits.

    A message that is tried again has the same `Idempotency-Key`, so that a receiver can tell.

    Args:
        hook: Where to, from the rules.
        waiting: The most messages that wait.
        first_wait_s: The pause before the second try; it doubles with each further one, up to a minute.

    Raises:
        UsageError: The environment variable that should hold the token is not set.
    """

    def __init__(self, hook: Hook, *, waiting: int = 256, first_wait_s: float = FIRST_WAIT_S) -> None:
        self._hook, self._first_wait_s = hook, first_wait_s
        self._token = _token(hook)
        self._queue: queue.Queue[tuple[str, bytes]] = queue.Queue(waiting)
        self._lock, self._done = threading.Lock(), Delivery()
        self._closing, self._last_call_s = threading.Event(), float("inf")
        self._thread = threading.Thread(target=self._work, name="openlepton-webhook", daemon=True)
        self._thread.start()

    @property
    def delivery(self) -> Delivery:
        """How it has fared so far."""
        return self._done

    def send(self, key: str, message: Mapping[str, Any]) -> None:
        """Queue a message; `key` tells it from every other."""
        try:
            self._queue.put_nowait((key, json.dumps(message, ensure_ascii=False).encode()))
        except queue.Full:
            self._count(dropped=1, problem=f"{self._hook.url}: {self._queue.maxsize} messages wait already")

    def close(self, *, grace_s: float = 5.0) -> Delivery:
        """Send what waits for up to `grace_s` seconds, stop, and return how it fared."""
        self._last_call_s = time.monotonic() + grace_s
        self._closing.set()
        self._thread.join(grace_s + self._hook.timeout_s + 1)
        left = self._queue.qsize()
        if left:
            self._count(dropped=left, problem=f"{self._hook.url}: {left} messages could not be sent before the end")
        return self._done

    def _work(self) -> None:
        while time.monotonic() < self._last_call_s:
            try:
                key, body = self._queue.get(timeout=0.1)
            except queue.Empty:
                if self._closing.is_set():
                    return
                continue
            self._deliver(key, body)

    def _deliver(self, key: str, body: bytes) -> None:
        wait_s, problem = self._first_wait_s, ""
        for attempt in range(self._hook.tries):
            if attempt and not self._pause(wait_s * 2 ** (attempt - 1)):
                break
            status, problem = self._post(key, body)
            if 200 <= status < 300:
                self._count(delivered=1)
                return
            if 300 <= status < 500 and status not in AGAIN:
                break
        self._count(failed=1, problem=f"{self._hook.url}: {problem}")

    def _pause(self, wait_s: float) -> bool:
        """Wait before another try; return whether there is time for one."""
        until = time.monotonic() + min(wait_s, LONGEST_WAIT_S)
        while (now := time.monotonic()) < min(until, self._last_call_s):
            time.sleep(min(0.1, until - now))
        return time.monotonic() < self._last_call_s

    def _post(self, key: str, body: bytes) -> tuple[int, str]:
        """Return the status, 0 for none, and what was wrong."""
        url = self._hook.url
        kind: Callable[..., http.client.HTTPConnection] = http.client.HTTPConnection
        if url.scheme == "https":
            kind = http.client.HTTPSConnection
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "openlepton",
            "Idempotency-Key": key,
        }
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        connection = kind((url.host or "").strip("[]"), url.port, timeout=self._hook.timeout_s)
        try:
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("POST", path, body, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error) or type(error).__name__
        finally:
            connection.close()
        return status, f"answered {status}"

    def _count(self, *, delivered: int = 0, failed: int = 0, dropped: int = 0, problem: str = "") -> None:
        with self._lock:
            was = self._done
            self._done = Delivery(
                was.delivered + delivered, was.failed + failed, was.dropped + dropped, problem or was.problem
            )


def _token(hook: Hook) -> str:
    if hook.token_env is None:
        return ""
    token = os.environ.get(hook.token_env, "")
    if not token.isascii() or not token.isprintable() or not token:
        raise UsageError(f"webhook: the environment variable {hook.token_env} does not hold a token")
    return token
