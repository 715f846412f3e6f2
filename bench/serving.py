"""The server against LitServe and a plain FastAPI endpoint: the same model file, preparation and finish, loads in turn.

`python bench/serving.py PEER_PYTHON [ROUNDS] [SECONDS] [FILE]`; rounds are added to those in FILE, if one is named. The peer's
environment needs litserve, uvicorn[standard], pydantic, numpy, onnxruntime, opencv-python-headless and pillow; OpenLepton's own
source is put on its path. Load comes from a process of its own.
"""

import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from measure import DRIVERS, OURS, ROOT, driver, photographs

from openlepton.hub.index import DEFAULTS
from openlepton.runtimes.cores import usable_cores

MODEL = DEFAULTS.get("detect", "yolov5n-bccd")
CLIENTS = (1, 8, 32)
BUSY = 8
DEADLINE_MS = 1000
CORES = usable_cores()


@dataclass(frozen=True)
class Contender:
    """A server that is measured."""

    name: str
    command: tuple[str, ...]
    """With `{port}` in it."""
    path: str


Servers = dict[Contender, tuple[psutil.Process, int]]


@dataclass
class Figures:
    """What was measured of one of them, a value a round."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float | None) -> None:
        """Take a value."""
        self.values.setdefault(name, []).append(float("nan") if value is None else value)

    def median(self, name: str) -> float:
        """Return the middle one."""
        return statistics.median(self.values[name])


def contenders(peer_python: str) -> list[Contender]:
    """Return them, ours first."""
    ours = (*OURS, "-m", "openlepton", "serve", MODEL, "--port", "{port}")
    litserve = (peer_python, str(DRIVERS / "litserve_server.py"), MODEL, "{port}", str(CORES))
    fastapi = (peer_python, str(DRIVERS / "fastapi_server.py"), MODEL, "{port}")
    return [
        Contender("openlepton", ours, "/v1/detect"),
        Contender("litserve", litserve, "/predict"),
        Contender("fastapi", (*fastapi, str(CORES)), "/predict"),
        Contender("fastapi-1", (*fastapi, "1"), "/predict"),
    ]


@contextmanager
def serving(contender: Contender) -> Iterator[tuple[psutil.Process, int]]:
    """Start a server, wait until it answers, and stop it with everything that belongs to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [part.format(port=port) for part in contender.command]
    with tempfile.TemporaryFile() as log:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = psutil.Popen(command, env=env, stdout=log, stderr=log, cwd=tempfile.gettempdir())
        try:
            image = str(photographs()[0])
            end = time.monotonic() + 120
            while load(port, contender.path, image, "closed", 1, 0.1)["statuses"].get("200", 0) == 0:
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise SystemExit(f"{contender.name} did not start:\n{log.read().decode()[-2000:]}")
                time.sleep(0.3)
            for line in (
                os.pread(log.fileno(), 10_000, 0).decode().splitlines()
            ):  # to seek would move where the server writes
                print(f"  {contender.name}: {line}", flush=True)
            yield process, port
        finally:
            family = [*process.children(recursive=True), process]
            process.terminate()
            psutil.wait_procs(family, timeout=15)
            for one in family:
                if one.is_running():
                    one.kill()


