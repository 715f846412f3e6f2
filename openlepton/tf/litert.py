"""Keras networks as LiteRT models: float32, or int8 with ranges from real images and what makes boxes and scores in float32."""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from openlepton.arrays import Array
from openlepton.tf.imports import tf
from openlepton.tf.savedmodel import SIGNATURE, TAG, save_savedmodel

FLOAT = frozenset({
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "DIV", "EXP", "FULLY_CONNECTED", "GATHER", "LEAKY_RELU", "LOGISTIC", "MAXIMUM",
    "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "NEG", "PACK", "PAD", "PADV2", "POW", "RELU", "RELU6", "RESHAPE",
    "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SOFTMAX", "SPLIT", "SPLIT_V", "SQUARE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TILE",
    "TRANSPOSE", "UNPACK",
})  # fmt: skip
"""What stays in float32 in an int8 model: everything but convolutions. A number between 0 and 640 has no room in eight bits."""


def converted(model: Any, *, inputs: Sequence[Mapping[str, Array]] = ()) -> bytes:
    """Return a Keras network as a LiteRT model with the signature `serving_default`: `images (1, 3, H, W)` to outputs by name.

    Args:
        model: What `build` gave for one size and one image, best with `fused=True`.
        inputs: `images (1, 3, H, W)` float32 0..1 RGB that give int8 its ranges; without any, the model computes in float32.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_savedmodel(model, folder)  # frozen: a graph with variables is more than a network
        return _converted(folder, inputs)


def _converted(folder: str, inputs: Sequence[Mapping[str, Array]]) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE], tags={TAG})
    if inputs:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _samples(inputs)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    quiet = contextlib.redirect_stderr(io.StringIO())
    if inputs:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _samples(inputs)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    with quiet:
        data: bytes = converter.convert()
        if inputs:
            data = _mixed(converter, inputs)
    return data


def _samples(inputs: Sequence[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
    for one in inputs:
        yield {"images": np.ascontiguousarray(one["images"], np.float32)}


def _mixed(converter: Any, inputs: Sequence[Mapping[str, Array]]) -> bytes:
    """Return the model with its convolutions in int8."""
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter,
        debug_dataset=lambda: _samples(inputs[:1]),
        debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=sorted(FLOAT)),
    )
    data: bytes = debugger.get_nondebug_quantized_model()
    return data
