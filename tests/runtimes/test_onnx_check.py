"""What is refused before an engine sees it, and that nothing else is."""

import io
import pickle
import time
import zipfile
from functools import partial

import numpy as np
import pytest

from openlepton.errors import ModelFormatRefused
from openlepton.runtimes import onnx_check
from openlepton.runtimes.onnx_check import check_onnx

onnx = pytest.importorskip("onnx", reason="onnx comes with the extra train")
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper

INT64 = TensorProto.INT64
EXTERNAL = "external data: weights must be inside the file"


def value(name, shape=(8,), kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, initializers=(), *, sparse=(), opsets=(("", 17),), ir_version=8, functions=()):
    graph = helper.make_graph(
        nodes, "g", [value("x")], [value("y")], list(initializers), sparse_initializer=list(sparse)
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=list(functions))


def plain_model():
    return model_of([helper.make_node("Relu", ["x"], ["y"])])


def external(location, name="w", kind=TensorProto.FLOAT):
    """Return a tensor whose eight numbers are in the file at `location`."""
    tensor = TensorProto(name=name, data_type=kind, dims=[8], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", "0"), ("length", "32")):
        tensor.external_data.add(key=key, value=text)
    return tensor


def inside(name="w", kind=TensorProto.FLOAT):
    """Return the tensor with its eight numbers inside."""
    return helper.make_tensor(name, kind, [8], range(8))


def sparse_of(values, indices):
    sparse = onnx.SparseTensorProto(dims=[8])
    sparse.values.CopyFrom(values)
    sparse.indices.CopyFrom(indices)
    return sparse


def add(*before):
    return [*before, helper.make_node("Add", ["x", "w"], ["y"])]


def constant(attribute, content):
    node = helper.make_node("Constant", [], ["w"])
    node.attribute.append(helper.make_attribute(attribute, content))
    return node


def branching(tensor, depth=1):
    """Return nodes with a constant `tensor` inside a branch inside a branch, `depth` times."""
    body = helper.make_graph([constant("value", tensor)], "leaf", [], [value("w")])
    for level in range(depth):
        condition = constant("value", numpy_helper.from_array(np.array(True)))
        condition.output[0] = f"c{level}"
        node = helper.make_node("If", [f"c{level}"], ["w"], then_branch=body, else_branch=body)
        body = helper.make_graph([condition, node], "branch", [], [value("w")])
    return add(*body.node)


def with_graph_list(tensor):
    node = helper.make_node("Relu", ["x"], ["y"])
    node.attribute.append(
        helper.make_attribute("bodies", [helper.make_graph([constant("value", tensor)], "leaf", [], [value("w")])])
    )
    return [node]


def function_with(tensor):
    return helper.make_function("mine", "F", ["a"], ["w"], [constant("value", tensor)], [helper.make_opsetid("", 17)])


LOCATIONS = ["weights.bin", "../../etc/passwd", "/etc/passwd", "C:\\weights.bin", "*/_ORT_MEM_ADDR_/*", ""]

# Where a tensor that `make` makes can be, and a model that has it there.
HIDING = {
    "graph.initializer[1]": lambda make: model_of(add(), [inside("other"), make()]),
    "graph.sparse_initializer[0].values": lambda make: model_of(add(), sparse=[sparse_of(make(), inside("i", INT64))]),
    "graph.sparse_initializer[0].indices": lambda make: model_of(add(), sparse=[sparse_of(inside(), make("i", INT64))]),
    "graph.node[0].attribute[0].t": lambda make: model_of(add(constant("value", make()))),
    "graph.node[0].attribute[0].sparse_tensor.values": lambda make: model_of(
        add(constant("sparse_value", sparse_of(make(), inside("i", INT64))))
    ),
    "graph.node[0].attribute[0].tensors[1]": lambda make: model_of(add(constant("several", [inside(), make()]))),
    "graph.node[0].attribute[0].sparse_tensors[0].indices": lambda make: model_of(
        add(constant("several", [sparse_of(inside(), make("i", INT64))]))
    ),
    "graph.node[1].attribute[0].g.node[0].attribute[0].t": lambda make: model_of(branching(make())),
    "graph.node[1].attribute[0].g.node[1].attribute[0].g.node[0].attribute[0].t": lambda make: model_of(
        branching(make(), depth=2)
    ),
    "graph.node[0].attribute[0].graphs[0].node[0].attribute[0].t": lambda make: model_of(with_graph_list(make())),
}


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("where", HIDING)
def test_external_data_is_refused_wherever_it_hides(where, location):
    with pytest.raises(ModelFormatRefused) as caught:
        check_onnx(HIDING[where](partial(external, location)).SerializeToString())
    assert str(caught.value) == f"model.onnx: {where}: external_data: {EXTERNAL}"


@pytest.mark.parametrize("where", HIDING)
def test_the_same_models_pass_with_the_weights_inside(where):
    assert check_onnx(HIDING[where](inside).SerializeToString()).opset == 17


def test_a_location_without_entries_and_entries_without_a_location_are_both_refused():
    bare = TensorProto(name="w", data_type=1, dims=[8], data_location=TensorProto.EXTERNAL)
    unsaid = external("w.bin")
    unsaid.ClearField("data_location")
    for tensor in (bare, unsaid):
        with pytest.raises(ModelFormatRefused, match=EXTERNAL):
            check_onnx(model_of(add(), [tensor]).SerializeToString())


def test_a_location_that_is_external_only_once_cut_to_32_bits_is_refused():
    sly = b"\x70\x81\x80\x80\x80\x10"  # data_location = 2**32 + 1
    assert TensorProto.FromString(sly).data_location == TensorProto.EXTERNAL
    with pytest.raises(ModelFormatRefused, match=EXTERNAL):
        check_onnx(message(7, message(5, sly)))


def test_functions_and_training_graphs_are_refused():
    with pytest.raises(ModelFormatRefused, match=r"functions: functions of its own: inline them"):
        check_onnx(model_of(add(), [inside()], functions=[function_with(external("w.bin"))]).SerializeToString())
    training = plain_model()
    training.training_info.add().initialization.initializer.append(external("w.bin"))
    with pytest.raises(ModelFormatRefused, match=r"training_info: a training graph"):
        check_onnx(training.SerializeToString())


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "ai.onnx.training", "mine", " ", "AI.ONNX"])
def test_operators_from_elsewhere_are_refused(domain):
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Evil", ["h"], ["y"], domain=domain)]
    with pytest.raises(ModelFormatRefused, match=rf"graph\.node\[1\]: operators from '{domain}'"):
        check_onnx(model_of(nodes).SerializeToString())
    leaf = helper.make_graph(nodes, "leaf", [], [value("y")])
    hidden = helper.make_node("If", ["x"], ["y"], then_branch=leaf, else_branch=leaf)
    with pytest.raises(
        ModelFormatRefused, match=rf"graph\.node\[0\]\.attribute\[\d\]\.g\.node\[1\]: operators from '{domain}'"
    ):
        check_onnx(model_of([hidden]).SerializeToString())


