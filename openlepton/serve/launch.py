"""Two ways to start a worker process: anew, and as a copy of a process that has imported everything and done nothing yet."""

import gc
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Protocol

from openlepton.serve import child
from openlepton.serve.child import Setup, Share

_MOST_LANES = 16
_POLL_S = 0.01


class Process(Protocol):
    """A worker process that was started."""

    @property
    def pid(self) -> int | None:
        """Its number."""

    def is_alive(self) -> bool:
        """Whether it has not ended."""

    def kill(self) -> None:
        """End it at once."""

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""


class Launch(Protocol):
    """Starts workers; may be called from any thread."""

    def __call__(self, sockets: Sequence[socket.socket], share: Share, /) -> Process:
        """Return a process that serves `sockets`, of which it has copies."""

    def close(self) -> None:
        """Start no more."""


class Anew:
    """Starts each worker as a new process, which imports what it needs: everywhere, for any setup."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def __call__(self, sockets: Sequence[socket.socket], share: Share) -> Process:
        """Return a process that serves `sockets`."""
        context = multiprocessing.get_context("spawn")  # a copy of this process would have its threads' locks
        process = context.Process(target=child.main, args=(list(sockets), self._setup, share), daemon=True)
        process.start()
        return process

    def close(self) -> None:
        """Nothing is left to close."""


class Copies:
    """Starts each worker as a copy of a helper process, which is a copy of this one: at once, and sharing its memory.

    To be made while this process has a single thread, on systems that can copy processes; what the workers will need should
    have been imported. If the helper is lost, workers are started anew.

    Args:
        setup: Makes the handler of a worker that is started anew.
        prepare: Called in the helper: returns the setup for its copies, which has done what they can share. It starts no
            threads. If it fails, the copies use `setup`, and tell what is wrong.
    """

    def __init__(self, setup: Setup, prepare: Callable[[], Setup] | None = None) -> None:
        self._anew = Anew(setup)
        self._lock = threading.Lock()
        self._line, theirs = socket.socketpair()
        gc.collect()
        gc.freeze()  # the collector would write to the memory that is shared
        if os.fork() == 0:
            self._line.close()
            _copy_on_demand(theirs, setup, prepare)
        theirs.close()

    def __call__(self, sockets: Sequence[socket.socket], share: Share) -> Process:
        """Return a process that serves `sockets`."""
        with self._lock:
            try:
                socket.send_fds(self._line, [json.dumps(asdict(share)).encode()], [one.fileno() for one in sockets])
                pid = int.from_bytes(self._line.recv(8), "big")
            except OSError:
                pid = 0
        return _Copy(pid) if pid else self._anew(sockets, share)

    def close(self) -> None:
        """End the helper."""
        self._line.close()


class _Copy:
    """A worker that is no child of this process, but of the helper, which forgets it as soon as it ends."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def is_alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self.is_alive():
            os.kill(self.pid, signal.SIGKILL)

    def join(self, timeout: float | None = None) -> None:
        end = time.monotonic() + (1e9 if timeout is None else timeout)
        while self.is_alive() and time.monotonic() < end:
            time.sleep(_POLL_S)


def _copy_on_demand(line: socket.socket, setup: Setup, prepare: Callable[[], Setup] | None) -> None:
    """Be the helper until the server closes the line; never return."""
    for polite in (signal.SIGINT, signal.SIGTERM):
        signal.signal(polite, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that nobody must wait for those who end
    if prepare is not None:
        with suppress(Exception):
            setup = prepare()
        gc.collect()
        gc.freeze()
        child.trim()
    while True:
        asked, descriptors, *_ = socket.recv_fds(line, 4096, _MOST_LANES)
        if not asked:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            line.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            status = 1
            try:
                child.main([socket.socket(fileno=number) for number in descriptors], setup, Share(**json.loads(asked)))
                status = 0
            finally:
                os._exit(status)
        for number in descriptors:
            os.close(number)
        line.sendall(pid.to_bytes(8, "big"))
