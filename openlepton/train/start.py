"""The network that a training starts from: its anchors, the weights it takes over, and what of it stands still."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from openlepton.card import ModelFolder, Task
from openlepton.errors import CheckpointMismatch, CheckpointRefused, ModelNotFound, UsageError
from openlepton.hub.folder import GRAPH, WEIGHTS
from openlepton.nets import NETS
from openlepton.nets.anchors import Anchors
from openlepton.nets.losses import Trainable
from openlepton.nets.restore import restore
from openlepton.runtimes.onnx_check import check_onnx


@dataclass(frozen=True)
class Taken:
    """What came of a set of weights."""

    source: str
    """Where they come from, in words."""
    taken: int
    """Tensors that fitted by name and shape."""
    left: tuple[str, ...]
    """Tensors of the network that keep their fresh weights."""
    unsettled: tuple[str, ...] = ()
    """Paths of batch norms whose scales were taken, but whose statistics the source does not hold."""


def task_of(architecture: str) -> Task:
    """Return what the networks of that name are for.

    Raises:
        UsageError: No network has that name.
    """
    if architecture not in NETS:
        raise UsageError(f"model: expected one of {', '.join(NETS)}, got {architecture!r}")
    return NETS[architecture].task


def build(architecture: str, classes: int, anchors: Anchors = (), *, size: int = 640, multi_label: bool = False) -> Any:
    """Return the network of that name with fresh weights, a `Trainable`.

    Args:
        architecture: A name in `NETS`.
        classes: How many.
        anchors: In pixels, the published ones by default.
        size: Of the images, pixels, for networks that see one size alone.
        multi_label: Whether the classes of a classifier do not exclude each other.
    """
    net = NETS[architecture]
    changes: dict[str, Any] = {"anchors": anchors} if anchors else {}
    changes |= {"multi_label": True} if multi_label else {}
    return net.build(classes=classes, **changes, **({"size": size} if net.fixed_size else {}))


def anchors_of(network: Any) -> Anchors:
    """Return the anchors of a network, in pixels; nothing where it has none."""
    found: Anchors = getattr(network.config, "anchors", ())
    return found


def read_weights(model: str | os.PathLike[str]) -> tuple[Mapping[str, Tensor], str]:
    """Return the tensors of a model, by its name or folder, or of a `.safetensors` file; and where they come from, in words.

    Of a model without `model.safetensors`, as models that ship are, they are those of its graph, which holds no statistics of
    batch norms.

    Raises:
        ModelNotFound: There is no such model, folder or file.
        CheckpointRefused: The file is not safetensors.
        CheckpointMismatch: The graph does not hold the weights of the architecture that the card names.
    """
    from openlepton.hub.index import find

    path = Path(model)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ModelNotFound(f"{path}: no such file")
        data, source = path.read_bytes(), path.name
    else:
        folder = find(model)
        source = f"{folder.card.name} {folder.card.version} ({folder.card.licence})"
        if WEIGHTS not in folder.card.files:
            return _from_graph(folder), source
        data = folder.read(WEIGHTS)
    try:
        return safetensors.torch.load(data), source
    except safetensors.SafetensorError as error:
        raise CheckpointRefused(f"{path}: not a safetensors file, or damaged: {error}") from None


def _from_graph(folder: ModelFolder) -> Mapping[str, Tensor]:
    """Return the weights that the graph of a model folder holds."""
    card = folder.card
    task_of(card.architecture)
    network = build(
        card.architecture,
        len(card.labels),
        card.detect.anchors if card.detect is not None else (),
        size=card.image_input.size,
    )
    data = folder.read(GRAPH)
    check_onnx(data, str(folder.path / GRAPH))
    try:
        return restore(data, network)
    except CheckpointMismatch as error:
        raise CheckpointMismatch(
            f"{folder.path}: has no {WEIGHTS}, and its weights cannot be taken from its graph: {error}"
        ) from None


def take_over(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> Taken:
    """Copy into `network` every tensor whose name and shape fit, and return how far that went; anchors are left alone.

    A name may have a prefix that all of them share, such as `averaged/`. The classes' outputs do not fit another number of
    classes and stay fresh.

    Raises:
        CheckpointMismatch: Nothing fits, or a number is not finite.
    """
    own = network.state_dict()
    for prefix in ("averaged/", "network/"):
        inner = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        if inner:
            weights = inner
            break
    fitting = {
        name: weights[name]
        for name, value in own.items()
        if name in weights and weights[name].shape == value.shape and not name.endswith(".anchors")
    }
    if not any(value.ndim == 4 for value in fitting.values()):
        raise CheckpointMismatch(f"{source}: no kernel in it fits the network by name and shape")
    for name, value in fitting.items():
        if not torch.isfinite(value).all():
            raise CheckpointMismatch(f"{source}: {name}: holds numbers that are not finite")
    with torch.no_grad():
        for name, value in fitting.items():
            own[name].copy_(value)
    bare = [
        name.removesuffix(".running_mean") for name in own if name.endswith(".running_mean") and name not in fitting
    ]
    unsettled = tuple(path for path in bare if f"{path}.weight" in fitting)
    return Taken(source, len(fitting), tuple(name for name in own if name not in fitting), unsettled)


def freeze(network: Trainable, layers: str) -> Sequence[nn.Module]:
    """Stop the training of the first `layers` (a number, or `backbone`) and return them: their statistics stand still too.

    Raises:
        UsageError: That would leave nothing to train.
    """
    if not layers:
        return ()
    stages, backbone = network.stages
    count = backbone if layers == "backbone" else int(layers)
    if count >= len(stages):
        raise UsageError(f"freeze: {layers} of the network's {len(stages)} layers leave nothing to train")
    for module in stages[:count]:
        module.requires_grad_(False)
    return list(stages[:count])
