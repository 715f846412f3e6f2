"""The long form of the server's promises: overload, hang-ups, killed workers, poison and fuzz, on a real server.

`python bench/serving_soak.py [SECONDS] [BODIES] [PHASE...]`, 60 s a phase, 10,000 bodies and all of overload, hang_ups, kills
and fuzz by default; exits with 1 if a promise is broken.
"""

import asyncio
import json
import random
import re
import statistics
import sys
import time
import urllib.request

import psutil
from http_load import Load, Tally, post
from measure import photographs
from serving import Contender, contenders, memory, serving

DEADLINE_MS = 1000
PHASES = ("overload", "hang_ups", "kills", "fuzz")
QUIET = ("waiting_items", "busy_items", "held_bytes")


class Soak:
    """One server, and what was found about it."""

    def __init__(self, server: psutil.Process, port: int, contender: Contender) -> None:
        self.server, self.port, self.path = server, port, contender.path
        self.image = photographs()[0].read_bytes()
        self.broken = 0

    def check(self, what: str, value: object, good: bool) -> None:
        """Print a finding."""
        self.broken += not good
        print(f"  {'kept  ' if good else 'BROKEN'} {what}: {value}", flush=True)

    def metrics(self) -> str:
        """Return the server's own numbers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            return answer.read().decode()

    def metric(self, name: str) -> float:
        """Return one of them."""
        return float(re.search(rf"^openlepton_{re.escape(name)} (\S+)$", self.metrics(), re.MULTILINE)[1])

    def items(self) -> dict[str, int]:
        """Return how many items came to which end."""
        found = re.findall(r'^openlepton_items_total\{outcome="(\w+)"\} (\S+)$', self.metrics(), re.MULTILINE)
        return {outcome: round(float(count)) for outcome, count in found}

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes."""
        family = self.server.children(recursive=True)
        return [one for one in family if one.ppid() != self.server.pid] or family

    def load(self, path: str = "", **options: bytes) -> Load:
        """Return a load with the deadline."""
        return Load(self.port, post(path or self.path, self.image, Deadline_Ms=str(DEADLINE_MS)), **options)

    def peak(self, seconds: float) -> float:
        """Return the most that it answers a second."""
        return max(asyncio.run(self.load().closed(clients, seconds / 3)).summary()["rps"] for clients in (2, 4, 8))

    def calm(self, seconds: float) -> bool:
        """Return whether nothing waits, runs or is held after some seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if all(self.metric(name) == 0 for name in QUIET):
                return True
            time.sleep(0.1)
        return False

    def overload(self, peak: float, seconds: float) -> None:
        """Three times what it can do."""
        before = self.items()
        found = asyncio.run(self.load().opened(3 * peak, seconds)).summary(DEADLINE_MS / 1000)
        items = {name: count - before[name] for name, count in self.items().items()}
        print(f"  clients saw {found['statuses']}, the server {items}", flush=True)
        self.check(
            "goodput at three times the peak, share of the peak",
            round(found["goodput"] / peak, 3),
            found["goodput"] > 0.9 * peak,
        )
        self.check("p99 of answers, ms", round(found["p99"], 1), found["p99"] < DEADLINE_MS)
        self.check(
            "nothing but answers and refusals", found["statuses"], set(found["statuses"]) <= {"200", "503", "504"}
        )
        started = time.perf_counter()
        one = asyncio.run(self.load().closed(1, 0.001))
        self.check(
            "recovery, s",
            round(time.perf_counter() - started, 3),
            one.statuses[200] == 1 and time.perf_counter() - started < 2,
        )
        self.check("nothing is left of it", QUIET, self.calm(5))

    def hang_ups(self, peak: float, seconds: float) -> None:
        """A fifth of the clients leave, after 10 ms in a queue of much longer: what is begun at once was not begun for nobody."""
        before, held = self.items(), memory(self.server)
        tally = asyncio.run(self.load().opened(3 * peak, seconds, hang_ups=0.2))
        self.check("nothing is left of it", QUIET, self.calm(5))
        items = {name: count - before[name] for name, count in self.items().items()}
        print(f"  clients saw {dict(tally.statuses)}, the server {items}", flush=True)
        wasted = items["left"] + items["done"] - tally.statuses[200]  # noticed, and not even that
        worked = items["left"] + items["done"] + items["overdue"]
        self.check("items worked on for clients that had left", f"{wasted} of {worked}", wasted <= 0.05 * worked)
        self.check("items that were dropped", items["dropped"], items["dropped"] > 0)
        grown = (memory(self.server) - held) / 1e6
        self.check("memory grown, MB", round(grown, 1), grown < 20)

    def kills(self, seconds: float) -> None:
        """A worker is killed every few seconds."""

        async def scenario() -> tuple[Tally, list[float]]:
            load = self.load(f"{self.path}?min_score=0.1", cut=b',"timing_ms"')
            work, back = asyncio.create_task(load.closed(8, seconds)), []
            while not work.done():
                await asyncio.sleep(2)
                random.choice(self.workers()).kill()
                killed, unready = time.perf_counter(), False
                while time.perf_counter() - killed < 20:
                    ready = await asyncio.to_thread(self.ready)
                    unready |= not ready
                    if unready and ready:
                        break
                    await asyncio.sleep(0.01)
                back.append(time.perf_counter() - killed)
            return await work, back

        tally, back = asyncio.run(scenario())
        self.check("answers while workers were killed", dict(tally.statuses), set(tally.statuses) <= {200, 503, 504})
        self.check("different answers to the same image", len(tally.bodies), len(tally.bodies) == 1)
        self.check(
            "workers killed, and back after (median, most; s)",
            (len(back), round(statistics.median(back), 2), round(max(back), 2)),
            max(back) < 10,
        )

    def ready(self) -> bool:
        """Return what the readiness probe says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def fuzz(self, count: int) -> None:
        """Bodies of every kind and none."""
        rng = random.Random(0)
        kinds = [
            "image/jpeg",
            "image/png",
            "application/json",
            "multipart/form-data; boundary=b",
            "text/plain",
            "x" * 500,
        ]
        paths = [self.path, "/v1/classify", "/v1/jobs", "/v2/models/x/infer", "/v1/models/x/predict", "/" + "a" * 2000]
        seeds = [
            self.image,
            b'{"image": "AAAA"}',
            b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--b--',
            rng.randbytes(2000),
        ]

        def request() -> bytes:
            data = bytearray(rng.choice(seeds))
            for _ in range(rng.randrange(30)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            return post(rng.choice(paths), bytes(data[: rng.randrange(len(data) + 1)]), rng.choice(kinds))

        async def some(number: int) -> set[int]:
            seen: set[int] = set()
            for _ in range(number):
                load = Load(self.port, request())
                await load.one()
                load.close()
                seen |= set(load.tally.statuses)
            return seen

        asyncio.run(some(count // 10))
        before = memory(self.server)
        seen = asyncio.run(some(count))
        self.check(f"answers to {count} fuzzed bodies", sorted(seen), not seen & {0, 500, 502})
        grown = (memory(self.server) - before) / 1e6
        self.check("memory grown, MB", round(grown, 1), grown < 20)
        self.check("nothing is left of it", QUIET, self.calm(5))


def main(seconds: str = "60", bodies: str = "10000", *phases: str) -> None:
    """Run the phases, and say what was kept."""
    ours = contenders("")[0]
    chosen = phases or PHASES
    if unknown := set(chosen) - set(PHASES):
        raise SystemExit(f"no phase {min(unknown)}, there are {', '.join(PHASES)}")
    with serving(ours) as (server, port):
        soak = Soak(server, port, ours)
        peak = soak.peak(min(15.0, float(seconds))) if {"overload", "hang_ups"} & set(chosen) else 0.0
        print(f"{json.dumps(ours.command)}: {peak:.1f} requests/s at most")
        for phase in chosen:
            print(phase)
            match phase:
                case "overload":
                    soak.overload(peak, float(seconds))
                case "hang_ups":
                    soak.hang_ups(peak, float(seconds))
                case "kills":
                    soak.kills(float(seconds))
                case "fuzz":
                    soak.fuzz(int(bodies))
    sys.exit(soak.broken > 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
