"""Any model that `onnx` can make passes the check; any bytes whatever are refused or harmless."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlepton.errors import ModelFormatRefused
from openlepton.runtimes.onnx_check import ELEMENT_TYPES, MESSAGES, GraphFacts, Port, check_onnx

onnx = pytest.importorskip("onnx", reason="onnx comes with the extra train")
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper


def facts_of(model):
    """Return what `onnx` itself reads in `model`."""
    return GraphFacts(
        model.ir_version, model.opset_import[0].version, ports_of(model.graph.input), ports_of(model.graph.output)
    )


def ports_of(infos):
    return tuple(port_of(info) for info in infos)


def port_of(info):
    if info.type.WhichOneof("value") != "tensor_type":
        return Port(info.name, "", None)
    tensor = info.type.tensor_type
    name = ELEMENT_TYPES.get(tensor.elem_type, "")
    if not tensor.HasField("shape"):
        return Port(info.name, name, None)
    dims = (dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim)
    return Port(info.name, name, tuple(dims))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = TEXT.filter(bool)
ARRAYS = st.sampled_from(["f4", "f8", "i4", "i8", "u8", "u1", "?", "f2"]).flatmap(
    lambda kind: st.lists(st.integers(0, 1), max_size=5).map(lambda values: np.array(values, kind))
)
TENSORS = st.one_of(
    st.builds(numpy_helper.from_array, ARRAYS, TEXT),
    st.builds(
        lambda values: helper.make_tensor("t", TensorProto.INT64, [len(values)], values), st.lists(st.integers(-9, 9))
    ),
    st.builds(
        lambda values: helper.make_tensor("t", TensorProto.FLOAT, [len(values)], values), st.lists(st.floats(width=32))
    ),
    st.builds(lambda values: helper.make_tensor("t", TensorProto.STRING, [len(values)], values), st.lists(st.binary())),
)


def sparse_of(values, indices):
    sparse = onnx.SparseTensorProto(dims=[8])
    sparse.values.CopyFrom(values)
    sparse.indices.CopyFrom(indices)
    return sparse


SPARSE = st.builds(sparse_of, TENSORS, TENSORS)
DIMS = st.none() | st.lists(st.integers(-1, 2**62) | NAMES | st.none(), max_size=5)
TYPES = st.recursive(
    st.one_of(
        st.builds(helper.make_tensor_type_proto, st.sampled_from(sorted(TensorProto.DataType.values())), DIMS),
        st.builds(helper.make_sparse_tensor_type_proto, st.just(TensorProto.FLOAT), DIMS),
    ),
    lambda kinds: st.one_of(
        st.builds(helper.make_sequence_type_proto, kinds),
        st.builds(helper.make_optional_type_proto, kinds),
        st.builds(helper.make_map_type_proto, st.just(TensorProto.INT64), kinds),
    ),
    max_leaves=3,
)
INFOS = st.builds(helper.make_value_info, TEXT, TYPES, TEXT)
SMALL = st.integers(-(2**63), 2**63 - 1)


def attributes(graphs):
    contents = st.one_of(
        SMALL,
        st.floats(width=32),
        TEXT,
        st.lists(SMALL, min_size=1, max_size=9),
        st.lists(st.floats(width=32), min_size=1, max_size=9),
        st.lists(TEXT, min_size=1, max_size=4),
        TENSORS,
        SPARSE,
        TYPES,
        graphs,
        st.lists(TENSORS, min_size=1, max_size=3),
        st.lists(SPARSE, min_size=1, max_size=2),
        st.lists(TYPES, min_size=1, max_size=2),
        st.lists(graphs, min_size=1, max_size=2),
    )
    return st.builds(helper.make_attribute, NAMES, contents, TEXT)


@st.composite
def nodes(draw, graphs):
    words = st.lists(TEXT, max_size=3)
    domain = draw(st.sampled_from(["", "ai.onnx"]))
    node = helper.make_node(draw(NAMES), draw(words), draw(words), draw(TEXT), draw(TEXT), domain)
    node.attribute.extend(draw(st.lists(attributes(graphs), max_size=4)))
    helper.set_model_props(node, draw(st.dictionaries(TEXT, TEXT, max_size=2)))
    return node


def graphs_of(inner):
    return st.builds(
        helper.make_graph,
        st.lists(nodes(inner), max_size=3),
        TEXT,
        st.lists(INFOS, max_size=3),
        st.lists(INFOS, max_size=3),
        st.lists(TENSORS, max_size=3),
        TEXT,
        st.lists(INFOS, max_size=2),
        st.lists(SPARSE, max_size=2),
    )


LEAVES = st.builds(helper.make_graph, st.just([]), TEXT, st.just([]), st.lists(INFOS, max_size=1))
BRANCHES = st.deferred(lambda: graphs_of(LEAVES) | LEAVES)


def whole(graph, opset=17, ir_version=8, domain="", text="seed", properties=()):
    imports = [helper.make_opsetid(domain, opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    model.producer_name = model.producer_version = model.domain = model.doc_string = text
    helper.set_model_props(model, dict(properties))
    return model


@st.composite
def models(draw):
    domain = draw(st.sampled_from(["", "ai.onnx"]))
    properties = draw(st.dictionaries(TEXT, TEXT, max_size=3))
    graph = draw(graphs_of(BRANCHES))
    return whole(graph, draw(st.integers(13, 28)), draw(st.integers(7, 14)), domain, draw(TEXT), properties)


@pytest.mark.slow
@given(models())
def test_every_valid_model_passes_and_its_facts_are_what_onnx_reads(model):
    assert check_onnx(model.SerializeToString()) == facts_of(model)


def assert_harmless(found):
    """Assert, by an independent walk over what `onnx` parsed, that nothing in the message is more than a network."""
    if isinstance(found, TensorProto):
        assert found.data_location == TensorProto.DEFAULT
        assert not found.external_data
    if isinstance(found, onnx.NodeProto | onnx.OperatorSetIdProto):
        assert found.domain in ("", "ai.onnx")
    if isinstance(found, onnx.ModelProto):
        assert not found.functions
        assert not found.training_info
    for field, content in found.ListFields():
        if field.message_type is not None:
            for one in [content] if hasattr(content, "ListFields") else content:
                assert_harmless(one)


def seeds():
    """Return models to damage: three harmless ones, and six that hide something one edit away from what is checked."""
    weights = helper.make_tensor("w", TensorProto.INT64, [3], [1, 2, 300])
    away = TensorProto(name="w", data_type=1, dims=[8], data_location=TensorProto.EXTERNAL)
    away.external_data.add(key="location", value="../weights.bin")
    seeds = []
    for tensor, domain in ((weights, ""), (away, ""), (weights, "mine")):
        leaf_node = helper.make_node("Constant", [], ["w"], domain=domain, value=tensor)
        leaf = helper.make_graph([leaf_node], "leaf", [], [helper.make_tensor_value_info("w", 1, [8])])
        branch = helper.make_node("If", ["c"], ["w"], "if", then_branch=leaf, else_branch=leaf)
        for nodes, initializers, sparse in (
            ([branch], [], []),
            ([leaf_node], [tensor], []),
            ([], [tensor], [sparse_of(tensor, weights)]),
        ):
            graph = helper.make_graph(
                nodes,
                "g",
                [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 3, "H", "W"])],
                [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", 80])],
                initializers,
                sparse_initializer=sparse,
            )
            seeds.append(whole(graph, properties={"key": "value"}).SerializeToString())
    return seeds


SEEDS = seeds()
EDITS = st.tuples(
    st.sampled_from(["flip", "set", "insert", "delete", "cut", "copy"]),
    st.integers(0, 2**16),
    st.integers(0, 255),
    st.integers(1, 12),
)


def edited(data, edits):
    for kind, position, byte, length in edits:
        at = position % (len(data) + 1)
        match kind:
            case "flip" if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << byte % 8]) + data[at + 1 :]
            case "set":
                data = data[:at] + bytes([byte]) + data[at + 1 :]
            case "insert":
                data = data[:at] + bytes([byte]) * length + data[at:]
            case "delete":
                data = data[:at] + data[at + length :]
            case "cut" if byte < 32:
                data = data[:at]
            case "copy":
                data = data[:at] + data[byte : byte + length] + data[at:]
    return data


@pytest.mark.slow
@settings(max_examples=1500)
@given(st.sampled_from(SEEDS), st.lists(EDITS, max_size=4))
def test_whatever_bytes_come_they_are_refused_or_harmless(seed, edits):
    data = edited(seed, edits)
    try:
        facts = check_onnx(data)
    except ModelFormatRefused:
        return
    model = onnx.ModelProto.FromString(data)
    assert_harmless(model)
    assert facts == facts_of(model)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    with pytest.raises(ModelFormatRefused):
        check_onnx(data)


def test_attribute_kinds_in_the_property_test_are_all_there_are():
    reachable = {field.name for field in onnx.AttributeProto.DESCRIPTOR.fields} - {"ref_attr_name"}
    assert {field.name for field in MESSAGES["AttributeProto"].values()} == reachable
