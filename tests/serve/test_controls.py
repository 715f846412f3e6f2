"""The controls that a server needs, each tried from outside on a real one."""

import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from serve_running import HERE, JPEG, running, until

from openlepton.errors import UsageError
from openlepton.serve.settings import Settings
from openlepton.serve.tokens import parse_tokens, read_tokens

pytestmark = pytest.mark.slow

GOOD, ADMIN = "a-token-of-24-characters", "another-token-for-admins"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb() -> bytes:
    """A PNG of 48 KB that decodes to 400 million pixels."""
    rows = zlib.compress(bytes(20_000 // 8 + 1) * 20_000, 9)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0))
    data += chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return data + bytes(48 * 1024 - len(data))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def raw(server, data: bytes, seconds: float = 30.0) -> bytes:
    """What the server says to these bytes, until it closes the connection or falls silent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        connection.sendall(data)
        said = b""
        try:
            while part := connection.recv(65536):
                said += part
        except (TimeoutError, ConnectionResetError):
            pass
        return said


def head(server, *lines: str, method: str = "POST", path: str = "/v1/detect") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", *lines, "", "")).encode()


# Images


def test_a_bomb_costs_no_time_and_no_memory(server):
    bomb = png_bomb()
    assert len(bomb) == 48 * 1024
    server.client.post("/v1/detect", content=b"x", headers=JPEG)
    before, most, stop = server.memory(), [0], threading.Event()

    def watch():
        while not stop.is_set():
            most[0] = max(most[0], server.memory())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    times = [1.0]
    while min(times) >= 0.1 and len(times) < 100:  # a busy machine may be slow for a while, not for ever
        started = time.perf_counter()
        answer = server.client.post("/v1/detect", content=bomb, headers={"Content-Type": "image/png"})
        times.append(time.perf_counter() - started)
        assert (answer.status_code, answer.json()["code"]) == (413, "image-too-large")
    stop.set()
    watcher.join()
    assert min(times) < 0.1
    assert most[0] - before < 20e6


RED = Image.new("RGB", (64, 48), "red")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (png_bomb(), 413, "image-too-large"),
        (encoded(Image.new("L", (5001, 5000)), "PNG"), 413, "image-too-large"),
        (encoded(RED, "GIF"), 422, "image-unreadable"),
        (encoded(RED, "TIFF"), 422, "image-unreadable"),
        (encoded(RED, "PPM"), 422, "image-unreadable"),
        (encoded(RED, "JPEG")[:-20], 422, "image-unreadable"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', 422, "image-unreadable"),
        (
            b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
            422,
            "image-unreadable",
        ),
        (b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.", 422, "image-unreadable"),
        (b"PK\x03\x04" + bytes(100), 422, "image-unreadable"),
        (b"\xff\xd8\xff" + bytes(17 * 1024 * 1024), 413, "request-too-large"),
    ],
    ids=["bomb", "pixels", "gif", "tiff", "ppm", "truncated", "svg", "xml", "pickle", "zip", "bytes"],
)
def test_an_image_that_is_not_admitted_is_refused(server, data, status, code):
    answer = server.client.post("/v1/detect", content=data, headers=JPEG)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_images_of_every_admitted_kind_are_answered_at_their_size(server):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    for data, size in (
        (encoded(image, "JPEG", exif=turned), {"width": 48, "height": 64}),
        (encoded(image.convert("CMYK"), "JPEG"), {"width": 64, "height": 48}),
        (
            encoded(Image.fromarray(rng.integers(0, 65536, (48, 64), dtype=np.uint16)), "PNG"),
            {"width": 64, "height": 48},
        ),
        (encoded(image, "WEBP", save_all=True, append_images=[RED] * 3), {"width": 64, "height": 48}),
        (encoded(image, "BMP"), {"width": 64, "height": 48}),
        (encoded(Image.new("L", (65_535, 1)), "PNG"), {"width": 65_535, "height": 1}),
    ):
        answer = server.client.post("/v1/detect", content=data, headers={"Content-Type": "application/octet-stream"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["image"] == size


# Bodies


def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(server):
    started = time.perf_counter()
    said = raw(server, head(server, "Content-Type: image/jpeg", "Content-Length: 99999999999"))
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in said.lower()
    assert time.perf_counter() - started < 20


def test_a_chunked_body_is_counted_while_it_comes(server):
    before = server.memory()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head(server, "Content-Type: image/jpeg", "Transfer-Encoding: chunked"))
        sent, piece = 0, b"100000\r\n" + bytes(0x100000) + b"\r\n"
        try:
            while sent < 200:
                connection.sendall(piece)
                sent += 1
        except OSError:
            pass
        said = connection.recv(65536)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b'"request-too-large"' in said
    assert 32 <= sent < 60  # megabytes: the limit, and what was under way
    assert server.memory() - before < 100e6


def test_a_body_in_chunks_of_one_byte_is_read(server):
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in encoded(RED, "PNG")) + b"0\r\n\r\n"
    said = raw(
        server, head(server, "Content-Type: image/png", "Transfer-Encoding: chunked", "Connection: close") + body
    )
    assert said.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: -1",),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Transfer-Encoding: chunked, identity",),
        ("Content-Length: 5_0",),
    ],
)
def test_a_length_that_can_be_read_in_two_ways_is_refused(server, lines):
    said = raw(server, head(server, "Content-Type: image/jpeg", *lines) + b"0\r\n\r\nGET /livez HTTP/1.1\r\n\r\n", 5)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1") == 1


def test_a_form_of_ten_thousand_parts_is_refused_at_the_seventeenth(server):
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\nx\r\n'
    started = time.perf_counter()
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = server.client.post("/v1/detect", content=part * 10_000 + b"--b--\r\n", headers=kind)
    assert (answer.status_code, answer.json()["code"]) == (413, "request-too-large")
    assert time.perf_counter() - started < 20
    long = b"--b\r\nContent-Disposition: " + b"x" * 10_000 + b"\r\n\r\nx\r\n--b--\r\n"
    assert server.client.post("/v1/detect", content=long, headers=kind).json()["code"] == "request-invalid"
    epilogue = part + b"--b--\r\n" + b"\r\n" * 1_000_000
    started = time.perf_counter()
    assert server.client.post("/v1/detect", content=epilogue, headers=kind).status_code == 200
    assert time.perf_counter() - started < 20


def test_a_request_whose_head_is_endless_or_enormous_is_cut_off(server):
    for lines in (["X: " + "x" * 200_000], ["X: " + "x" * 100] * 2000):
        begun = time.perf_counter()
        said = raw(server, head(server, *lines, "Connection: close", method="GET", path="/livez"), 15)
        assert not said.startswith(b"HTTP/1.1 200 ")
        assert time.perf_counter() - begun < 12


@pytest.fixture(scope="module")
def impatient():
    """A server that waits a second for heads and bodies, and holds few bytes."""
    with running(command=(str(HERE / "serve_impatient.py"),)) as started:
        yield started


def test_a_slow_body_is_cut_off_and_nobody_else_notices(impatient):
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=30) as slow:
        slow.sendall(head(impatient, "Content-Type: image/jpeg", "Content-Length: 1000"))
        said = b""
        while not said:
            assert time.perf_counter() - begun < 60
            slow.sendall(b"x")
            assert impatient.client.get("/livez").status_code == 200
            slow.settimeout(0.2)
            try:
                said = slow.recv(65536)
            except TimeoutError:
                continue
        slow.settimeout(10)
        while more := slow.recv(65536):  # head and body may come apart
            said += more
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'"request-too-slow"' in said


def test_a_slow_head_is_cut_off_on_new_and_on_used_connections(impatient):
    for before in (b"", head(impatient, method="GET", path="/livez")):
        with socket.create_connection(("127.0.0.1", impatient.port), timeout=30) as slow:
            if before:
                slow.sendall(before)
                assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")
            begun = time.perf_counter()
            try:
                for byte in head(impatient, method="GET", path="/livez")[:-2] * 100:
                    slow.sendall(bytes([byte]))
                    time.sleep(0.05)
                    assert time.perf_counter() - begun < 60
            except OSError:
                pass
            assert 0.5 < time.perf_counter() - begun < 60


def test_bodies_under_way_have_a_sum_that_is_not_exceeded(impatient):
    started = [socket.create_connection(("127.0.0.1", impatient.port), timeout=30) for _ in range(4)]
    try:
        for connection in started:
            connection.sendall(head(impatient, "Content-Type: image/jpeg", "Content-Length: 900000") + bytes(600_000))
        answers = b"".join(connection.recv(65536) for connection in started)
    finally:
        for connection in started:
            connection.close()
    assert b"HTTP/1.1 503 " in answers
    assert b'"overloaded"' in answers
    until(lambda: b"openlepton_held_bytes 0.0" in impatient.client.get("/metrics").content)


# Texts are tried in test_bodies.py, as no address of this server takes them.


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/a.jpg", "https://localhost:{port}/a.jpg", "http://[::ffff:127.0.0.1]:{port}/", "http://0.0.0.0:{port}/",
        "http://2130706433:{port}/", "http://0177.0.0.1:{port}/", "http://169.254.169.254/latest/meta-data/", "http://100.64.0.1/",
        "file:///etc/passwd", "ftp://127.0.0.1:{port}/", "//127.0.0.1:{port}/a.jpg", "/etc/passwd", "data:image/png;base64,AAAA",
    ],
)  # fmt: skip
def test_no_url_and_no_path_is_ever_followed(server, url):
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.05)
        there = url.format(port=trap.getsockname()[1])
        answers = [
            server.client.post("/v1/detect", json={"image": there}),
            server.client.post("/v1/detect", json={"url": there}),
            server.client.post("/v1/detect", params={"url": there}, headers=JPEG),
            server.client.post("/v1/detect", content=there.encode(), headers=JPEG),
            server.client.post("/v1/jobs", json={"model": "yolov5n-bccd", "source": there}),
        ]
        with pytest.raises(TimeoutError):
            trap.accept()
    assert [answer.status_code for answer in answers[:4]] == [422] * 4
    assert answers[4].status_code in (404, 422)


def test_the_server_listens_on_loopback_and_holds_no_other_connection(server):
    connections = [
        one
        for process in (psutil.Process(server.process.pid), *server.workers())
        for one in process.net_connections("inet")
    ]
    assert [one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN] == ["127.0.0.1"]
    assert {one.laddr.ip for one in connections} == {"127.0.0.1"}


# Tokens


@pytest.fixture(scope="module")
def locked(tmp_path_factory, photos):
    """A server that wants a token."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "jobs").mkdir()
    (folder / "jobs" / "a.jpg").write_bytes(photos[0].read_bytes())
    (folder / "tokens").write_text(f"# who may ask\n{GOOD}\n\n{ADMIN} predict admin\nsha256:{'0' * 64}\n")
    with running(
        "yolov5n-bccd", "--workers", "1", "--token-file", folder / "tokens", "--jobs", folder / "jobs"
    ) as started:
        yield started


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_without_a_token_only_the_probes_answer(locked, photo):
    for path in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert locked.client.get(path).status_code == 200
    document = locked.client.get("/openapi.json", headers=bearer(GOOD)).json()
    closed = [
        (method, path.format(name="yolov5n-bccd", version="1", job_id="0" * 32))
        for path, methods in document["paths"].items()
        for method in methods
        if path not in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready")
    ]
    assert len(closed) > 15
    for headers in (
        {},
        bearer("wrong"),
        bearer(GOOD[:-1]),
        bearer(GOOD + "x"),
        bearer("0" * 64),
        {"Authorization": f"Basic {GOOD}"},
    ):
        for method, path in [*closed, ("get", "/openapi.json")]:
            answer = locked.client.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), path
            assert answer.headers["www-authenticate"] == "Bearer"
    assert all(
        "security" in document["paths"][path][method]
        for path in ("/v1/detect", "/metrics")
        for method in document["paths"][path]
    )


def test_a_token_opens_what_its_scopes_say(locked, photo):
    assert locked.client.post("/v1/detect", content=photo, headers={**JPEG, **bearer(GOOD)}).status_code == 200
    assert locked.client.get("/v1/models", headers={"Authorization": f"bearer  {GOOD}"}).status_code == 200
    assert locked.client.get("/metrics", headers=bearer(GOOD)).json()["code"] == "not-allowed"
    assert locked.client.get("/metrics", headers=bearer(ADMIN)).status_code == 200


def test_a_job_belongs_to_the_token_that_began_it(locked):
    begun = locked.client.post("/v1/jobs", json={"model": "yolov5n-bccd", "source": "a.jpg"}, headers=bearer(GOOD))
    assert begun.status_code == 202
    path = begun.headers["location"]
    assert re.fullmatch(r"/v1/jobs/[0-9a-f]{32}", path)
    until(lambda: locked.client.get(path, headers=bearer(GOOD)).json()["state"] == "done")
    for method, address in (("GET", path), ("GET", f"{path}/result"), ("DELETE", path)):
        answer = locked.client.request(method, address, headers=bearer(ADMIN))
        assert (answer.status_code, answer.json()["code"]) == (404, "job-not-found")
    assert locked.client.get("/v1/jobs", headers=bearer(ADMIN)).json() == {"jobs": []}
    assert locked.client.get(f"{path}/result", headers=bearer(GOOD)).status_code == 200


def test_a_body_is_not_read_for_those_who_may_not_ask(locked):
    said = raw(locked, head(locked, "Content-Type: image/jpeg", "Content-Length: 30000000"), 10)
    assert said.startswith(b"HTTP/1.1 401 ")


def test_tokens_are_kept_as_hashes_and_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    tokens = parse_tokens([GOOD, ADMIN, "third-token-of-many-letters"], "tokens")
    assert GOOD not in repr(tokens)
    for asked in (GOOD, "third-token-of-many-letters", "nobody's", "\ud800"):
        compared.clear()
        tokens.find(asked)
        assert len(compared) == 3  # all of them, whichever it is
        assert {len(side) for pair in compared for side in pair} == {64}
    assert tokens.find(GOOD).scopes == {"predict"}
    assert tokens.find("nobody's") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("short", "tokens:1: a token has 16 characters or more"),
        ("# none\n", "no token in it"),
        (f"{GOOD} root", "tokens:1: unknown scope 'root'"),
        ("sha256:abc", "64 hex digits"),
    ],
)
def test_a_list_of_tokens_that_makes_no_sense_is_refused(text, said, tmp_path):
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_tokens(tmp_path / "tokens")
    with pytest.raises(UsageError, match="tokens cannot be read: No such file"):
        read_tokens(tmp_path / "nothing")


