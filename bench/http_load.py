"""Load for a server: many connections from one thread, cheap enough to share a machine with what it measures.

`closed` keeps a number of clients busy; `opened` sends at a rate, whatever comes back; `hang_ups` does so and a fifth of the
clients leave; `poison` is `closed` with every tenth image broken.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Tally:
    """What came back."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    """By status; 0 for a connection that was closed without an answer, -1 for a client that hung up."""
    latencies_s: list[float] = field(default_factory=list)
    """Of answers with status 200."""
    bodies: Counter[bytes] = field(default_factory=Counter)
    """Answers with status 200, cut at `cut`, and how often each came."""

    def summary(self, deadline_s: float | None = None) -> dict[str, Any]:
        """Return answers a second, those in time a second, and percentiles in milliseconds."""
        times = sorted(self.latencies_s)
        good = sum(1 for value in times if deadline_s is None or value <= deadline_s)
        return {
            "rps": len(times) / self.seconds,
            "goodput": good / self.seconds,
            **{
                f"p{part}": 1000 * times[min(len(times) - 1, len(times) * part // 100)] if times else None
                for part in (50, 95, 99)
            },
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
        }


class Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self.lost = False
        self.transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the line."""
        self.transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Send a request; return its status and body."""
        self._data.clear()
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        """Put the answer together."""
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0 or self._waiting is None or self._waiting.done():
            return
        head = bytes(self._data[:end]).lower()
        size = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self._data) >= end + 4 + size:
            if b"connection: close" in head:
                self.lost = True
            self._waiting.set_result((int(head[9:12]), bytes(self._data[end + 4 : end + 4 + size])))

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits."""
        self.lost = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((0, b""))


class Load:
    """Asks one address of a server."""

    def __init__(self, port: int, request: bytes, *, cut: bytes = b"", poison: bytes = b"") -> None:
        self._port, self._request, self._cut, self._poison = port, request, cut, poison
        self._number = 0
        self._free: list[Connection] = []
        self.tally = Tally()

    async def one(self, hang_up_s: float | None = None) -> None:
        """Ask once, and note what came of it."""
        started = time.perf_counter()
        self._number += 1
        try:
            connection = await self._connection()
            answer = connection.ask(self._poison if self._poison and self._number % 10 == 0 else self._request)
            status, body = await (answer if hang_up_s is None else asyncio.wait_for(answer, hang_up_s))
        except TimeoutError:
            connection.transport.abort()
            self.tally.statuses[-1] += 1
            return
        except OSError:
            status, body = 0, b""
        else:
            if not connection.lost:
                self._free.append(connection)
        self.tally.statuses[status] += 1
        if status == 200:
            self.tally.latencies_s.append(time.perf_counter() - started)
            if self._cut:
                self.tally.bodies[body.split(self._cut)[0]] += 1

    async def closed(self, clients: int, seconds: float) -> Tally:
        """Keep `clients` busy for some seconds."""
        started = time.perf_counter()

        async def client() -> None:
            while time.perf_counter() - started < seconds:
                await self.one()

        await asyncio.gather(*(client() for _ in range(clients)))
        self.tally.seconds = time.perf_counter() - started
        return self.tally

    async def opened(self, rate: float, seconds: float, *, hang_ups: float = 0.0, hang_up_s: float = 0.01) -> Tally:
        """Send `rate` requests a second, of which a share hangs up soon; wait for the last answer."""
        started, tasks, number = time.perf_counter(), set[asyncio.Task[None]](), 0
        while (now := time.perf_counter() - started) < seconds:
            while number < now * rate:
                number += 1
                gone = int(number * hang_ups) > int((number - 1) * hang_ups)
                task = asyncio.create_task(self.one(hang_up_s if gone else None))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(0.002)
        self.tally.seconds = time.perf_counter() - started
        if tasks:
            await asyncio.wait(tasks)
        return self.tally

    def close(self) -> None:
        """Close what is open."""
        for connection in self._free:
            connection.transport.abort()

    async def _connection(self) -> Connection:
        while self._free:
            connection = self._free.pop()
            if not connection.lost and not connection.transport.is_closing():
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self._port)
        return connection


def post(path: str, body: bytes, kind: str = "image/jpeg", **headers: str) -> bytes:
    """Return the bytes of a request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def main(port: str, path: str, image: str, mode: str, amount: str, seconds: str, deadline_ms: str = "") -> None:
    """Print a summary as JSON: `http_load.py PORT PATH IMAGE MODE CLIENTS|RATE SECONDS [DEADLINE_MS]`."""
    headers = {"Deadline_Ms": deadline_ms} if deadline_ms else {}
    data = Path(image).read_bytes()
    broken = post(path, data[: len(data) // 2], **headers) if mode == "poison" else b""
    load = Load(int(port), post(path, data, **headers), poison=broken)
    if mode in ("closed", "poison"):
        run = load.closed(int(amount), float(seconds))
    else:
        run = load.opened(float(amount), float(seconds), hang_ups=0.2 if mode == "hang_ups" else 0.0)
    print(json.dumps(asyncio.run(run).summary(int(deadline_ms) / 1000 if deadline_ms else None)))


if __name__ == "__main__":
    main(*sys.argv[1:])
