"""Encoders of texts to ONNX graphs that keep the contract of `openlepton.card`, with weights in float32 or stored as int8."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from openlepton.errors import ParityFailed
from openlepton.nets.bert import Bert
from openlepton.nets.export import IR_VERSION, OPSET, open_graph

INPUTS = ("input_ids", "attention_mask")
SMALLEST = 4096
"""Numbers of a matrix that is worth storing as int8."""


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


def stored_int8(graph: bytes) -> bytes:
    """Return `graph` with matrices stored as int8 and a scale for each column, of embeddings for each row: a quarter of the size.

    The arithmetic stays float32, since runtimes widen weights once, when they load a graph. Products of int8 would take the range
    of what flows between layers from the whole batch, so that a text's scores depended on its neighbours, by 0.1 and more.
    """
    model = onnx.load_from_string(graph)
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    nodes, scales = [], []
    for weight in model.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or len(weight.dims) != 2 or np.prod(weight.dims) < SMALLEST:
            continue
        name, value = weight.name, numpy_helper.to_array(weight)
        axis = 1 if name in tables else 0
        scale = np.maximum(np.abs(value).max(axis, keepdims=True), 1e-12).astype(np.float32) / np.float32(127)
        weight.CopyFrom(numpy_helper.from_array(np.rint(value / scale).astype(np.int8), f"{name}.int8"))
        scales.append(numpy_helper.from_array(scale, f"{name}.scale"))
        nodes.append(
            helper.make_node("Cast", [f"{name}.int8"], [f"{name}.wide"], f"{name}.cast", to=onnx.TensorProto.FLOAT)
        )
        nodes.append(helper.make_node("Mul", [f"{name}.wide", f"{name}.scale"], [name], f"{name}.mul"))
    model.graph.initializer.extend(scales)
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


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
