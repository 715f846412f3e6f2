"""Encoders of texts to ONNX graphs that keep the contract of `openlepton.card`, in float32 or int8."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from openlepton.arrays import Array
from openlepton.errors import ParityFailed
from openlepton.nets.bert import Bert
from openlepton.nets.export import IR_VERSION, OPSET, open_graph

INPUTS = ("input_ids", "attention_mask")
SMALLEST = 4096
"""Numbers of a matrix that is worth making int8."""


class _Inference(nn.Module):
    def __init__(self, network: Bert) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.network.decode(self.network(ids, mask))


def export_encoder(network: Bert) -> bytes:
    """Return `network`, in evaluation mode, as an ONNX graph of any batch and any length of texts."""
    module = _Inference(network).eval().requires_grad_(False)
    example, buffer = torch.ones(2, 7, dtype=torch.int64), io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that tracing is the older way
        torch.onnx.export(
            module,
            (example, example),
            buffer,  # type: ignore[arg-type]  # tracing takes open files as well
            dynamo=False,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=["scores"],
            dynamic_axes={**{name: {0: "B", 1: "T"} for name in INPUTS}, "scores": {0: "B"}},
        )
    model = onnx.load_from_string(buffer.getvalue())
    model.ir_version = IR_VERSION
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = network.config.classes
    model.producer_name, model.producer_version = "openlepton", ""
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def in_int8(graph: bytes) -> bytes:
    """Return `graph` with its matrices as int8, a quarter of the size; products with them are of integers, twice as fast.

    Each row of what flows into a product, a token of a text, is rounded by its own largest number, so that no text's scores
    depend on its neighbours: one range for the whole batch, as runtimes take by themselves, moves scores by 0.1 and more. Weights
    use seven of the eight bits: with all of them, older processors' sums of two products do not fit into their 16 bits.
    Tables that rows are looked up in are stored as int8 and widened.
    """
    model = onnx.load_from_string(graph)
    weights = {one.name: one for one in model.graph.initializer if _is_worth_it(one)}
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    products = {node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    parts = _Parts(model.graph)
    for name in weights.keys() - products:
        parts.widen(weights[name], axis=1 if name in tables else 0)
    for node in [*model.graph.node]:
        if node.op_type == "MatMul" and node.input[1] in weights:
            parts.multiply(node, weights[node.input[1]])
        else:
            parts.nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(parts.nodes)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _is_worth_it(weight: onnx.TensorProto) -> bool:
    return weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) == 2 and np.prod(weight.dims) >= SMALLEST


class _Parts:
    """The nodes of a graph that is written anew, from first to last."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.rounded: dict[str, tuple[str, str]] = {}
        """Of what products read: its int8 rows, and what a step of each is worth."""

    def constant(self, name: str, value: Array) -> str:
        if all(one.name != name for one in self.graph.initializer):
            self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], f"{output}.{kind}", **attributes))
        return output

    def store(self, weight: onnx.TensorProto, axis: int, most: int) -> tuple[str, str]:
        """Make `weight` int8, -`most` to `most`; return its name and that of what a step is worth along `axis`."""
        name, value = weight.name, numpy_helper.to_array(weight)
        scale = np.maximum(np.abs(value).max(axis, keepdims=True), 1e-12).astype(np.float32) / np.float32(most)
        weight.CopyFrom(numpy_helper.from_array(np.rint(value / scale).astype(np.int8), f"{name}.int8"))
        return weight.name, self.constant(f"{name}.scale", scale)

    def widen(self, weight: onnx.TensorProto, axis: int) -> None:
        """Store `weight` as int8, and make it float32 before anything else happens: runtimes do so once, when they load a graph."""
        name = weight.name
        stored, scale = self.store(weight, axis, 127)
        self.node("Cast", [stored], f"{name}.wide", to=onnx.TensorProto.FLOAT)
        self.node("Mul", [f"{name}.wide", scale], name)

    def rows(self, x: str, width: int) -> tuple[str, str]:
        """Return `x` as `(rows, width)` uint8 around 128, and what a step of each row is worth, `(rows, 1)`."""
        if x not in self.rounded:
            shape = self.constant(f"rows.{width}", np.array([-1, width]))
            flat = self.node("Reshape", [x, shape], f"{x}.rows")
            size = self.node("ReduceMax", [self.node("Abs", [flat], f"{x}.size")], f"{x}.most", axes=[1], keepdims=0)
            some = self.node("Max", [size, self.constant("least", np.array(1e-8, np.float32))], f"{x}.some")
            scale = self.node("Mul", [some, self.constant("step", np.array(1 / 127, np.float32))], f"{x}.scale")
            count = self.node("Shape", [scale], f"{x}.count")
            middle = self.node("Expand", [self.constant("middle", np.array([128], np.uint8)), count], f"{x}.middle")
            rounded = self.node("QuantizeLinear", [flat, scale, middle], f"{x}.rounded", axis=0)
            column = self.constant("column", np.array([1]))
            self.rounded[x] = rounded, self.node("Unsqueeze", [scale, column], f"{x}.scales")
        return self.rounded[x]

    def multiply(self, product: onnx.NodeProto, weight: onnx.TensorProto) -> None:
        """Write `product`, `x @ weight`, as one of integers."""
        x, (y,), (width, wide) = product.input[0], product.output, weight.dims
        stored, scale = self.store(weight, 0, 64)
        rounded, scales = self.rows(x, width)
        middle = self.constant("zero", np.array(128, np.uint8))
        sums = self.node("MatMulInteger", [rounded, stored, middle], f"{y}.sums")
        sums = self.node("Cast", [sums], f"{y}.wide", to=onnx.TensorProto.FLOAT)
        sums = self.node("Mul", [self.node("Mul", [sums, scales], f"{y}.rows"), scale], f"{y}.columns")
        ends = [self.constant(f"at{place}", np.array([place])) for place in (0, -1)]
        others = self.node("Slice", [self.node("Shape", [x], f"{y}.shape"), *ends], f"{y}.others")
        shape = self.node("Concat", [others, self.constant(f"wide.{wide}", np.array([wide]))], f"{y}.sizes", axis=0)
        self.node("Reshape", [sums, shape], y)


def text_parity(network: Bert, graph: bytes, batches: Sequence[tuple[Tensor, Tensor]], *, tolerance: float) -> float:
    """Return the largest difference between the scores of `graph` and of `network` on `batches` of ids and masks.

    Raises:
        ParityFailed: It is more than `tolerance`, or not a number.
    """
    session, module, largest = open_graph(graph, threads=1), _Inference(network).eval(), 0.0
    for ids, mask in batches:
        with torch.no_grad():
            wanted = module(ids, mask).numpy()
        got = session.run(["scores"], dict(zip(INPUTS, (ids.numpy(), mask.numpy()), strict=True)))[0]
        difference = float(np.abs(wanted - got).max(initial=0))
        if not difference <= tolerance:  # also true for NaN
            raise ParityFailed(f"scores: differ by {difference:.3g}, at most {tolerance:g} allowed")
        largest = max(largest, difference)
    return largest
