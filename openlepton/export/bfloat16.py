"""What a processor with bfloat16 computes, on any processor: the same accuracy, not the same speed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from openlepton.arrays import Floats
from openlepton.errors import missing_extra
from openlepton.export.quantize import CONVOLUTION, widened


def computed_here() -> bool:
    """Return whether OpenVINO computes in bfloat16 on this processor; on others it computes in float32 all the same."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "openvino") from None
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def simulated(graph: bytes) -> bytes:
    """Return a graph whose convolutions take and give bfloat16 and add in float32, as the processor's instructions do.

    Raises:
        MissingExtra: onnx is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "train") from None
    model = onnx.load_from_string(widened(graph))
    held = {value.name: value for value in model.graph.initializer}
    nodes = list[Any]()
    for node in model.graph.node:
        if node.op_type != CONVOLUTION:
            nodes.append(node)
            continue
        source, weight, result = node.input[0], node.input[1], node.output[0]
        exact = onnx.numpy_helper.to_array(held[weight])
        held[weight].CopyFrom(onnx.numpy_helper.from_array(rounded(exact), weight))
        node.input[0], node.output[0] = f"{node.name}/taken", f"{node.name}/given"
        nodes += [*_casts(onnx, source, node.input[0]), node, *_casts(onnx, node.output[0], result)]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    data: bytes = model.SerializeToString()
    return data


def rounded(values: Floats) -> Floats:
    """Return float32 values rounded to the nearest bfloat16, of two equally near to the even one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    up = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + up) & np.uint32(0xFFFF0000)).view(np.float32)


def _casts(onnx: Any, source: str, result: str) -> Sequence[Any]:
    """Return the nodes that round a tensor."""
    kinds = onnx.TensorProto
    return [
        onnx.helper.make_node("Cast", [source], [f"{result}/bfloat16"], to=kinds.BFLOAT16),
        onnx.helper.make_node("Cast", [f"{result}/bfloat16"], [result], to=kinds.FLOAT),
    ]
