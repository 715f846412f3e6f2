"""Network streams from a real server on this machine: they die, come back, fall silent, and nothing of it is hidden."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import cv2
import pytest

from openlepton.errors import VideoUnreadable
from openlepton.video.stream import Reader, frames

av = pytest.importorskip("av")


@pytest.fixture
def serve():
    """Start a server that answers the k-th request for a path with `answer(handler, k)`; return its address."""
    servers = []

    def start(answer: Callable[[BaseHTTPRequestHandler, int], None]) -> str:
        requests: dict[str, int] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                requests[self.path] = requests.get(self.path, 0) + 1
                with suppress(OSError):  # the reader has gone
                    answer(self, requests[self.path])

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def begin(handler, kind="multipart/x-mixed-replace;boundary=frame"):
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.end_headers()


def send(handler, image):
    data = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
    handler.wfile.write(head.encode() + data + b"\r\n")


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


def test_a_motion_jpeg_camera_is_read_and_timed_by_the_clock(serve, picture, read_number):
    sent = []

    def answer(handler, _):
        begin(handler)
        for index in range(200):
            sent.append(time.monotonic())
            send(handler, picture(index))
            time.sleep(0.06)

    seen, taken = [], []
    for frame in frames(serve(answer) + "/camera"):
        seen.append((frame.index, read_number(frame.image), frame.time_s))
        taken.append(time.monotonic())
        if len(seen) == 12:
            break
    assert [(index, number) for index, number, _ in seen] == [(index, index) for index in range(12)]
    assert sent[11] - taken[0] <= seen[11][2] - seen[0][2] <= taken[11] - sent[0]
    assert all(a[2] < b[2] for a, b in pairwise(seen))


def test_a_stream_that_dies_is_told_opened_again_and_counted(serve, picture, read_number):
    """It sends twelve frames and dies, each time; in between, it refuses twice."""

    def answer(handler, request):
        if request in (2, 3):
            handler.send_error(503)
            return
        begin(handler)
        for index in range(12):
            send(handler, picture(12 * request + index))
            time.sleep(0.005)

    address = serve(answer) + "/camera"
    events = []
    seen = []
    with Reader([address], wait_s=0.05, on_event=events.append) as reader:
        for frame in reader:
            seen.append(frame)
            if len(seen) == 36:
                break
    assert [read_number(frame.image) for frame in seen] == [*range(12, 24), *range(48, 72)]
    assert [frame.index for frame in seen] == list(range(36))
    assert all(a.time_s < b.time_s for a, b in pairwise(seen))
    assert [(event.kind, event.again) for event in events] == [
        ("dead", True),
        ("recovered", False),
        ("dead", True),
        ("recovered", False),
    ]
    assert "the stream ended" in events[0].reason or "broken off" in events[0].reason
    assert events[0].time_s == seen[11].time_s
    assert events[1].time_s == seen[12].time_s
    assert events[1].time_s - events[0].time_s > 0.05 + 0.1 + 0.2  # the pauses grow
    counters = reader.counters[address]
    assert (counters.frames, counters.reconnects) == (36, 2)
    assert counters.errors in (4, 5)  # the third death may have come already


def test_a_transport_stream_keeps_its_own_times_across_a_death(serve, make_clip, read_number):
    data = make_clip("a.ts", 30).read_bytes()

    def answer(handler, _):
        begin(handler, "video/mp2t")
        handler.wfile.write(data)

    seen = []
    with Reader({"gate": serve(answer) + "/gate.ts"}, wait_s=0.05) as reader:
        for frame in reader:
            seen.append(frame)
            if len(seen) == 60:
                break
    assert [read_number(frame.image) for frame in seen] == [*range(30), *range(30)]
    steps = [b.time_s - a.time_s for a, b in pairwise(seen)]
    assert steps[:29] == pytest.approx([0.04] * 29, abs=1e-3)
    assert steps[30:] == pytest.approx([0.04] * 29, abs=1e-3)
    assert steps[29] > 0
    assert {frame.source for frame in seen} == {"gate"}


def test_one_stream_that_falls_silent_does_not_stop_the_other(serve, picture):
    def answer(handler, _):
        begin(handler)
        for index in range(4 if handler.path == "/silent" else 400):
            send(handler, picture(index % 256))
            time.sleep(0.02)
        time.sleep(30)

    events = []
    address = serve(answer)
    after = 0
    sources = {"silent": address + "/silent", "good": address + "/good"}
    with Reader(sources, timeout_s=1.5, on_event=events.append) as reader:
        for frame in reader:
            after += "silent" in {event.source for event in events} and frame.source == "good"
            if after > 20:
                break
    assert ("silent", "dead", "nothing came in time") in [
        (event.source, event.kind, event.reason.partition("(")[2].rstrip(")")) for event in events
    ]


def test_a_stream_that_cannot_be_opened_at_first_is_an_error_or_waited_for(serve, picture):
    def answer(handler, request):
        if request < 4:
            handler.send_error(404)
            return
        begin(handler)
        send(handler, picture(7))
        send(handler, picture(7))
        time.sleep(5)

    address = serve(answer)
    with pytest.raises(VideoUnreadable, match=r"/a: cannot be opened \(.*404"):
        next(frames(address + "/a"))
    events = []
    with Reader([address + "/b"], wait_s=0.01, on_event=events.append) as reader:
        next(iter(reader))
    assert [event.kind for event in events] == ["dead", "recovered"]
    assert reader.counters[address + "/b"].errors == 3


def test_of_a_live_stream_the_newest_frame_is_given_and_the_others_are_counted(serve, picture, read_number):
    go_on = threading.Event()

    def answer(handler, _):
        begin(handler)
        for index in range(120):
            if index == 60:
                go_on.wait(30)
            send(handler, picture(index))
        time.sleep(5)

    with Reader([serve(answer)], policy="latest") as reader:
        steps = iter(reader)
        next(steps)
        for count in (60, 120):
            wait_until(lambda count=count: come(reader) == count - 1)  # and one that waits to be taken
            newest = next(steps)
            assert (read_number(newest.image), newest.index) == (count - 1, count - 1)
            go_on.set()
    (counters,) = reader.counters.values()
    assert (counters.frames, counters.dropped) == (3, 117)


def come(reader):
    (counters,) = reader.counters.values()
    return counters.frames + counters.dropped


def test_a_file_behind_an_address_ends_where_it_ends(serve, make_clip, read_number):
    path = make_clip("a.mp4", 25)
    data = path.read_bytes()

    def answer(handler, _):
        start = int(handler.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start:])

    events = []
    seen = list(frames(serve(answer) + "/a.mp4", on_event=events.append))
    assert [read_number(frame.image) for frame in seen] == list(range(25))
    assert [event.kind for event in events] == ["ended"]


def test_a_stream_may_not_lead_to_files(serve, make_clip):
    path = make_clip("secret.ts")

    def answer(handler, _):
        begin(handler, "application/vnd.apple.mpegurl")
        handler.wfile.write(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path.as_uri()}\n#EXT-X-ENDLIST\n".encode())

    with pytest.raises(VideoUnreadable):
        next(frames(serve(answer) + "/list.m3u8", timeout_s=2))
