"""ONNX graphs in other arithmetic: weights as float32 or float16, and convolutions in int8 with ranges from real images.

int8 is simulated as the standard says (QuantizeLinear and DequantizeLinear before a convolution), so that any engine may fuse it.
What a convolution takes is rounded, what it gives is not: after it comes SiLU, which needs its small numbers exactly while the
large ones decide the range. Weights lose least, and what they lose on average goes into the bias (Nagel et al. 2019,
arXiv:1906.04721, section 4.2): without that half of a small detector's AP is lost, with it a fraction of a point. Depthwise
convolutions and the last one before each output stay in float32, and so does all that makes boxes and scores: a number between 0
and 640 has no room in eight bits.
"""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openlepton.arrays import Array, Floats
from openlepton.errors import missing_extra
from openlepton.export.ranges import Flow, flows
from openlepton.offline import import_onnxruntime

CONVOLUTION = "Conv"

WEIGHT_STEPS = 64
"""Weights are whole numbers from -64 to 64: processors that add products of bytes in pairs of 16 bits would overflow with 127."""

MAX_HARM = 0.05
"""By how much scores may differ on average before more convolutions stay in float32."""

KEPT = (0, 4, 8, 16)
"""How many of the first convolutions stay in float32, one number after the other: where ranges are widest, rounding harms most."""

JUDGES = 16
"""Images on which the harm is measured."""


def widened(graph: bytes) -> bytes:
    """Return an equal graph whose weights are stored as float32, and whose constants are folded."""
    ort = import_onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wide.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return _plain(path.read_bytes())


def halved(graph: bytes) -> bytes:
    """Return a graph whose weights are stored as float16; its arithmetic is float32 all the same."""
    onnx = _onnx()
    from openlepton.nets.export import store_half

    model = onnx.load_from_string(widened(graph))
    store_half(model.graph, {}, set())
    data: bytes = model.SerializeToString()
    return data


def quantized(graph: bytes, inputs: Sequence[Mapping[str, Array]]) -> bytes:
    """Return a graph whose convolutions compute in int8, but for depthwise and last ones, and the first ones if need be.

    Args:
        graph: In float32 or float16.
        inputs: What the graph takes, for one image after the other; ranges of what flows between layers are those that they show.

    Raises:
        MissingExtra: onnx is not installed.
    """
    onnx = _onnx()
    wide = widened(graph)
    model = onnx.load_from_string(wide)
    exact = exact_convolutions(model.graph)
    layers = [node for node in model.graph.node if node.op_type == CONVOLUTION and node.name not in exact]
    known = flows(model, {node.input[0] for node in layers}, inputs)
    judges = inputs[:: max(1, len(inputs) // JUDGES)][:JUDGES]
    wanted = _outputs(wide, judges)
    data = wide
    for kept in KEPT:
        data = _plain(_rounded(model, {node.name for node in layers[kept:]}, known))
        if harm(wanted, _outputs(data, judges)) <= MAX_HARM:
            break
    return data


def harm(first: Sequence[Mapping[str, Array]], second: Sequence[Mapping[str, Array]]) -> float:
    """Return by how much the scores of two graphs differ on average, of those that are above 0.1 in one of them."""
    total, count = 0.0, 0
    for one, other in zip(first, second, strict=True):
        a, b = (values["scores"] if "scores" in values else values["classes"] for values in (one, other))
        some = np.maximum(a, b) > 0.1
        total, count = total + float(np.abs(a - b)[some].sum()), count + int(some.sum())
    return total / count if count else 0.0


def rounded_weights(weights: Floats) -> tuple[Array, Floats]:
    """Return the weights `(O, I, H, W)` of a convolution as int8, and the scale of each output channel, `(O,)` float32."""
    scale = np.maximum(np.abs(weights).max((1, 2, 3)) / WEIGHT_STEPS, 1e-12).astype(np.float32)
    return np.rint(weights / scale[:, None, None, None]).astype(np.int8), scale


def _rounded(model: Any, names: Collection[str], known: Mapping[str, Flow]) -> bytes:
    """Return the graph, of which the convolutions of those names take rounded numbers and have rounded weights."""
    onnx = _onnx()
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    held = {value.name: value for value in graph.initializer}
    nodes, seen = list[Any](), set[str]()

    def add(name: str, value: Array) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        return name

    for node in graph.node:
        if node.name in names:
            source, weight = node.input[0], node.input[1]
            flow = known[source]
            if source not in seen:
                seen.add(source)
                given = [add(f"{source}_scale", np.array(flow.scale, np.float32))]
                given.append(add(f"{source}_zero", np.array(flow.zero, np.uint8)))
                nodes.append(onnx.helper.make_node("QuantizeLinear", [source, *given], [f"{source}_int8"]))
                nodes.append(
                    onnx.helper.make_node("DequantizeLinear", [f"{source}_int8", *given], [f"{source}_rounded"])
                )
            exact = onnx.numpy_helper.to_array(held[weight])
            whole, scale = rounded_weights(exact)
            given = [add(f"{weight}_int8", whole), add(f"{weight}_scale", scale)]
            given.append(add(f"{weight}_zero", np.zeros(len(scale), np.int8)))
            nodes.append(onnx.helper.make_node("DequantizeLinear", given, [f"{weight}_rounded"], axis=0))
            lost = (exact - whole * scale[:, None, None, None]).sum((2, 3)) @ flow.mean
            bias = lost + (onnx.numpy_helper.to_array(held[node.input[2]]) if len(node.input) > 2 else 0.0)
            inputs = [f"{source}_rounded", f"{weight}_rounded", add(f"{weight}_bias", bias.astype(np.float32))]
            del node.input[:]
            node.input.extend(inputs)
        nodes.append(node)
    _replace(graph, nodes)
    data: bytes = result.SerializeToString()
    return data


def _replace(graph: Any, nodes: Sequence[Any]) -> None:
    """Give a graph its nodes, and leave out the tensors that none of them takes."""
    kept = [_onnx().NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    tensors = [value for value in graph.initializer if value.name in used]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _outputs(graph: bytes, inputs: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """Return what a graph gives, by name, for one image after the other."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(one)), strict=True)) for one in inputs]


def exact_convolutions(graph: Any) -> list[str]:
    """Return the names of the convolutions that stay in float32: the last ones, and depthwise ones.

    What comes to a depthwise convolution, and what it gives, has another range in every channel, and one scale for all of them
    leaves the narrow channels nothing.
    """
    depthwise = [
        node.name
        for node in graph.node
        if node.op_type == CONVOLUTION and any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]
    return sorted({*last_convolutions(graph), *depthwise})


def last_convolutions(graph: Any) -> list[str]:
    """Return the names of the convolutions after which no other comes on the way to an output."""
    makers = {name: node for node in graph.node for name in node.output}
    found, seen, left = list[str](), set[str](), [value.name for value in graph.output]
    while left:
        name = left.pop()
        if name in seen or name not in makers:
            continue
        seen.add(name)
        node = makers[name]
        if node.op_type == CONVOLUTION:
            found.append(node.name)
        else:
            left += node.input
    return sorted(set(found))


def _plain(data: bytes) -> bytes:
    """Return a graph that asks for the standard operators alone: engines list their own even where they use none."""
    onnx = _onnx()
    model = onnx.load_from_string(data)
    used: Sequence[str] = sorted({node.domain for node in model.graph.node})
    kept = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx") or entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    del model.metadata_props[:]
    model.producer_name, model.producer_version = "openlepton", ""
    plain: bytes = model.SerializeToString()
    return plain


def _onnx() -> Any:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "train") from None
    return onnx
