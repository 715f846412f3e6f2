"""Clients that hang up, in every way that there is: what they asked for is not begun, whatever waits beside it is."""

import json
import re
import socket
import struct
import sys
from http.client import HTTPResponse

import pytest
from serve_running import HERE, running, until


@pytest.fixture
def gate(tmp_path):
    (tmp_path / "log").touch()
    with running(command=(str(HERE / "serve_gate.py"),), env={"GATE": str(tmp_path)}) as started:
        yield started, tmp_path


def asking(server, name, *, size=0, cut=0):
    """A connection on which somebody asks, with a body of at least some size, of which the last bytes are kept back."""
    body = json.dumps({"name": name.ljust(size)}).encode()
    head = f"POST /v1/come HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.sendall(head.encode() + body[: len(body) - cut])
    return connection


def told(connection):
    """What the service answers."""
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.status, json.loads(answer.read())["result"]


def close(connection):
    connection.close()


def shut(connection):
    connection.shutdown(socket.SHUT_RDWR)


def reset(connection):
    connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
    )
    connection.close()


def items(server):
    found = re.findall(
        r'^openlepton_items_total\{outcome="(\w+)"\} (\S+)$', server.client.get("/metrics").text, re.MULTILINE
    )
    return {outcome: float(count) for outcome, count in found if float(count)}


def gauge(server, name):
    return float(re.search(rf"^openlepton_{name} (\S+)$", server.client.get("/metrics").text, re.MULTILINE)[1])


def test_what_was_asked_by_clients_that_left_before_it_began_never_begins(gate):
    server, folder = gate
    first = asking(server, "first")
    until(lambda: (folder / "log").read_text() == "first\n")
    ways = [
        (way, size) for way in (close, shut, reset) for size in (0, 70_000, 500_000)
    ]  # larger than what uvicorn reads ahead
    staying, leaving = [], []
    for number, (way, size) in enumerate(ways):
        leaving.append((way, asking(server, f"left {number}", size=size)))
        if number % 3 == 0:
            staying.append(asking(server, f"stayed {number}", size=size))
    until(lambda: gauge(server, "waiting_items") == len(leaving) + len(staying))
    unfinished = asking(server, "unfinished", size=70_000, cut=100)
    until(lambda: gauge(server, "held_bytes") > 0)
    for way, connection in leaving:
        way(connection)
    unfinished.close()
    until(lambda: gauge(server, "waiting_items") == len(staying))
    assert items(server) == {"dropped": len(leaving)}

    (folder / "open").touch()
    for number, connection in zip(range(0, len(ways), 3), staying, strict=True):
        assert told(connection) == (200, f"stayed {number}")
    assert told(first) == (200, "first")
    assert (folder / "log").read_text().split("\n") == ["first", "stayed 0", "stayed 3", "stayed 6", ""]
    assert items(server) == {"done": 4, "dropped": len(leaving)}
    assert gauge(server, "held_bytes") == 0
    assert gauge(server, "busy_items") == 0


def test_a_client_that_leaves_while_it_is_worked_for_costs_only_what_was_begun(gate):
    server, folder = gate
    leaving = asking(server, "left")
    until(lambda: (folder / "log").read_text() == "left\n")
    staying = asking(server, "stayed")
    until(lambda: gauge(server, "waiting_items") == 1)
    reset(leaving)
    until(lambda: items(server) == {"left": 1})
    (folder / "open").touch()
    assert told(staying) == (200, "stayed")
    assert (folder / "log").read_text().split() == ["left", "stayed"]
    assert items(server) == {"done": 1, "left": 1}
    assert not any("Traceback" in line for line in server.lines)
