"""Moves weights between torch and Keras by name, bit for bit: a torch name is the layer's name and what torch calls its tensor.

What is read is numbers alone, from safetensors: no file of Keras, whose configurations can name code, is ever opened.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from openlepton.arrays import Array
from openlepton.errors import CheckpointMismatch, CheckpointRefused, ModelNotFound, missing_extra
from openlepton.tf.imports import keras

WEIGHTS = "model.safetensors"

Order = tuple[int, ...]

_STRAIGHT: Order = ()
_NAMES: Mapping[type[Any], tuple[tuple[str, str, Order], ...]] = {
    keras.layers.DepthwiseConv2D: (("kernel", "weight", (2, 3, 0, 1)), ("bias", "bias", _STRAIGHT)),
    keras.layers.Conv2D: (("kernel", "weight", (2, 3, 1, 0)), ("bias", "bias", _STRAIGHT)),
    keras.layers.Dense: (("kernel", "weight", (1, 0)), ("bias", "bias", _STRAIGHT)),
    keras.layers.BatchNormalization: (
        ("gamma", "weight", _STRAIGHT),
        ("beta", "bias", _STRAIGHT),
        ("moving_mean", "running_mean", _STRAIGHT),
        ("moving_variance", "running_var", _STRAIGHT),
    ),
}
"""By kind of layer: the variable in Keras, in torch, and the axes in torch that are Keras's first, second, ..."""

IGNORED = ("num_batches_tracked", "anchors", "anchor_grid", "strides")
"""What torch keeps beside the weights, and what follows from the config or is not used."""


def variables(model: Any) -> Iterator[tuple[str, Any, Order]]:
    """Yield the name in torch, the variable and the order of axes of every weight, from the image on."""
    for layer in model.layers:
        for kind, names in _NAMES.items():
            if isinstance(layer, kind):
                for own, theirs, order in names:
                    variable = getattr(layer, own, None)
                    if variable is not None:
                        yield f"{layer.name}.{theirs}", variable, order
                break


def to_keras(value: Array, order: Order) -> Array:
    """Return a tensor of torch with Keras's order of axes."""
    return np.ascontiguousarray(value.transpose(order)) if order else value


def to_torch(value: Array, order: Order) -> Array:
    """Return a tensor of Keras with torch's order of axes."""
    return np.ascontiguousarray(value.transpose(np.argsort(order))) if order else value


def get_weights(model: Any) -> dict[str, Array]:
    """Return the weights of a Keras network under the names, and with the axes, that they have in torch."""
    return {name: to_torch(variable.numpy(), order) for name, variable, order in variables(model)}


def set_weights(model: Any, tensors: Mapping[str, Array]) -> None:
    """Give a Keras network the weights of its twin in torch, by name.

    Args:
        model: What `build` or `network(...).raw` is.
        tensors: All of them; of a torch network, `{name: value.numpy() for name, value in network.state_dict().items()}`.

    Raises:
        CheckpointMismatch: One is missing or of another shape, or there is one that the network has not.
    """
    own = list(variables(model))
    names = {name for name, _, _ in own}
    left = [name for name in tensors if name not in names and name.rpartition(".")[2] not in IGNORED]
    missing = [name for name in names if name not in tensors]
    if left or missing:
        raise CheckpointMismatch(
            f"weights: {len(missing)} missing{_such(missing)}, {len(left)} that the network has not{_such(left)}"
        )
    for name, variable, order in own:
        value = to_keras(np.asarray(tensors[name], np.float32), order)
        if value.shape != tuple(variable.shape):
            wanted = to_torch(np.zeros(variable.shape, np.bool_), order).shape
            raise CheckpointMismatch(f"weights: {name}: expected {wanted}, got {tensors[name].shape}")
        variable.assign(value)


def read_weights(model: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the tensors of a `.safetensors` file, or of a model by its name or folder, under their names in torch.

    Raises:
        ModelNotFound: There is no such model or file.
        CheckpointRefused: The file is not safetensors.
        CheckpointMismatch: The model has no weights beside its graph, and they cannot be taken from that.
    """
    try:
        import safetensors
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "tf") from None
    from openlepton.hub.index import find

    path = Path(model)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ModelNotFound(f"{path}: no such file")
        data = path.read_bytes()
    else:
        folder = find(model)
        if WEIGHTS not in folder.card.files:
            return _from_graph(os.fspath(model))
        data = folder.read(WEIGHTS)
    try:
        return dict(safetensors.numpy.load(data))
    except safetensors.SafetensorError as error:
        raise CheckpointRefused(f"{path}: not a safetensors file, or damaged: {error}") from None


def _from_graph(model: str) -> dict[str, Array]:
    """Return the weights that the graph of a model holds, with the statistics that belong to them: means 0, variances 1."""
    from openlepton.train.start import read_weights as of_graph

    found = {name: value.numpy() for name, value in of_graph(model)[0].items()}
    for name in [name for name in found if name.endswith(".bn.weight")]:
        path = name.removesuffix(".weight")
        found |= {f"{path}.running_mean": np.zeros_like(found[name]), f"{path}.running_var": np.ones_like(found[name])}
    return found


def _such(names: list[str]) -> str:
    return f" (such as {min(names)})" if names else ""
