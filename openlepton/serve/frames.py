"""What a server and its workers say to each other: a line of JSON and some bytes, never a pickle."""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

_LENGTHS = struct.Struct(">II")


@dataclass(frozen=True)
class Frame:
    """One message."""

    head: Mapping[str, Any]
    parts: tuple[bytes, ...] = ()


class Socket(Protocol):
    """The end of a pair of sockets that a worker holds."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read what is there."""

    def sendall(self, data: bytes, /) -> None:
        """Write everything."""

    def close(self) -> None:
        """Close it."""


def pack(head: Mapping[str, Any], parts: Sequence[bytes] = ()) -> bytes:
    """Return the beginning of a message; `parts` follow it as they are."""
    text = json.dumps({**head, "sizes": [len(part) for part in parts]}, separators=(",", ":")).encode()
    return _LENGTHS.pack(len(text), sum(map(len, parts))) + text


def send(socket: Socket, head: Mapping[str, Any], parts: Sequence[bytes] = ()) -> None:
    """Write a message and wait until it is on its way."""
    socket.sendall(b"".join((pack(head, parts), *parts)))


def receive(socket: Socket) -> Frame | None:
    """Return the next message, or None if the other side is gone."""
    lengths = _exactly(socket, _LENGTHS.size)
    if lengths is None:
        return None
    text_size, rest_size = _LENGTHS.unpack(lengths)
    text, rest = _exactly(socket, text_size), _exactly(socket, rest_size)
    return None if text is None or rest is None else _frame(bytes(text), memoryview(rest))


class Unpacker:
    """Finds messages in bytes that come in pieces."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the messages that `data` completes."""
        self._data += data
        while len(self._data) >= _LENGTHS.size:
            text_size, rest_size = _LENGTHS.unpack_from(self._data)
            start, end = _LENGTHS.size + text_size, _LENGTHS.size + text_size + rest_size
            if len(self._data) < end:
                return
            whole = bytes(self._data[:end])
            del self._data[:end]
            yield _frame(whole[_LENGTHS.size : start], memoryview(whole)[start:])


def _exactly(socket: Socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        try:
            count = socket.recv_into(view[at:])
        except OSError:
            return None
        if not count:
            return None
        at += count
    return data


def _frame(text: bytes, rest: memoryview) -> Frame:
    head = json.loads(text)
    parts, at = [], 0
    for size in head.pop("sizes"):
        parts.append(bytes(rest[at : at + size]))
        at += size
    return Frame(head, tuple(parts))
