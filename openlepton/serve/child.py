"""The inside of a worker process: reads messages, does the work, writes the answers, until the server is gone."""

import ctypes
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from openlepton.errors import OpenLeptonError
from openlepton.serve.frames import Frame, Socket, receive, send

_NO_GLIBC = (AttributeError, OSError, TypeError)  # another C library, or none that can be asked
_M_ARENA_MAX = -8

Outcome = bytes | OpenLeptonError
"""The answer to one item, ready for the wire, or what went wrong with it."""


@dataclass(frozen=True)
class Share:
    """What of the machine a worker may use."""

    lanes: int = 1
    """Items at a time, in as many threads."""
    threads: int = 1
    """For each item while there are others."""
    wide: int = 0
    """For an item that is alone in the server; 0 if it is treated like any other."""


class Handler(Protocol):
    """Does what a server is for; lives in a worker and is never shared."""

    def facts(self) -> Mapping[str, Any]:
        """Return what the server should know before it sends work; plain values."""

    def __call__(self, head: Mapping[str, Any], parts: Sequence[bytes], /) -> list[Outcome]:
        """Return one outcome for each of `parts`."""


class Setup(Protocol):
    """Makes a handler in a worker; travels there by pickle when the process starts, so it is a frozen dataclass."""

    def __call__(self, share: Share, /) -> Handler:
        """Return a handler."""


def main(sockets: Sequence[Socket], setup: Setup, share: Share) -> None:
    """Serve each of `sockets` in a thread until its other end closes; the only way out, as stopping is the server's business."""
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with suppress(*_NO_GLIBC):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)  # by default each thread keeps free memory of its own
    gc.freeze()  # memory that is shared with other workers stays so: the collector would write to it
    os.environ["OMP_NUM_THREADS"] = str(share.threads)  # for what a class of one's own may load
    first, *others = sockets
    try:
        handler = setup(share)
        facts = handler.facts()
    except Exception as error:
        send(first, {"fatal": _told(error)})
        if not isinstance(error, OpenLeptonError):
            raise
        return
    trim()
    for other in others:
        threading.Thread(target=_serve, args=(other, handler), daemon=True).start()
    send(first, {"ready": facts})
    _serve(first, handler)


def trim() -> None:
    """Give memory that is free back to the system, where the C library keeps it and can (glibc): loading a model leaves much."""
    with suppress(*_NO_GLIBC):
        ctypes.CDLL(None).malloc_trim(0)


def _serve(socket: Socket, handler: Handler) -> None:
    try:
        while (frame := receive(socket)) is not None:
            started = time.perf_counter()
            outcomes = _outcomes(handler, frame)
            run_ms = 1000 * (time.perf_counter() - started)
            errors = [None if isinstance(outcome, bytes) else _told(outcome) for outcome in outcomes]
            bodies = [outcome if isinstance(outcome, bytes) else b"" for outcome in outcomes]
            send(socket, {"run_ms": run_ms, "errors": errors}, bodies)
    except OSError:  # the server has gone
        pass
    finally:
        socket.close()


def _outcomes(handler: Handler, frame: Frame) -> Sequence[bytes | Exception]:
    try:
        return handler(frame.head, frame.parts)
    except Exception as error:  # noqa: BLE001 - one message must not end the process
        return [error] * len(frame.parts)


def _told(error: Exception) -> dict[str, str]:
    """Return the error as it travels; the trace of what nobody foresaw stays in the log."""
    if isinstance(error, OpenLeptonError):
        return {"code": error.code, "detail": " ".join(str(error).split())}
    logging.getLogger("openlepton.serve").error("a worker failed", exc_info=error)
    return {"code": OpenLeptonError.code, "detail": type(error).__name__}
