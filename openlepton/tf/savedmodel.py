"""SavedModels of one file: written frozen, so that nothing but `saved_model.pb` is needed; and read as if from a stranger.

A SavedModel is a program: TensorFlow's operations can read and write files. So before TensorFlow imports one, every operation in
it must be one that networks are made of. What is checked is what runs: the same bytes.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openlepton.errors import ModelFormatRefused, OutputError
from openlepton.files import write_atomic
from openlepton.tf.imports import tf

FILE_NAME = "saved_model.pb"
SIGNATURE = "serving_default"
TAG = "serve"

OPERATIONS = frozenset({
    "Add", "AddN", "AddV2", "AvgPool", "BiasAdd", "BroadcastTo", "Cast", "ConcatV2", "Const", "Conv2D",
    "DepthwiseConv2dNative", "Exp", "ExpandDims", "Fill", "FusedBatchNormV3", "GatherV2", "Identity", "IdentityN",
    "LeakyRelu", "MatMul", "Max", "MaxPool", "Maximum", "Mean", "Min", "Minimum", "Mul", "Neg", "NoOp", "Pack", "Pad",
    "PadV2", "Placeholder", "Prod", "Range", "RealDiv", "Relu", "Relu6", "Reshape", "ResizeNearestNeighbor", "Rsqrt",
    "Shape", "Sigmoid", "Size", "Slice", "Softmax", "Split", "SplitV", "Sqrt", "Square", "Squeeze", "StridedSlice", "Sub",
    "Sum", "Tanh", "Tile", "Transpose", "Unpack",
})  # fmt: skip
"""What a graph may consist of: arithmetic and shapes. None reads, writes, calls, loops or keeps anything."""

MAX_NODES = 100_000


def save_savedmodel(model: Any, folder: str | os.PathLike[str], *, size: int | tuple[int, int] | None = None) -> Path:
    """Write a Keras network as a SavedModel and return its one file, `saved_model.pb` in `folder`.

    Its signature `serving_default` takes `images (B, 3, H, W)` and gives the outputs by name. The weights are constants.

    Args:
        model: What `build` gave, best with `fused=True`.
        folder: Made if missing; other files in it stay, so it may be a model folder.
        size: Side of the images, or height and width; by default what the network was built for.

    Raises:
        OutputError: The file cannot be written.
    """
    out = Path(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}") from None
    write_atomic(out / FILE_NAME, frozen(model, size=size))
    return out / FILE_NAME


def frozen(model: Any, *, size: int | tuple[int, int] | None = None) -> bytes:
    """Return a Keras network as the bytes of a SavedModel whose weights are constants."""
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    batch, channels, *sides = model.inputs[0].shape
    if size is not None:
        sides = [size, size] if isinstance(size, int) else list(size)
    given = tf.TensorSpec((batch, channels, *sides), tf.float32, "images")
    names = sorted(model.output)
    concrete = tf.function(
        lambda images: [model(images, training=False)[name] for name in names]
    ).get_concrete_function(given)
    function = convert_variables_to_constants_v2(concrete)
    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta = saved.meta_graphs.add()
    meta.meta_info_def.tags.append(TAG)
    meta.meta_info_def.tensorflow_version = tf.__version__
    meta.graph_def.CopyFrom(function.graph.as_graph_def())
    signature = meta.signature_def[SIGNATURE]
    signature.method_name = "tensorflow/serving/predict"
    tensors = zip(("images", *names), (*function.inputs, *function.outputs), strict=True)
    for index, (name, tensor) in enumerate(tensors):
        info = (signature.outputs if index else signature.inputs)[name]
        info.name, info.dtype = tensor.name, tensor.dtype.as_datatype_enum
        info.tensor_shape.CopyFrom(tensor.shape.as_proto())
    data: bytes = saved.SerializeToString(deterministic=True)
    return data


def checked(data: bytes, where: str) -> tuple[Any, Mapping[str, Any], Mapping[str, Any]]:
    """Return the graph of a SavedModel, and what its signature calls its inputs and outputs.

    Raises:
        ModelFormatRefused: The file is no SavedModel, or not a frozen one, or does more than compute.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString(data)
    except DecodeError:
        raise ModelFormatRefused(f"{where}: not a SavedModel") from None
    if len(saved.meta_graphs) != 1:
        raise ModelFormatRefused(f"{where}: expected one graph in it, found {len(saved.meta_graphs)}")
    meta = saved.meta_graphs[0]
    graph = meta.graph_def
    if graph.library.function or graph.library.gradient:
        raise ModelFormatRefused(
            f"{where}: holds functions; what is run here is frozen and flat, as `export` writes it"
        )
    if len(graph.node) > MAX_NODES:
        raise ModelFormatRefused(f"{where}: more than {MAX_NODES:,} operations")
    foreign = sorted({node.op for node in graph.node} - OPERATIONS)
    if foreign:
        kinds = "".join(char if char.isprintable() else "?" for char in ", ".join(foreign)[:200])
        raise ModelFormatRefused(
            f"{where}: has operations that are not run: {kinds}; a frozen graph of a network has none"
        )
    if SIGNATURE not in meta.signature_def:
        raise ModelFormatRefused(f"{where}: has no signature {SIGNATURE}")
    signature = meta.signature_def[SIGNATURE]
    return graph, dict(signature.inputs), dict(signature.outputs)
