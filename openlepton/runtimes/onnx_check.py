"""Reads an ONNX file's bytes before any engine does, and refuses what is more than a network with its weights inside.

An ONNX file may name other files to be read as weights, bring operators of its own, or be something else under that
name, and engines believe it. So the wire format is walked here, by a table of what may appear: a field that is not in
the table, has another wire type, or is repeated where it cannot be is refused, in every message at every depth.
Weights are stepped over, not read.

The format: https://protobuf.dev/programming-guides/encoding, and `onnx.proto` (IR version 14), Apache-2.0.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from openlepton.errors import ModelFormatRefused
from openlepton.runtimes.onnx_fields import BY_KEY, BYTES, EXTERNAL, FIXED32, FIXED64, MESSAGES, VARINT, Field

MIN_IR, MAX_IR = 7, 14
"""Versions of the file format: 7 is what opset 13 came with, 14 is what the table of fields was written after."""

MIN_OPSET, MAX_OPSET = 13, 28
"""Versions of the standard operators; an engine that is older than the model says so by itself."""

MAX_BYTES = 2**31 - 1
"""What protobuf itself admits."""

MAX_FIELDS = 1_000_000
"""How many fields are walked before a file is refused, so that the check ends in time; networks have thousands."""

MAX_DEPTH = 32
"""Messages inside messages; a branch inside a branch costs three."""

STANDARD_DOMAINS = (b"", b"ai.onnx")
"""Where operators may come from: the standard, under its two names."""

ELEMENT_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
}  # fmt: skip
"""Names of the element types that an input or output may have; the rest are storage formats of weights."""


@dataclass(frozen=True)
class Port:
    """An input or output of a graph."""

    name: str
    element_type: str
    """As NumPy names it, or `""` where the graph does not say or the value is not a tensor."""
    dims: tuple[int | str, ...] | None
    """A size, a symbol, or `""` where neither is given; None where the rank is unknown or the value is not a tensor."""


@dataclass(frozen=True)
class GraphFacts:
    """What a file that passed the check says of its graph."""

    ir_version: int
    opset: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


_RUN_ON = re.compile(rb"[\x80-\xff]{10}")  # a number that does not end within its ten bytes
_ITEM_BYTES = {FIXED32: 4, FIXED64: 8}
_CUT_OFF = "the file is cut off or malformed"
_FOREIGN = (
    (re.compile(rb"PK\x03\x04"), "a zip archive (a checkpoint?)"),
    (re.compile(rb"\x80[\x02-\x05]"), "a Python pickle"),
    (re.compile(rb"\x89HDF"), "an HDF5 file"),
    # ONNX Runtime looks for this first: a file can be both, and must not be checked as one and run as the other.
    (re.compile(rb".{4}ORTM", re.DOTALL), "an ONNX Runtime flatbuffer"),
)


def check_onnx(data: bytes, name: str = "model.onnx") -> GraphFacts:
    """Return what `data` says of its graph, once every message in it was found to be one that a plain network needs.

    Time is linear in the number of fields, not in the bytes of the weights. `name` is what errors call the file.

    Raises:
        ModelFormatRefused: The data is not an ONNX model; holds external data, functions, a training graph, operators
            from elsewhere, unknown fields or versions; or is cut off or malformed. The message says where.
    """
    if len(data) > MAX_BYTES:
        raise ModelFormatRefused(f"{name}: an ONNX file has at most {MAX_BYTES:,} bytes")
    for magic, kind in _FOREIGN:
        if magic.match(data):
            raise ModelFormatRefused(f"{name}: this is {kind}, not an ONNX model")
    wire = _Wire(data, name)
    model = _Place("ModelProto", 0, len(data), "", None, 0)
    wire.walk(model)
    return _facts(wire, model)


class _Place(NamedTuple):
    """A message in the file: what it is, where its bytes are, and as which field of which message it was found."""

    message: str
    start: int
    stop: int
    name: str
    parent: "_Place | None"
    depth: int


class _Wire:
    """Walks the messages of one file."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name = data, name
        self.budget = iter(range(MAX_FIELDS))  # one iterator for all messages, so that they use it up together

    def refuse(self, place: _Place, what: str) -> NoReturn:
        where = self.path(place)
        raise ModelFormatRefused(f"{self.name}: {where}: {what}" if where else f"{self.name}: {what}")

    def path(self, place: _Place) -> str:
        """Return where `place` is, such as `graph.node[3].attribute[0].t`."""
        if place.parent is None:
            return ""
        self.budget = iter(range(MAX_FIELDS))  # the fields before it were all found good, within this many
        before = self.fields(place.parent._replace(stop=place.stop))
        same = [field for field, _, _ in before if field.name == place.name]
        index = f"[{len(same) - 1}]" if not same[0].slot else ""
        return f"{self.path(place.parent)}.{place.name}{index}".lstrip(".")

    def walk(self, place: _Place) -> None:
        """Check every field of the message at `place`, and of the messages in it."""
        if place.depth > MAX_DEPTH:
            self.refuse(place, f"more than {MAX_DEPTH} messages inside each other")
        for field, start, stop in self.fields(place):
            if field.message:
                self.walk(_Place(field.message, start, stop, field.name, place, place.depth + 1))
            elif field.name == "domain" and place.message != "ModelProto":
                if self.data[start:stop] not in STANDARD_DOMAINS:
                    domain = self.text(place, start, stop)[:64]
                    self.refuse(place, f"operators from {domain!r}: only the standard ones are run")
            elif field.name == "data_location" and self.varint(place, start, stop)[0] != 0:
                self.refuse(place, EXTERNAL)

    def fields(self, place: _Place) -> Iterator[tuple[Field, int, int]]:
        """Yield the fields of the message at `place` with the start and stop of their values; refuse what is wrong."""
        data, stop, at = self.data, place.stop, place.start
        table, seen = BY_KEY[place.message], set[str]()
        for _ in self.budget:
            if at == stop:
                return
            key, at = (data[at], at + 1) if data[at] < 0x80 else self.varint(place, at, stop)
            field = table.get(key)
            if field is None or field.refused:
                self.refuse_field(place, key)
            if field.slot:
                if field.slot in seen:
                    self.refuse(place, f"{field.name}: more than one {field.slot}")
                seen.add(field.slot)
            wire, start = key & 7, at
            if wire in _ITEM_BYTES:
                at += _ITEM_BYTES[wire]
            else:
                value, at = (data[at], at + 1) if at < stop and data[at] < 0x80 else self.varint(place, at, stop)
                if wire == BYTES:
                    start, at = at, at + value
            if at > stop:
                self.refuse(place, f"{field.name} needs {at - start:,} bytes, {stop - start:,} are left: {_CUT_OFF}")
            if field.packed:
                self.check_packed(place, field, start, at)
            yield field, start, at
        self.refuse(place, f"more than {MAX_FIELDS:,} fields in the file")

    def refuse_field(self, place: _Place, key: int) -> NoReturn:
        field = MESSAGES[place.message].get(key >> 3)
        if field is None:
            what = f"a {place.message} has no field {key >> 3} that is read: not an ONNX model, or of a newer kind"
        elif field.refused:
            what = f"{field.name}: {field.refused}"
        else:
            what = f"{field.name} has wire type {key & 7}, which it never has: not an ONNX model"
        self.refuse(place, what)

    def check_packed(self, place: _Place, field: Field, start: int, stop: int) -> None:
        if field.wire != VARINT:
            whole = (stop - start) % _ITEM_BYTES[field.wire] == 0
        else:
            whole = start == stop or (self.data[stop - 1] < 0x80 and not _RUN_ON.search(self.data, start, stop))
        if not whole:
            self.refuse(place, f"{field.name}: the last number is cut off, or one does not end")

    def varint(self, place: _Place, at: int, stop: int) -> tuple[int, int]:
        """Return the number that begins at `at`, 0 to 2**64 - 1, and where it ends."""
        value = shift = 0
        for end in range(at, min(at + 10, stop)):
            byte = self.data[end]
            if byte < (0x80 if shift < 63 else 2):
                return value | byte << shift, end + 1
            value |= (byte & 0x7F) << shift
            shift += 7
        return self.refuse(place, f"a number does not end: {_CUT_OFF}")

    def text(self, place: _Place, start: int, stop: int) -> str:
        try:
            return self.data[start:stop].decode()
        except UnicodeDecodeError:
            self.refuse(place, "a name is not UTF-8 text")

    def inside(self, place: _Place, name: str, message: str = "") -> list[_Place]:
        """Return where the fields called `name` are in the message at `place`, as messages of the kind `message`."""
        found = [(start, stop) for field, start, stop in self.fields(place) if field.name == name]
        return [_Place(message, start, stop, name, place, place.depth + 1) for start, stop in found]

    def number(self, place: _Place, name: str) -> int:
        """Return the signed number in the field `name`, 0 where there is none."""
        for at in self.inside(place, name):
            value = self.varint(at, at.start, at.stop)[0]
            return value - 2**64 if value >> 63 else value
        return 0

    def string(self, place: _Place, name: str) -> str:
        """Return the text in the field `name`, `""` where there is none."""
        return "".join(self.text(at, at.start, at.stop) for at in self.inside(place, name))


