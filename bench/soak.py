"""A watch that goes on: 20,000 frames of four streams, one of which dies every 500 frames, events that are known beforehand.

    python bench/soak.py [--frames 20000] [--fps 25] [--model NAME]

Four local servers send motion JPEG over HTTP, a loop of 500 frames each, in which somebody walks through a forbidden zone once and
crosses a line the wrong way once. The first server hangs up after each loop. Each picture carries its number as a bar code, so
that it is known which frames arrived. A fifth server takes webhooks, and refuses every seventh at first. The watch is a process of
its own and is stopped by an interrupt, as by Ctrl-C. Then must hold, and otherwise the script fails:

- memory grows by less than 5 MB after the first minute (`--settle-s`), or after a tenth of the frames if that comes later,
- each loop has its two events, once, in JSON lines, in SQLite and at the webhook, each with its end,
- no frame was lost or came twice,
- every video and clip plays to its end, and nothing unfinished lies about.
"""

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

LOOP, HW, BITS, SOURCES = 500, (180, 320), 10, 4
ENTERS, LEAVES, CROSSES = 100, 200, 300
MAX_GROWTH_MB = 5.0

RULES = """
[[zone]]
name = "forbidden"
points = [[0.3, 0.3], [0.7, 0.3], [0.7, 1.0], [0.3, 1.0]]
[[line]]
name = "door"
points = [[0.85, 1.0], [0.85, 0.2]]
[[rule]]
kind = "intrusion"
zone = "forbidden"
[[rule]]
kind = "wrong-way"
line = "door"
forbidden = "in"
[clips]
before_s = 1
after_s = 1
[[webhook]]
url = "http://127.0.0.1:{port}/hook"
"""


def picture(number: int) -> np.ndarray:
    """Return frame `number` of the loop: a bar code above, a red rectangle that walks below."""
    image = np.full((*HW, 3), 120, np.uint8)
    image[HW[0] // 4 :] += (np.indices((HW[0] - HW[0] // 4, HW[1])).sum(axis=0) % 40).astype(np.uint8)[..., None]
    for bit in range(BITS):
        image[4:20, 8 + bit * 24 : 28 + bit * 24] = 255 if number >> bit & 1 else 0
    x = None
    if ENTERS <= number < LEAVES:
        x = 110 + (number - ENTERS)  # stays within the zone, 96..224
    elif CROSSES - 20 <= number < CROSSES + 20:
        x = 272 + (number - CROSSES)  # across the line at 272
    if x is not None:
        image[90:170, x - 10 : x + 10] = (225, 30, 30)
    return image


def find(image: np.ndarray) -> Any:
    """Return the red rectangle as a person."""
    from openlepton.results import Detections

    rows, columns = np.nonzero((image[..., 0] > 170) & (image[..., 1] < 100) & (image[..., 2] < 100))
    boxes = [(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)] if len(rows) > 200 else []
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), [0.9] * count, [0] * count, ("person",), image.shape[:2]
    )


def number_of(image: np.ndarray) -> int:
    """Return what the bar code says."""
    return sum(int(image[8:16, 12 + bit * 24 : 24 + bit * 24].mean() > 128) << bit for bit in range(BITS))


