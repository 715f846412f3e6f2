"""ONNX graphs in other arithmetic: weights as float32 or float16, and convolutions in int8 with ranges from real images.

int8 is simulated as the standard says (QuantizeLinear and DequantizeLinear around a convolution), so that any engine may fuse it.
Depthwise convolutions and the last one before each output stay in float32, and so does all that makes boxes and scores: a number
between 0 and 640 has no room in eight bits.
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openlepton.arrays import Array
from openlepton.errors import missing_extra
from openlepton.offline import import_onnxruntime, import_quantization

CONVOLUTION = "Conv"


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


def quantized(graph: bytes, inputs: Iterable[Mapping[str, Array]]) -> bytes:
    """Return a graph whose convolutions compute in int8, but for depthwise and last ones.

    Weights have a scale for each output channel and seven bits: where a processor adds products of eight bits in pairs, sixteen
    bits would overflow. Ranges of what flows between layers are those that `inputs` (what the graph takes) show.

    Raises:
        MissingExtra: onnx is not installed.
    """
    onnx = _onnx()
    tools = import_quantization()

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc, name-defined]
        """Gives the calibration one input after the other."""

        def __init__(self) -> None:
            self.inputs: Iterator[Mapping[str, Array]] = iter(inputs)

        def get_next(self) -> Any:
            """Return the next, or None after the last."""
            return next(self.inputs, None)

    with tempfile.TemporaryDirectory() as folder, _silent():
        wide, small = Path(folder) / "wide.onnx", Path(folder) / "int8.onnx"
        wide.write_bytes(widened(graph))
        tools.quantize_static(
            str(wide),
            str(small),
            Reader(),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=[CONVOLUTION],
            per_channel=True,
            reduce_range=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            nodes_to_exclude=exact_convolutions(onnx.load(wide).graph),
            extra_options={"ActivationSymmetric": False, "DedicatedQDQPair": False},
        )
        return _plain(small.read_bytes())


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what the quantiser advises its developers from the terminal; what fails is raised all the same."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


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
