"""A server from its start to its end: the socket, the signals, and an exit status that says whether all was finished."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from openlepton.errors import UsageError
from openlepton.serve.settings import Limits, Settings

_KEEP_ALIVE_S = 30
_MAX_HEAD_BYTES = 64 * 1024
_BACKLOG = 1024

Tell = Callable[[str], None]


def serve(app: FastAPI, settings: Settings, drain: Callable[[], None], tell: Tell) -> int:
    """Serve until a signal comes; return 0 if everything that was accepted was finished.

    Args:
        app: The application.
        settings: The address and the pace.
        drain: Called when the signal comes: from then on nothing more is taken.
        tell: Takes the address once it can be asked.

    Raises:
        UsageError: The address cannot be had.
        OpenLeptonError: What keeps the workers from starting.
    """
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        http=_protocol(settings.limits),
        ws="none",
        lifespan="off",  # it runs around the server, where its errors are ours to tell
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.grace_s)),
        backlog=_BACKLOG,
    )
    with _bind(settings.host, settings.port) as listening:
        server = _Server(config, drain, lambda: tell(f"http://{_address(listening)}"))
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_live(app, server, listening))
    return int(server.cut_short)


async def _live(app: FastAPI, server: "_Server", listening: socket.socket) -> None:
    async with app.router.lifespan_context(app):
        await server.serve(sockets=[listening])


class _Server(uvicorn.Server):
    """Stops on a signal as one who was asked to, not as one who was killed; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None], ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.cut_short = False
        self._drain, self._ready = drain, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        names = ("SIGINT", "SIGTERM", "SIGBREAK")
        signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._drain()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self.cut_short = bool(self.server_state.tasks)


def _protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with an end to its patience: heads of requests come soon and are short, connections are counted."""

    class Impatient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # one of two classes, by what is installed
        _alarm: asyncio.TimerHandle | None = None
        _head_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.abort()
            else:
                self._watch(0)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch(len(data))

        def connection_lost(self, error: Exception | None) -> None:
            self._rest()
            super().connection_lost(error)

        def _watch(self, count: int) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._rest()
                return
            self._head_bytes += count
            if self._head_bytes > _MAX_HEAD_BYTES:
                self.transport.close()
            elif self._alarm is None and not self.transport.is_closing():
                self._alarm = self.loop.call_later(limits.header_s, self.transport.close)

        def _rest(self) -> None:
            self._head_bytes = 0
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None

    return Impatient


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UsageError(f"{host} port {port}: no such address: {error}") from None
    try:
        if sys.platform != "win32":  # where it would let two servers share a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise UsageError(f"{host} port {port}: {error.strerror or error}; choose another with --port") from None
    bound.setblocking(False)
    return bound


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
