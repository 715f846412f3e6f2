"""The table of what may appear in an ONNX file, against the descriptors of the `onnx` package."""

import pytest

from openlepton.runtimes import onnx_check, onnx_fields
from openlepton.runtimes.onnx_fields import BYTES, FIXED32, FIXED64, MESSAGES, VARINT

onnx = pytest.importorskip("onnx", reason="onnx comes with the extra train")
pb = onnx.onnx_ml_pb2

WIRES = {
    "double": FIXED64, "float": FIXED32, "int64": VARINT, "uint64": VARINT, "int32": VARINT, "enum": VARINT,
    "string": BYTES, "message": BYTES, "bytes": BYTES,
}  # fmt: skip
LEFT_OUT = {
    ("ModelProto", "configuration"),
    ("NodeProto", "device_configurations"),
    ("AttributeProto", "ref_attr_name"),
    ("TensorProto", "segment"),
    ("TypeProto", "opaque_type"),
}
REFUSED = {("ModelProto", "training_info"), ("ModelProto", "functions"), ("TensorProto", "external_data")}


def descriptor(message):
    outer, _, inner = message.partition(".")
    found = getattr(pb, outer).DESCRIPTOR
    return found.nested_types_by_name[inner] if inner else found


def type_name(field):
    return next(name for name in WIRES if field.type == getattr(field, f"TYPE_{name.upper()}"))


def is_repeated(field):
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


@pytest.mark.parametrize("message", MESSAGES)
def test_every_field_in_the_table_is_as_onnx_defines_it(message):
    real = descriptor(message)
    for number, field in MESSAGES[message].items():
        there = real.fields_by_number[number]
        assert field.name == there.name
        assert field.wire == WIRES[type_name(there)]
        choice = there.containing_oneof.name if there.containing_oneof else there.name
        assert field.slot == ("" if is_repeated(there) else choice)
        if there.message_type is not None and not field.refused:
            assert field.message == there.message_type.full_name.removeprefix("onnx.")


def test_every_message_that_can_be_reached_is_in_the_table():
    inside = {field.message for fields in MESSAGES.values() for field in fields.values() if field.message}
    assert inside | {"ModelProto"} == set(MESSAGES)


def test_what_the_table_leaves_out_and_refuses_is_what_it_says():
    left_out = {
        (message, field.name)
        for message, fields in MESSAGES.items()
        for field in descriptor(message).fields
        if field.number not in fields
    }
    refused = {(message, one.name) for message, fields in MESSAGES.items() for one in fields.values() if one.refused}
    assert left_out == LEFT_OUT
    assert refused == REFUSED


def test_numbers_that_may_be_packed_have_two_keys_and_others_one():
    assert onnx_fields.BY_KEY["TensorProto"][1 << 3 | BYTES].packed
    assert not onnx_fields.BY_KEY["TensorProto"][1 << 3 | VARINT].packed
    assert 2 << 3 | BYTES not in onnx_fields.BY_KEY["TensorProto"]


def test_element_types_are_named_as_numpy_names_them():
    for number, name in onnx_check.ELEMENT_TYPES.items():
        expected = {"STRING": "string", "BFLOAT16": "bfloat16"}.get(pb.TensorProto.DataType.Name(number))
        assert name == (expected or onnx.helper.tensor_dtype_to_np_dtype(number).name)


def test_the_newest_versions_admitted_are_ones_that_onnx_knows():
    assert onnx_check.MAX_IR <= onnx.IR_VERSION
    assert onnx.defs.onnx_opset_version() >= onnx_check.MAX_OPSET