def load(
    port: int, path: str, image: str, mode: str, amount: float, seconds: float, deadline_ms: str = ""
) -> dict[str, Any]:
    """Return what the load generator counted."""
    command = [*OURS, str(ROOT / "bench" / "http_load.py"), str(port), path, image, mode, str(amount), str(seconds)]
    done = subprocess.run(
        [*command, deadline_ms] if deadline_ms else command, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def alone(contender: Contender, image: str, figures: Figures) -> None:
    """Measure the memory of one server that has been busy."""
    with serving(contender) as (process, port):
        load(port, contender.path, image, "closed", max(CLIENTS), 3)
        figures.add("memory_mb", memory(process) / 1e6)


def measured(servers: Servers, image: str, seconds: float, figures: dict[str, Figures], raw: Figures) -> None:
    """Measure all of them, which are running, for a round: each kind of load for each in turn, so that what else runs meets all."""

    def each(
        mode: str, amount: Callable[[str], float], length: float = seconds, deadline_ms: str = ""
    ) -> Iterator[Any]:
        order = random.sample(list(servers), len(servers))
        for contender in order:
            process, port = servers[contender]
            before = cpu_seconds(process)
            found = load(port, contender.path, image, mode, amount(contender.name), length, deadline_ms)
            yield figures[contender.name], found, cpu_seconds(process) - before

    for clients in CLIENTS:
        for one, found, cpu_s in each("closed", lambda _, clients=clients: clients):
            for name in ("rps", "p50", "p95", "p99"):
                one.add(f"{name} {clients}", found[name])
            one.add(f"cpu_ms {clients}", 1000 * cpu_s / max(found["statuses"].get("200", 0), 1))
        if clients == BUSY:
            raw.add("rps", driver(OURS, "openlepton_throughput.py", MODEL, image, str(seconds), str(CORES))["rps"])

    def peak(name: str) -> float:
        return figures[name].values[f"rps {BUSY}"][-1]

    deadline_ms = str(DEADLINE_MS)
    for one, found, _ in each("opened", lambda name: 3 * peak(name), 2 * seconds, deadline_ms):
        one.add("overload goodput", found["goodput"])
        one.add("overload share", found["goodput"] / one.values[f"rps {BUSY}"][-1])
        one.add("overload p99", found["p99"])
    for one, found, _ in each("hang_ups", lambda name: 2 * peak(name), seconds, deadline_ms):
        one.add("hang-up goodput", found["goodput"])
    for one, found, _ in each("poison", lambda _: BUSY):
        one.add("poison rps", found["rps"])


def cpu_seconds(process: psutil.Process) -> float:
    """Return the processor time of a server and everything below it."""
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


def memory(process: psutil.Process) -> int:
    """Return its memory, what is shared counted once where the system can tell."""
    family = (process, *process.children(recursive=True))
    return sum(getattr(one.memory_full_info(), "pss", one.memory_info().rss) for one in family)


def main(peer_python: str, rounds: str = "3", seconds: str = "8", file: str = "") -> None:
    """Print the table, and each target with what was reached."""
    image = str(photographs()[0])
    everyone = contenders(peer_python)
    kept = Path(file) if file else None
    values = json.loads(kept.read_text()) if kept is not None and kept.exists() else {}
    figures = {one.name: Figures(values.get(one.name, {})) for one in everyone}
    raw = Figures(values.get("raw", {}))
    for contender in everyone:
        if "memory_mb" not in figures[contender.name].values:
            alone(contender, image, figures[contender.name])
    with ExitStack() as stack:
        servers = {one: stack.enter_context(serving(one)) for one in everyone}
        for one, (_, port) in servers.items():
            load(port, one.path, image, "closed", 2 * CORES, 2)
        for _ in range(int(rounds)):
            measured(servers, image, float(seconds), figures, raw)
            if kept is not None:
                rows = {"raw": raw.values, **{name: found.values for name, found in figures.items()}}
                kept.write_text(json.dumps(rows))
    print(f"{MODEL}, {CORES} cores, medians of {len(raw.values['rps'])} rounds of {seconds} s")
    tell(figures, raw)


def tell(figures: dict[str, Figures], raw: Figures) -> None:
    """Print the table, and each target with what was reached."""
    ours, others = figures["openlepton"], [found for name, found in figures.items() if name != "openlepton"]
    print("  " + "".join(f"{name:>18}" for name in ("", *figures)))
    for name in ours.values:
        print("  " + f"{name:>18}" + "".join(f"{found.median(name):18.2f}" for found in figures.values()))
    for clients in CLIENTS:
        name = f"rps {clients}"
        best = max(others, key=lambda found: found.median(name))
        ratios = [a / b for a, b in zip(ours.values[name], best.values[name], strict=True)]
        told(f"requests/s at {clients} clients against the best of the others", statistics.median(ratios), 1.0)
    told("litserve's memory against ours", figures["litserve"].median("memory_mb") / ours.median("memory_mb"), 2.0)
    told("goodput at three times the peak, share of the peak", ours.median("overload share"), 0.9)
    for name in ("overload goodput", "hang-up goodput", "poison rps"):
        best = max(found.median(name) for found in others)
        told(f"{name} against the best of the others", ours.median(name) / max(best, 0.01), 1.0)
    shares = [a / b for a, b in zip(ours.values[f"rps {BUSY}"], raw.values["rps"], strict=True)]
    told(f"share of the raw pipeline's {raw.median('rps'):.1f}/s that HTTP keeps", statistics.median(shares), 0.85)


def told(what: str, value: float, target: float) -> None:
    """Print a figure against its target."""
    print(f"  {what}: {value:.2f}; target {target:g}: {'reached' if value >= target else 'MISSED'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
