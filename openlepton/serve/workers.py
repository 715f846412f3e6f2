"""The server's side of its worker processes: start them, speak with them, replace the one that dies."""

import asyncio
import atexit
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import Any, cast

from openlepton.errors import ModelFailed, OpenLeptonError, WorkerLost
from openlepton.serve.child import Share
from openlepton.serve.frames import Frame, Unpacker, pack
from openlepton.serve.launch import Launch, Process
from openlepton.serve.problems import error_of

_JOINED = 1024 * 1024  # bytes that are sooner copied together than written apart
_START_S = 120.0  # until a worker must be ready
_WAITS_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # before a worker is started again that died before it was ready

log = logging.getLogger("openlepton.serve")


@dataclass(frozen=True)
class Reply:
    """What a worker says to a message."""

    bodies: tuple[bytes, ...]
    errors: tuple[OpenLeptonError | None, ...]
    run_s: float


class Line(asyncio.Protocol):
    """The line to one thread of a worker: one message at a time."""

    def __init__(self, worker: "Worker") -> None:
        self.worker = worker
        self._unpacker = Unpacker()
        self._transport: asyncio.Transport | None = None
        self._waiting: Callable[[Reply | None], None] | None = None

    @property
    def idle(self) -> bool:
        """Whether it waits for work."""
        return self._waiting is None and self.worker.alive

    def ask(self, head: Mapping[str, Any], parts: tuple[bytes, ...], tell: Callable[[Reply | None], None]) -> None:
        """Give it something to do; `tell` is called with what it says, or with None if the process ends first."""
        assert self._waiting is None
        assert self._transport is not None
        self._waiting = tell
        start = pack(head, parts)
        if sum(map(len, parts)) <= _JOINED:
            self._transport.write(b"".join((start, *parts)))
        else:
            for part in (start, *parts):
                self._transport.write(part)

    def close(self) -> None:
        """Close it, upon which the thread ends."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        """Take what the worker says."""
        for frame in self._unpacker.feed(data):
            if "run_ms" in frame.head and self._waiting is not None:
                waiting, self._waiting = self._waiting, None
                errors = tuple(None if error is None else error_of(**error) for error in frame.head["errors"])
                waiting(Reply(frame.parts, errors, frame.head["run_ms"] / 1000))
            else:
                self.worker.begun(frame)

    def connection_lost(self, error: Exception | None) -> None:
        """The process has ended, whatever ended it: nobody else holds the other end."""
        self.worker.ended()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting(None)


class Worker:
    """One process and the lines to its threads. It is made, lives and dies once."""

    def __init__(self, launch: Launch, share: Share) -> None:
        self.wide = share.wide > 1
        self.facts: Mapping[str, Any] = {}
        self.lines = tuple(Line(self) for _ in range(share.lanes))
        self.gone = asyncio.Event()
        self._launch, self._share = launch, share
        self._ready: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._process: Process | None = None

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            OpenLeptonError: What it says is wrong, such as a model that is not what its card says.
        """
        pairs = [socket.socketpair() for _ in self.lines]
        theirs = [pair[1] for pair in pairs]
        try:
            self._process = await asyncio.to_thread(self._launch, theirs, self._share)
        except BaseException:
            for ours, _ in pairs:
                ours.close()
            raise
        finally:
            for end in theirs:
                end.close()
        atexit.register(self.kill)  # it ignores the polite signals, and Python would wait for it
        for line, (ours, _) in zip(self.lines, pairs, strict=True):
            ours.setblocking(False)
            await asyncio.get_running_loop().create_connection(partial(_same, line), sock=ours)
        try:
            self.facts = await asyncio.wait_for(self._ready, _START_S)
        except TimeoutError:
            self.kill()
            raise ModelFailed(f"a worker was not ready after {_START_S:.0f} s") from None

    @property
    def pid(self) -> int | None:
        """The number of the process."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it is ready and has not ended."""
        return bool(self.facts) and not self.gone.is_set()

    @property
    def ran(self) -> bool:
        """Whether there was a process that has ended."""
        return self._process is not None and not self._process.is_alive()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and self._process.is_alive():
            self._process.kill()

    async def stop(self) -> None:
        """Close the lines, upon which the process ends by itself; make sure that it did."""
        for line in self.lines:
            line.close()
        if self._process is not None and self._process.pid is not None:
            await asyncio.to_thread(self._process.join, 5.0)
            self.kill()
            await asyncio.to_thread(self._process.join, 5.0)
            atexit.unregister(self.kill)

    def begun(self, frame: Frame) -> None:
        """Take the first thing that it says."""
        if "ready" in frame.head:
            self._ready.set_result(frame.head["ready"] or {"": {}})
        else:
            self._ready.set_exception(error_of(**frame.head["fatal"]))

    def ended(self) -> None:
        """A line has broken: the process has ended, or is of no use any more."""
        if not self.gone.is_set():
            self.gone.set()
            self.kill()
        if not self._ready.done():
            self._ready.set_exception(WorkerLost("a worker ended before it was ready"))
            self._ready.exception()  # nobody may be left who wants to know


def _same(line: Line) -> Line:
    return line


class Pool:
    """As many workers as were asked for; a dead one is replaced.

    Args:
        launch: Starts the processes.
        changed: Called when a worker has become free or has died.
    """

    def __init__(self, launch: Launch, changed: Callable[[], None]) -> None:
        self._launch, self._changed = launch, changed
        self._workers: list[Worker] = []
        self._keepers: list[asyncio.Task[None]] = []
        self.restarts = 0

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Those that are alive."""
        return tuple(self._workers)

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines to those."""
        return tuple(line for worker in self._workers for line in worker.lines)

    @property
    def size(self) -> int:
        """How many workers there should be."""
        return len(self._keepers)

    @property
    def whole(self) -> bool:
        """Whether all are alive."""
        return len(self._workers) == len(self._keepers) > 0

    async def start(self, shares: list[Share]) -> None:
        """Start a worker for each share and wait until all are ready."""
        workers = [Worker(self._launch, share) for share in shares]
        results = await asyncio.gather(*(worker.start() for worker in workers), return_exceptions=True)
        failed = next((result for result in results if isinstance(result, BaseException)), None)
        if failed is not None:
            await asyncio.gather(*(worker.stop() for worker in workers))
            raise failed
        self._workers = workers
        self._keepers = [asyncio.create_task(self._keep(*pair)) for pair in zip(workers, shares, strict=True)]

    async def stop(self) -> None:
        """Stop all of them."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        self._workers, self._keepers = [], []

    async def _keep(self, worker: Worker, share: Share) -> None:
        while True:
            await worker.gone.wait()
            self._workers.remove(worker)
            self._changed()
            log.warning("a worker ended; another one takes its place")
            await worker.stop()
            worker = await self._replace(share)
            self._workers.append(worker)
            self.restarts += 1
            self._changed()

    async def _replace(self, share: Share) -> Worker:
        for wait_s in chain(_WAITS_S, repeat(_WAITS_S[-1])):
            await asyncio.sleep(wait_s)
            worker = Worker(self._launch, share)
            try:
                await worker.start()
            except (OpenLeptonError, OSError) as error:
                log.error("a worker could not be started: %s", error)
                await worker.stop()
            else:
                return worker
        raise AssertionError