def _facts(wire: _Wire, model: _Place) -> GraphFacts:
    graphs = wire.inside(model, "graph", "GraphProto")
    if not graphs:
        wire.refuse(model, "there is no graph in it: not an ONNX model")
    ir_version = wire.number(model, "ir_version")
    if not MIN_IR <= ir_version <= MAX_IR:
        wire.refuse(model, f"ir_version: {ir_version} is not one of {MIN_IR} to {MAX_IR}")
    imports = wire.inside(model, "opset_import", "OperatorSetIdProto")
    if len(imports) != 1:
        wire.refuse(model, f"opset_import: expected one, found {len(imports)}")
    opset = wire.number(imports[0], "version")
    if not MIN_OPSET <= opset <= MAX_OPSET:
        wire.refuse(imports[0], f"opset {opset} is not one of {MIN_OPSET} to {MAX_OPSET}")
    inputs, outputs = (
        tuple(_port(wire, place) for place in wire.inside(graphs[0], side, "ValueInfoProto"))
        for side in ("input", "output")
    )
    return GraphFacts(ir_version, opset, inputs, outputs)


def _port(wire: _Wire, info: _Place) -> Port:
    """Return the input or output that the ValueInfoProto at `info` describes."""
    name = wire.string(info, "name")
    types = wire.inside(info, "type", "TypeProto")
    tensors = [tensor for kind in types for tensor in wire.inside(kind, "tensor_type", "TypeProto.Tensor")]
    if not tensors:
        return Port(name, "", None)
    element_type = ELEMENT_TYPES.get(wire.number(tensors[0], "elem_type"), "")
    shapes = wire.inside(tensors[0], "shape", "TensorShapeProto")
    if not shapes:
        return Port(name, element_type, None)
    dims = wire.inside(shapes[0], "dim", "TensorShapeProto.Dimension")
    return Port(name, element_type, tuple(_dim(wire, dim) for dim in dims))


def _dim(wire: _Wire, dim: _Place) -> int | str:
    return wire.number(dim, "dim_value") if wire.inside(dim, "dim_value") else wire.string(dim, "dim_param")
