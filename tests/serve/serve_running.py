"""Real servers: a process each, started as a user starts one, asked over the loopback interface."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

HERE = Path(__file__).parent
JPEG = {"Content-Type": "image/jpeg"}


class Running:
    """A server that runs."""

    def __init__(self, process, url, lines):
        self.process, self.url, self.lines = process, url, lines
        self.port = int(url.rsplit(":", 1)[1])
        self.client = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def workers(self):
        """The processes of its workers."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        grandchildren = [
            one for one in family if one.ppid() != self.process.pid
        ]  # where workers are copies of a helper
        return grandchildren or [one for one in family if "resource_tracker" not in " ".join(one.cmdline())]

    def memory(self):
        """Resident bytes of server and workers."""
        return sum(one.memory_info().rss for one in (psutil.Process(self.process.pid), *self.workers()))

    def stop(self, number=signal.SIGTERM, timeout=60):
        """Ask it to stop; return its exit status and all that it said."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(timeout)
        finally:
            self.client.close()
            self.process.kill()
        return status, self.lines


@contextmanager
def running(*arguments, command=("-m", "openlepton", "serve"), env=None, cwd=None):
    """Start a server on a free port and give it, ready; it is gone afterwards."""
    port = () if command[0] != "-m" else ("--port", "0")
    process = subprocess.Popen(
        [sys.executable, *command, *map(str, arguments), *port],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("openlepton serve: http://"):
                break
        else:
            raise AssertionError("the server did not start:\n" + "\n".join(lines))
        reader = threading.Thread(
            target=lambda: lines.extend(line.rstrip("\n") for line in process.stdout), daemon=True
        )
        reader.start()
        server = Running(process, lines[-1].split()[-1], lines)
        yield server
        server.stop()
    finally:
        process.kill()
        process.wait()


def until(condition, seconds=60.0):
    """Wait until `condition()` is true; fail after some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
