"""Reads an OpenVINO network's XML before the engine does, and refuses what is more than layers that compute, with weights inside.

The format: https://docs.openvino.ai, "OpenVINO IR format", version 11.
"""

import xml.etree.ElementTree as ET

from openlepton.errors import ModelFormatRefused
from openlepton.runtimes.contract import line

VERSIONS = ("10", "11")
MAX_BYTES = 64_000_000
"""Of the XML; that of a network with a thousand layers has one or two million."""

_NAMES = """
Abs AdaptiveAvgPool Add AvgPool Broadcast Ceiling Clamp Concat Const Convert Convolution ConvolutionBackpropData
DepthToSpace Divide Elu Equal Erf Exp FakeConvert FakeQuantize Floor Gather GatherElements GatherND Gelu Greater
GreaterEqual GroupConvolution GroupConvolutionBackpropData HSigmoid HSwish HardSigmoid Interpolate
LayerNormalization Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr MVN MatMul MaxPool Maximum Minimum
Mish Mod Multiply Negative NonZero NormalizeL2 NotEqual OneHot PReLU Pad Parameter Power Range ReLU ReduceMax
ReduceMean ReduceMin ReduceProd ReduceSum Reshape Result Round SelU Select ShapeOf Sigmoid Sign Slice SoftMax
SoftPlus Softmax SpaceToDepth Split Sqrt SquaredDifference Squeeze StridedSlice Subtract Swish Tanh Tile TopK
Transpose Unsqueeze VariadicSplit
"""
LAYERS = frozenset(_NAMES.split())
"""What a network may consist of: arithmetic and shapes, and nothing that calls, loops or remembers."""


def check_ir(xml: bytes, weights: int, name: str = "model.xml") -> None:
    """Refuse a network unless every layer is one that computes and its weights lie within `weights` bytes.

    Raises:
        ModelFormatRefused: It is no network of a known version, declares entities, or has other layers; the message says which.
    """
    if len(xml) > MAX_BYTES:
        raise ModelFormatRefused(f"{name}: a network's XML has at most {MAX_BYTES:,} bytes")
    if b"<!" in xml:
        raise ModelFormatRefused(f"{name}: has declarations or comments, which networks have not")
    try:
        root = ET.fromstring(xml)  # noqa: S314 - it declares no entities, see above
    except (ET.ParseError, ValueError, LookupError) as error:
        raise ModelFormatRefused(f"{name}: not an OpenVINO network: {line(str(error))}") from None
    if root.tag != "net" or root.get("version") not in VERSIONS:
        raise ModelFormatRefused(f"{name}: not an OpenVINO network of version {' or '.join(VERSIONS)}")
    for layer in root.iter("layer"):
        kind, opset = layer.get("type", ""), layer.get("version", "")
        if kind not in LAYERS or not opset.startswith("opset"):
            raise ModelFormatRefused(f"{name}: layers of the kind {line(f'{opset} {kind}')!r} are not run")
        for data in layer.findall("data") if kind == "Const" else ():
            offset, size = _number(data.get("offset")), _number(data.get("size"))
            if offset is None or size is None or offset + size > weights:
                raise ModelFormatRefused(f"{name}: a layer's weights lie outside the {weights:,} bytes that there are")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 16 else None
