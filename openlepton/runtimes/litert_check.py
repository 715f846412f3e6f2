"""Reads a LiteRT model's list of operations before the engine does, and refuses what is more than arithmetic with weights inside.

The format: flatbuffers, and `schema.fbs` of LiteRT (Apache-2.0): a model's field 1 is its operation codes, of which field 0 is the
code in older files, 1 the name of one that is not built in, and 3 the code in newer ones.
"""

import struct

from openlepton.errors import ModelFormatRefused

MAGIC = b"TFL3"
MAX_BYTES = 2**31 - 1
MAX_CODES = 1_000

REFUSED = {
    29: "hash tables", 31: "calls", 32: "operations of its own", 51: "delegates", 118: "branches", 119: "loops",
    129: "calls", 136: "hash tables", 137: "hash tables", 138: "hash tables", 139: "hash tables", 142: "variables",
    143: "variables", 144: "variables",
}  # fmt: skip
"""Codes of operations that do more than compute, and what they are for."""


def check_litert(data: bytes, name: str = "model.tflite") -> None:
    """Refuse a model unless every operation that it lists is one that computes.

    Raises:
        ModelFormatRefused: It is no LiteRT model, is cut off, or lists other operations; the message says which.
    """
    if data[4:8] != MAGIC or len(data) > MAX_BYTES:
        raise ModelFormatRefused(f"{name}: not a LiteRT model")
    try:
        codes = _codes(data)
    except (struct.error, ValueError):
        raise ModelFormatRefused(f"{name}: the file is cut off or malformed") from None
    for code in codes:
        if code in REFUSED:
            raise ModelFormatRefused(f"{name}: has {REFUSED[code]}, which networks have not")


def _codes(data: bytes) -> list[int]:
    """Return the codes of the operations that the model lists."""
    at = _field(data, _indirect(data, 0), 1)
    if at is None:
        raise ValueError
    vector = _indirect(data, at)
    count = _unsigned(data, vector)
    if count > MAX_CODES:
        raise ValueError
    found = []
    for index in range(count):
        table = _indirect(data, vector + 4 + 4 * index)
        old, own, new = (_field(data, table, number) for number in (0, 1, 3))
        codes = [0 if old is None else struct.unpack_from("<b", data, old)[0]]
        codes += [0 if new is None else struct.unpack_from("<i", data, new)[0]]
        found.append(32 if own is not None else max(codes))
    return found


def _field(data: bytes, table: int, number: int) -> int | None:
    """Return where the value of a table's field is, None where it is not given."""
    start = table - struct.unpack_from("<i", data, table)[0]
    if start < 0:
        raise ValueError
    size = struct.unpack_from("<H", data, start)[0]
    if 4 + 2 * number + 2 > size:
        return None
    offset = struct.unpack_from("<H", data, start + 4 + 2 * number)[0]
    return table + offset if offset else None


def _indirect(data: bytes, at: int) -> int:
    return at + _unsigned(data, at)


def _unsigned(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])