def test_what_a_model_says_of_itself_cannot_disturb_the_message():
    node = helper.make_node("Evil", ["x"], ["y"], domain="\x1b[31m\n" + "x" * 10_000)
    with pytest.raises(ModelFormatRefused) as caught:
        check_onnx(model_of([node]).SerializeToString())
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "mine"])
def test_importing_operators_from_elsewhere_is_refused_even_if_unused(domain):
    data = model_of([helper.make_node("Relu", ["x"], ["y"])], opsets=(("", 17), (domain, 1))).SerializeToString()
    with pytest.raises(ModelFormatRefused, match=rf"opset_import\[1\]: operators from '{domain}'"):
        check_onnx(data)


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_both_names_of_the_standard_domain_are_admitted(domain):
    model = model_of([helper.make_node("Relu", ["x"], ["y"], domain=domain)], opsets=((domain, 17),))
    assert check_onnx(model.SerializeToString()).opset == 17


@pytest.mark.parametrize("opset", [-1, 0, 1, 12, onnx_check.MAX_OPSET + 1, 2**40, 2**63 - 1])
def test_operator_sets_out_of_range_are_refused(opset):
    with pytest.raises(ModelFormatRefused, match=rf"opset_import\[0\]: opset {opset} is not one of 13 to 28"):
        check_onnx(model_of([], opsets=(("", opset),)).SerializeToString())


@pytest.mark.parametrize("version", [-1, 0, 3, 6, onnx_check.MAX_IR + 1, 2**40])
def test_file_format_versions_out_of_range_are_refused(version):
    with pytest.raises(ModelFormatRefused, match=rf"ir_version: {version} is not one of 7 to 14"):
        check_onnx(model_of([], ir_version=version).SerializeToString())


def test_a_model_without_a_graph_or_an_operator_set_or_with_two_is_refused():
    with pytest.raises(ModelFormatRefused, match="there is no graph in it"):
        check_onnx(b"")
    with pytest.raises(ModelFormatRefused, match="opset_import: expected one, found 0"):
        check_onnx(model_of([], opsets=()).SerializeToString())
    with pytest.raises(ModelFormatRefused, match="opset_import: expected one, found 2"):
        check_onnx(model_of([], opsets=(("", 17), ("ai.onnx", 18))).SerializeToString())
    with pytest.raises(ModelFormatRefused, match="graph: more than one graph"):
        check_onnx(plain_model().SerializeToString() + message(7, b""))