# Hosts and origins


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "LOCALHOST:8000", "[::1]:1"])
def test_the_machine_s_own_names_are_admitted(server, host):
    assert server.client.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "10.0.0.1", "169.254.169.254"]
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(server, host, photo):
    for method, path in (
        ("GET", "/v1/models"),
        ("POST", "/v1/detect"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/"),
    ):
        answer = server.client.request(method, path, headers={"Host": host})
        assert (answer.status_code, answer.json()["code"]) == (403, "not-allowed")
    assert server.client.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        b"a/x?",
        b"a/livez?",
        b"localhost/livez#",
        b"localhost@evil",
        b"localhost:99999999",
        b"local host",
        b"",
        b"[::1",
        b"a,b",
        b"\xe9",
    ],
)
def test_a_host_that_is_no_host_is_refused(server, host):
    said = raw(server, b"GET /metrics HTTP/1.1\r\nConnection: close\r\nHost: " + host + b"\r\n\r\n", 5)
    assert said.startswith(b"HTTP/1.1 400 ")
    said = raw(server, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n", 5)
    assert said.startswith(b"HTTP/1.1 400 ")


def test_pages_of_other_origins_may_not_ask(server, photo):
    own = f"http://127.0.0.1:{server.port}"
    assert server.client.post("/v1/detect", content=photo, headers={**JPEG, "Origin": own}).status_code == 200
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        own + ".evil.example",
        "file://",
        own + "/",
        "https://evil.example, " + own,
    ):
        for method in ("POST", "GET", "OPTIONS", "DELETE"):
            answer = server.client.request(method, "/v1/models", headers={"Origin": origin})
            assert (answer.status_code, answer.json()["code"]) == (403, "not-allowed")
    assert not [
        name
        for name in server.client.get("/v1/models", headers={"Origin": own}).headers
        if name.startswith("access-control")
    ]


