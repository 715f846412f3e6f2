"""Encoders of texts to ONNX graphs that keep the contract of `openlepton.card`, in float32 or with int8 weights and arithmetic."""

import io
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from openlepton.errors import ParityFailed
from openlepton.nets.bert import Bert
from openlepton.nets.export import IR_VERSION, OPSET, open_graph

INPUTS = ("input_ids", "attention_mask")


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


def quantized(graph: bytes) -> bytes:
    """Return `graph` with matrices in int8, by column, and products of int8; what flows in between is quantized as it comes.

    Weights use seven bits: eight overflow in the 16-bit sums of processors without VNNI.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(graph)
        quantize_dynamic(before, after, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
        model = onnx.load(after)
    model.ir_version = IR_VERSION
    used = {node.domain for node in model.graph.node}
    kept = [one for one in model.opset_import if one.domain in used or not one.domain]
    del model.opset_import[:]
    model.opset_import.extend(kept)
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