def archive():
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    return memory.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        *[(pickle.dumps({"weights": [1.0] * 99}, protocol), "a Python pickle") for protocol in (2, 3, 4, 5)],
        (pickle.dumps({"weights": [1.0] * 99}, 0), "not an ONNX model"),
        (archive(), "a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(500), "an HDF5 file"),
        (b"\x18\x00\x00\x00ORTM" + bytes(500), "an ONNX Runtime flatbuffer"),
        (b"\x12\x06aaORTM" + plain_model().SerializeToString(), "an ONNX Runtime flatbuffer"),
        (b"# just some text\n", "not an ONNX model"),
        (b'{"model": 1}', "not an ONNX model"),
        (b"\xff" * 64, "a number does not end"),
        (bytes(64), "a ModelProto has no field 0 that is read: not an ONNX model"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "not an ONNX model"),
    ],
)
def test_other_files_renamed_to_onnx_are_refused(data, what):
    with pytest.raises(ModelFormatRefused, match=rf"^renamed\.onnx: .*{what}"):
        check_onnx(data, "renamed.onnx")


def number(value):
    """Return `value` as the wire has it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(field, content):
    return number(field << 3 | 2) + number(len(content)) + content


HEAD = b"\x08\x08" + message(8, b"\x10\x11")  # IR version 8, opset 17


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x08", "ir_version needs|a number does not end"),
        (b"\x08\x80", "a number does not end"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "a number does not end"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "a number does not end"),  # 65 bits
        (b"\x3a\x05\x0a", "graph needs 5 bytes, 1 are left"),
        (b"\x3a" + number(2**63), "graph needs 9,223,372,036,854,775,808 bytes, 0 are left"),
        (message(7, b"\x0a\x7f"), "graph: node needs 127 bytes, 0 are left"),
        (message(7, b"\x0a\x05ab") + message(2, b"name"), "graph: node needs 5 bytes, 2 are left"),
        (b"\x3b\x3c", "graph has wire type 3"),  # a group
        (b"\x38\x01", "graph has wire type 0"),
        (b"\x0d\x08\x00\x00\x00", "ir_version has wire type 5"),
        (b"\x0f", "ir_version has wire type 7"),
        (number(99 << 3) + b"\x01", "a ModelProto has no field 99"),
        (number(2**35 | 7 << 3 | 2) + b"\x00", "a ModelProto has no field 4294967303"),
        (b"\x08\x08\x08\x08", "ir_version: more than one ir_version"),
        (message(7, message(99, b"")), "graph: a GraphProto has no field 99"),
        (message(7, message(5, message(3, b""))), r"graph\.initializer\[0\]: a TensorProto has no field 3"),
        (message(7, message(5, message(4, b"\x00" * 7))), "float_data: the last number is cut off"),
        (message(7, message(5, message(7, b"\x01\x80"))), "int64_data: the last number is cut off"),
        (message(7, message(5, message(7, b"\x80" * 10 + b"\x01"))), "int64_data: the last number is cut off, or one"),
        (message(7, message(5, b"\x75\x01\x00\x00\x00")), "data_location has wire type 5"),
        (HEAD + message(7, message(11, message(1, b"\xff\xfe"))), r"graph\.input\[0\]\.name: a name is not UTF-8 text"),
        (message(7, message(1, message(7, b"\xff"))), "a name is not UTF-8 text"),
        (message(7, message(11, message(2, message(1, b"") + message(4, b"")))), "sequence_type: more than one value"),
    ],
)
def test_malformed_data_is_refused_and_the_message_says_where(data, what):
    with pytest.raises(ModelFormatRefused, match=what):
        check_onnx(data)


def test_a_file_larger_than_protobuf_admits_is_refused(monkeypatch):
    data = plain_model().SerializeToString()
    monkeypatch.setattr(onnx_check, "MAX_BYTES", len(data))
    assert check_onnx(data).opset == 17
    with pytest.raises(ModelFormatRefused, match=f"an ONNX file has at most {len(data)} bytes"):
        check_onnx(data + message(2, b""))


def test_messages_inside_each_other_have_a_limit():
    deep = model_of(branching(inside(), depth=8)).SerializeToString()
    assert check_onnx(deep).opset == 17
    with pytest.raises(ModelFormatRefused, match="more than 32 messages inside each other"):
        check_onnx(model_of(branching(inside(), depth=9)).SerializeToString())
    endless = b""
    for _ in range(5_000):
        endless = message(4, message(1, endless))  # a sequence of sequences of sequences
    with pytest.raises(ModelFormatRefused, match="more than 32 messages inside each other"):
        check_onnx(message(7, message(11, message(2, endless))))


def test_time_does_not_grow_with_the_weights():
    data = model_of(add(), [numpy_helper.from_array(np.zeros(2**24, np.float32), "w")]).SerializeToString()
    assert len(data) > 64 * 2**20
    start = time.perf_counter()
    check_onnx(data)
    assert time.perf_counter() - start < 0.05


@pytest.mark.parametrize("field", [b"\x0a\x00", b"\x2a\x02\x08\x01"])  # empty nodes, tiny tensors
def test_a_file_of_nothing_but_fields_is_refused_in_time(field):
    data = message(7, field * 5_000_000)
    start = time.perf_counter()
    with pytest.raises(ModelFormatRefused, match="more than 1,000,000 fields"):
        check_onnx(data)
    assert time.perf_counter() - start < 20