def test_every_answer_forbids_what_browsers_might_make_of_it(server):
    for path in ("/v1/models", "/nothing", "/livez", "/metrics"):
        headers = server.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_strangers_are_not_let_in_without_a_token_unless_that_is_meant():
    command = [sys.executable, "-m", "openlepton", "serve", "yolov5n-bccd", "--host", "0.0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "0.0.0.0 can be reached from other machines: give a token file" in done.stderr
    for host in ("::", "192.168.1.1", "example.com", "localhost.example.com", ""):
        with pytest.raises(UsageError, match="reached from other machines"):
            Settings(host=host)
        assert Settings(host=host, tokens=parse_tokens([GOOD], "")).host == host
        assert Settings(host=host, insecure=True).host == host
    assert Settings().host == "127.0.0.1"


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(server):
    command = [sys.executable, "-m", "openlepton", "serve", "yolov5n-bccd", "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.search(r"127\.0\.0\.1 port \d+: .*choose another with --port \[usage\]", done.stderr)


# What is told, and what is counted


@pytest.fixture(scope="module")
def failing():
    """A service whose methods fail in the ways that code fails."""
    with running(command=(str(HERE / "serve_failing.py"),)) as started:
        yield started


@pytest.mark.parametrize("way", ["raise", "model", "die", "unwritable", "exit", "memory"])
def test_a_failure_inside_tells_its_number_and_nothing_else(failing, way):
    answer = failing.client.post("/v1/fail", json={"way": way})
    assert answer.status_code == 500
    told = answer.json()
    assert set(told) == {"type", "title", "status", "detail", "code", "instance"}
    assert told["code"] in ("error", "model-failed", "worker-lost")
    assert not re.search(
        r"/home|/tmp|/work|\.py|Traceback|secret|Error", json.dumps(told).replace("Internal Server Error", "")
    )
    until(lambda: any(told["instance"] in line for line in failing.lines))
    assert failing.client.post("/v1/fail", json={"way": "well"}).json()["result"] == "well"


def test_no_error_repeats_a_path_of_the_server(server):
    asked = [
        server.client.post("/v1/detect", content=b"x", headers=JPEG),
        server.client.post("/v1/jobs", json={"model": "yolov5n-bccd", "source": "nothing"}),
        server.client.post("/v1/jobs", json={"model": "yolov5n-bccd", "source": "../../etc/passwd"}),
        server.client.post("/v2/models/yolov5n-bccd/infer", json={"inputs": []}),
        server.client.post("/v2/models/yolov5n-bccd/infer", content=b"x"),
        server.client.get("/v1/models/nothing"),
        server.client.get("/nothing"),
    ]
    for answer in asked:
        assert answer.status_code >= 400
        assert not re.search(r"/(home|tmp|root|work|usr|etc)\b|site-packages|\.py\b|Traceback", answer.text)


def series(server) -> set[str]:
    return {
        re.sub(r" \S+$", "", line)
        for line in server.client.get("/metrics").text.splitlines()
        if not line.startswith("#")
    }


def test_what_a_client_sends_never_becomes_a_label(server, photo):
    for path in ("/nothing", "/v1/models/nothing", "/v1/detect"):
        server.client.get(path)
    server.client.post("/v1/detect", content=photo, headers=JPEG)
    server.client.get("/metrics")
    before = series(server)
    for number in range(300):
        server.client.get(f"/{os.urandom(4).hex()}")
        server.client.get(f"/v1/models/model-{number}", headers={"User-Agent": f"agent {number}"})
    server.client.request("BREW", "/v1/detect")
    assert series(server) == before
    text = server.client.get("/metrics").text
    assert 'openlepton_answers_total{address="other",status="4xx"}' in text
    assert 'openlepton_run_seconds_count{model="yolov5n-bccd"}' in text
    assert "openlepton_workers_alive 1.0" in text


def test_the_server_writes_nothing_where_it_was_started(tmp_path, photo):
    with running(
        "yolov5n-bccd", "--workers", "1", cwd=tmp_path, env={"PYTHONPATH": str(Path(__file__).parents[2])}
    ) as started:
        assert started.client.post("/v1/detect", content=photo, headers=JPEG).status_code == 200
        assert not any(tmp_path.iterdir())
    assert not any(tmp_path.iterdir())


def test_a_stop_without_work_is_quick_and_clean():
    with running("yolov5n-bccd", "--workers", "1") as started:
        pids = [process.pid for process in started.workers()]
        begun = time.perf_counter()
        status, lines = started.stop()
        assert status == 0
        assert time.perf_counter() - begun < 20
        assert not any("Traceback" in line or "ERROR" in line for line in lines)
        assert not any(psutil.pid_exists(pid) for pid in pids)
