"""What may appear in an ONNX file: a table of messages and fields, after `onnx.proto` (IR version 14), Apache-2.0.

Refused wherever it appears is what this table marks so, and what `onnx.proto` defines and this table leaves out:
segments of tensors, opaque types, attributes that refer to a function's, devices.
"""

from collections.abc import Mapping
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types: how a value is laid out."""

EXTERNAL = "external data: weights must be inside the file"


class Field(NamedTuple):
    """A field of a message, as the walk needs to know it."""

    name: str
    wire: int
    slot: str = ""
    """What there can be only one of: the field, or the choice that it is one of; empty for a repeated field."""
    message: str = ""
    """The kind of message inside, which is walked too."""
    refused: str = ""
    """Why the field may not appear."""
    packed: bool = False
    """Whether the value is many numbers one after the other."""


def _int(name: str, choice: str = "") -> Field:
    return Field(name, VARINT, choice or name)


def _ints(name: str) -> Field:
    return Field(name, VARINT)


def _text(name: str, choice: str = "") -> Field:
    return Field(name, BYTES, choice or name)


def _texts(name: str) -> Field:
    return Field(name, BYTES)


def _one(name: str, message: str, choice: str = "") -> Field:
    return Field(name, BYTES, choice or name, message)


def _many(name: str, message: str) -> Field:
    return Field(name, BYTES, "", message)


def _no(name: str, why: str) -> Field:
    return Field(name, BYTES, refused=why)


_STRINGS = _many("metadata_props", "StringStringEntryProto")
_DOC = _text("doc_string")

MESSAGES: Mapping[str, Mapping[int, Field]] = {
    "ModelProto": {
        1: _int("ir_version"),
        2: _text("producer_name"),
        3: _text("producer_version"),
        4: _text("domain"),
        5: _int("model_version"),
        6: _DOC,
        7: _one("graph", "GraphProto"),
        8: _many("opset_import", "OperatorSetIdProto"),
        14: _STRINGS,
        20: _no("training_info", "a training graph: export for inference"),
        25: _no("functions", "functions of its own: inline them when exporting"),
    },
    "OperatorSetIdProto": {1: _text("domain"), 2: _int("version")},
    "StringStringEntryProto": {1: _text("key"), 2: _text("value")},
    "GraphProto": {
        1: _many("node", "NodeProto"),
        2: _text("name"),
        5: _many("initializer", "TensorProto"),
        10: _DOC,
        11: _many("input", "ValueInfoProto"),
        12: _many("output", "ValueInfoProto"),
        13: _many("value_info", "ValueInfoProto"),
        14: _many("quantization_annotation", "TensorAnnotation"),
        15: _many("sparse_initializer", "SparseTensorProto"),
        16: _STRINGS,
    },
    "NodeProto": {
        1: _texts("input"),
        2: _texts("output"),
        3: _text("name"),
        4: _text("op_type"),
        5: _many("attribute", "AttributeProto"),
        6: _DOC,
        7: _text("domain"),
        8: _text("overload"),
        9: _STRINGS,
    },
    "AttributeProto": {
        1: _text("name"),
        2: Field("f", FIXED32, "f"),
        3: _int("i"),
        4: _text("s"),
        5: _one("t", "TensorProto"),
        6: _one("g", "GraphProto"),
        7: Field("floats", FIXED32),
        8: _ints("ints"),
        9: _texts("strings"),
        10: _many("tensors", "TensorProto"),
        11: _many("graphs", "GraphProto"),
        13: _DOC,
        14: _one("tp", "TypeProto"),
        15: _many("type_protos", "TypeProto"),
        20: _int("type"),
        22: _one("sparse_tensor", "SparseTensorProto"),
        23: _many("sparse_tensors", "SparseTensorProto"),
    },
    "TensorProto": {
        1: _ints("dims"),
        2: _int("data_type"),
        4: Field("float_data", FIXED32),
        5: _ints("int32_data"),
        6: _texts("string_data"),
        7: _ints("int64_data"),
        8: _text("name"),
        9: _text("raw_data"),
        10: Field("double_data", FIXED64),
        11: _ints("uint64_data"),
        12: _DOC,
        13: _no("external_data", EXTERNAL),
        14: _int("data_location"),
        16: _STRINGS,
    },
    "SparseTensorProto": {
        1: _one("values", "TensorProto"),
        2: _one("indices", "TensorProto"),
        3: _ints("dims"),
    },
    "TensorAnnotation": {
        1: _text("tensor_name"),
        2: _many("quant_parameter_tensor_names", "StringStringEntryProto"),
    },
    "ValueInfoProto": {1: _text("name"), 2: _one("type", "TypeProto"), 3: _DOC, 4: _STRINGS},
    "TypeProto": {
        1: _one("tensor_type", "TypeProto.Tensor", "value"),
        4: _one("sequence_type", "TypeProto.Sequence", "value"),
        5: _one("map_type", "TypeProto.Map", "value"),
        6: _text("denotation"),
        8: _one("sparse_tensor_type", "TypeProto.SparseTensor", "value"),
        9: _one("optional_type", "TypeProto.Optional", "value"),
    },
    "TypeProto.Tensor": {1: _int("elem_type"), 2: _one("shape", "TensorShapeProto")},
    "TypeProto.SparseTensor": {1: _int("elem_type"), 2: _one("shape", "TensorShapeProto")},
    "TypeProto.Sequence": {1: _one("elem_type", "TypeProto")},
    "TypeProto.Optional": {1: _one("elem_type", "TypeProto")},
    "TypeProto.Map": {1: _int("key_type"), 2: _one("value_type", "TypeProto")},
    "TensorShapeProto": {1: _many("dim", "TensorShapeProto.Dimension")},
    "TensorShapeProto.Dimension": {
        1: _int("dim_value", "value"),
        2: _text("dim_param", "value"),
        3: _text("denotation"),
    },
}
"""The fields by message and number; a message type that is nested in another is called Outer.Inner."""

BY_KEY: Mapping[str, Mapping[int, Field]] = {
    message: {number << 3 | field.wire: field for number, field in fields.items()}
    | {
        number << 3 | BYTES: field._replace(packed=True)
        for number, field in fields.items()
        if field.wire != BYTES and not field.slot
    }
    for message, fields in MESSAGES.items()
}
"""The fields by message and key, which is what stands before a value: the number, and three bits of wire type."""