def serve(fps: float) -> None:
    """Serve until killed; print the port of the cameras and the webhook's, then the keys that it took, on request."""
    jpegs = [
        cv2.imencode(".jpg", picture(number)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        for number in range(LOOP)
    ]
    taken: Counter[str] = Counter()
    asked, lock = [0], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/taken":
                body = json.dumps(taken).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            due, number = time.monotonic(), 0
            try:
                while number < LOOP or not self.path.startswith("/camera0"):
                    jpeg = jpegs[number % LOOP]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                    number += 1
                    due = max(due + 1 / fps, time.monotonic() - 1)
                    time.sleep(max(0.0, due - time.monotonic()))
                self.wfile.write(b"--frame--\r\n")
            except OSError:
                pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                asked[0] += 1
                fails = asked[0] % 7 == 0
                taken[self.headers["Idempotency-Key"]] += not fails
            self.send_response(503 if fails else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


def work(port: int, out: Path, model: str) -> None:
    """Watch until interrupted; print the number of frames now and then, and what arrived at the end."""
    from openlepton.apps.rules import read_rules
    from openlepton.apps.watch import watch
    from openlepton.interrupt import Interrupt
    from openlepton.predictor import load

    network = load(model) if model else None
    seen: dict[str, Counter[int]] = {f"camera{number}": Counter() for number in range(SOURCES)}
    wrong, deaths, last, count = 0, Counter[str](), dict.fromkeys(seen, -1), 0

    def detect(image: np.ndarray) -> Any:
        if network is not None:
            network(image)
        return find(image)

    def note(event: Any) -> None:
        deaths[f"{event.source} {event.kind}"] += 1
        last[event.source] = LOOP - 1  # a stream that is opened anew begins its loop anew

    with Interrupt() as interrupt:
        for step in watch(
            {name: f"http://127.0.0.1:{port}/{name}" for name in seen},
            read_rules(out / "rules.toml"), detect, out=out, video=True,
            on_event=note, until=lambda: interrupt.asked,
        ):  # fmt: skip
            name, number = step.frame.source, number_of(step.frame.image)
            wrong += number != (last[name] + 1) % LOOP
            last[name] = number
            seen[name][number] += 1
            count += 1
            if count % 20 == 0:
                print(count, flush=True)
    print(
        json.dumps(
            {"seen": {name: dict(numbers) for name, numbers in seen.items()}, "wrong": wrong, "streams": deaths}
        ),
        flush=True,
    )


def check(out: Path, report: dict[str, Any], taken: dict[str, int]) -> list[str]:
    """Return what does not hold, in words."""
    from openlepton.video.stream import frames

    faults = [f"{report['wrong']} frames out of order"] if report["wrong"] else []
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    with sqlite3.connect(out / "events.sqlite") as base:
        base.row_factory = sqlite3.Row
        rows = [dict(row) for row in base.execute("SELECT * FROM events")]
    if sorted(map(str, lines)) != sorted(map(str, rows)):
        faults.append(f"{len(lines)} events as lines, {len(rows)} in SQLite, not the same")
    if any(event["end_s"] is None for event in rows):
        faults.append("an event has no end")
    for name, numbers in report["seen"].items():
        loops = Counter({int(number): count for number, count in numbers.items()})
        for kind, sure, possible in (("intrusion", LEAVES - 5, ENTERS + 5), ("wrong-way", CROSSES + 15, CROSSES)):
            count = sum(event["kind"] == kind and event["source"] == name for event in lines)
            if not loops[sure] <= count <= loops[possible]:
                faults.append(f"{name}: {count} events of kind {kind}, expected {loops[sure]} to {loops[possible]}")
    wanted = Counter(f"{event['id']}-{phase}" for event in lines for phase in ("start", "end"))
    if +Counter(taken) != wanted:
        faults.append(f"the webhook took {sum(taken.values())} messages, expected {sum(wanted.values())}")
    videos = {f"camera{number}": out / f"camera{number}.mp4" for number in range(SOURCES)}
    for name, path in videos.items():
        count = sum(1 for _ in frames(path))
        if count != sum(report["seen"][name].values()):
            faults.append(f"{path.name}: {count} frames play, {sum(report['seen'][name].values())} were seen")
    lengths = {event["clip"]: sum(1 for _ in frames(out / event["clip"])) for event in lines}
    faults += [f"{clip}: only {length} frames" for clip, length in lengths.items() if length < 2]
    faults += [f"left behind: {path.name}" for path in out.rglob("*.part*")]
    return faults


def main(arguments: list[str] | None = None) -> int:
    """Run it, print what was measured, and return 1 if something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--fps", type=float, default=25.0, help="of each stream")
    parser.add_argument("--settle-s", type=float, default=60.0, help="memory counts from here on")
    parser.add_argument("--model", default="", help="a network that looks at every frame too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        server = subprocess.Popen(
            [sys.executable, __file__, "serve", str(options.fps)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            (out / "rules.toml").write_text(RULES.format(port=port), encoding="utf-8")
            report, memory = _watch(port, out, options)
            taken = _taken(port)
        finally:
            server.kill()
        faults = check(out, report, taken)
        events = len((out / "events.jsonl").read_text(encoding="utf-8").splitlines())
    settled = [used for at, count, used in memory if at >= options.settle_s and 10 * count >= options.frames] or [
        memory[-1][-1]
    ]
    growth = (np.mean(settled[-5:]) - np.mean(settled[:5])) / 1e6
    frames_ = sum(sum(numbers.values()) for numbers in report["seen"].values())
    print(
        f"{frames_:,} frames in {memory[-1][0]:.0f} s, {events} events, {len(taken)} messages; streams: {dict(report['streams'])}"
    )
    print(f"memory: {settled[0] / 1e6:.1f} MB once settled, {settled[-1] / 1e6:.1f} MB at the end: {growth:+.1f} MB")
    if growth >= MAX_GROWTH_MB:
        faults.append(f"memory grew by {growth:.1f} MB")
    for fault in faults:
        print(f"FAILED: {fault}")
    return int(bool(faults))


def _watch(port: int, out: Path, options: argparse.Namespace) -> tuple[dict[str, Any], list[tuple[float, int, int]]]:
    """Return what the watch reports after the interrupt, and its memory on the way: seconds, frames, bytes."""
    worker = subprocess.Popen(
        [sys.executable, __file__, "work", str(port), str(out), options.model], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    started, memory = time.monotonic(), []
    process, next_s, asked = psutil.Process(worker.pid), 0.0, False
    last = ""
    for line in worker.stdout:
        last = line
        if asked or not line.strip().isdigit():
            continue
        now, count = time.monotonic() - started, int(line)
        if now >= next_s:
            memory.append((now, count, process.memory_info().rss))
            next_s = now + 1
            if len(memory) % 10 == 1:
                print(f"{now:6.0f} s {count:8} frames {memory[-1][-1] / 1e6:8.1f} MB", flush=True)
        if count >= options.frames:
            os.kill(worker.pid, signal.SIGINT)
            asked = True
    if worker.wait(60) != 0:
        raise SystemExit(f"the watch ended with status {worker.returncode}")
    return json.loads(last), memory


def _taken(port: int) -> dict[str, int]:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/taken")
    return json.loads(connection.getresponse().read())


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(float(sys.argv[2]))
    elif sys.argv[1:2] == ["work"]:
        work(int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        sys.exit(main())
