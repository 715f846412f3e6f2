"""Runs `saved_model.pb` with TensorFlow: checked first, imported from the bytes that were checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from openlepton.arrays import Array, Tensors
from openlepton.card import ModelFolder
from openlepton.errors import CardInvalid, ModelFailed, ModelFormatRefused, UsageError
from openlepton.runtimes.contract import Dims, agree, line
from openlepton.runtimes.onnx_check import Port
from openlepton.tf.imports import tf
from openlepton.tf.savedmodel import FILE_NAME, checked


class TfRuntime:
    """A network that TensorFlow runs: arrays in, arrays out, from any number of threads at once.

    Args:
        folder: The model; its `saved_model.pb` is verified, checked and then imported.
        threads: How many threads one call uses; 0 for what TensorFlow has. It is a number of the whole process, which can
            be chosen only until TensorFlow first computes.

    Raises:
        CardInvalid: The model has no SavedModel; `openlepton export` makes one.
        ModelCorrupt: The file differs from its card.
        ModelFormatRefused: The file is more than a network, or not the network that the card says.
        ModelFailed: TensorFlow cannot import it.
        UsageError: `threads` is negative, or it is too late to choose it.
    """

    def __init__(self, folder: ModelFolder, *, threads: int = 0) -> None:
        set_threads(threads)
        if FILE_NAME not in folder.card.files:
            raise CardInvalid(
                f"{folder.path}: has no {FILE_NAME}: make one with: openlepton export {folder.path} --to savedmodel"
            )
        where = str(folder.path / FILE_NAME)
        graph, inputs, outputs = checked(folder.read(FILE_NAME), where)
        self._ports = agree(_ports(inputs), _ports(outputs), folder.card, where)
        self._function = _imported(graph, inputs, outputs, list(self._ports.outputs), where)

    @property
    def name(self) -> str:
        """What runs the graph."""
        return "tensorflow"

    @property
    def threads(self) -> int:
        """How many threads one call uses; 0 where TensorFlow chooses."""
        return int(tf.config.threading.get_intra_op_parallelism_threads())

    @property
    def inputs(self) -> Mapping[str, Dims]:
        """What the graph takes: sizes by name, a letter where any size will do."""
        return self._ports.inputs

    @property
    def outputs(self) -> Mapping[str, Dims]:
        """What the graph gives, likewise."""
        return self._ports.outputs

    def __call__(self, inputs: Mapping[str, Array]) -> Tensors:
        """Return the graph's outputs by name, for `images (B,3,H,W)` float32 0..1 RGB.

        Raises:
            ShapeError: An input is missing, unknown, or of another type or shape than the graph takes.
            ModelFailed: TensorFlow cannot run the graph on these inputs, or gives other shapes than the contract's.
        """
        letters = self._ports.check_inputs(inputs)
        try:
            values = [value.numpy() for value in self._function(tf.constant(inputs["images"]))]
        except tf.errors.OpError as error:
            raise self._ports.failed(inputs, error.message) from None
        return self._ports.check_outputs(values, letters)

    def __repr__(self) -> str:
        return f"<TfRuntime: {self._ports.where}>"


class ModelRuntime:
    """A Keras network run as a runtime runs a graph, for what is not written yet.

    Args:
        model: From images to outputs by name, as `build` gives it.
    """

    def __init__(self, model: Any) -> None:
        spec = tf.TensorSpec(model.inputs[0].shape, tf.float32)
        self._function = tf.function(lambda images: model(images, training=False), input_signature=[spec])

    def __call__(self, inputs: Mapping[str, Array]) -> Tensors:
        """Return the outputs by name, for `images (B,3,H,W)` float32 0..1 RGB."""
        outputs = self._function(tf.constant(inputs["images"]))
        return {name: np.asarray(value) for name, value in outputs.items()}


def set_threads(threads: int) -> None:
    """Set how many threads TensorFlow uses for one operation; 0 leaves it as it is.

    Raises:
        UsageError: The number is negative, or TensorFlow has computed already.
    """
    if threads < 0:
        raise UsageError(f"threads: expected 0 (as TensorFlow has it) or more, got {threads}")
    if threads and threads != tf.config.threading.get_intra_op_parallelism_threads():
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        except RuntimeError:
            raise UsageError(
                "threads: TensorFlow has computed already, and its threads cannot be chosen any more"
            ) from None


def _ports(infos: Mapping[str, Any]) -> list[Port]:
    """Return what a signature says of its tensors."""
    ports = []
    for name, info in infos.items():
        try:
            dtype = tf.as_dtype(info.dtype).name
        except TypeError:
            dtype = ""
        unknown = info.tensor_shape.unknown_rank
        dims = None if unknown else tuple(dim.size if dim.size >= 0 else "" for dim in info.tensor_shape.dim)
        ports.append(Port(name, dtype, dims))
    return ports


def _imported(graph: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any], names: list[str], where: str) -> Any:
    """Return a function from images to the outputs in the order of `names`."""
    try:
        whole = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(graph, name=""), [])
        return whole.prune(inputs["images"].name, [outputs[name].name for name in names])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFormatRefused(f"{where}: not a graph that TensorFlow imports: {line(str(error))}") from None
    except tf.errors.OpError as error:
        raise ModelFailed(f"{where}: TensorFlow {tf.__version__} cannot import it: {line(error.message)}") from None
