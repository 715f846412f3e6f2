"""The network that a training starts from: its anchors, the weights it takes over, and what of it stands still."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from openlepton.errors import CheckpointMismatch, CheckpointRefused, ModelNotFound, UsageError
from openlepton.nets import NETS, yolov5
from openlepton.nets.yolov5 import Anchors, Yolov5

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Taken:
    """What came of a set of weights."""

    source: str
    """Where they come from, in words."""
    taken: int
    """Tensors that fitted by name and shape."""
    left: tuple[str, ...]
    """Tensors of the network that keep their fresh weights."""


def detector(architecture: str, classes: int, anchors: Anchors | None = None) -> Yolov5:
    """Return the network of that name with fresh weights; `anchors` in pixels, the published ones by default.

    Raises:
        UsageError: No detector that can be trained has that name.
    """
    names = [name for name, net in NETS.items() if net.task == "detect"]
    if architecture not in names:
        raise UsageError(f"model: expected one of {', '.join(names)}, got {architecture!r}")
    changes = {} if anchors is None else {"anchors": anchors}
    return yolov5.build(architecture.removeprefix("yolov5"), classes, **changes)


def read_weights(model: str | os.PathLike[str]) -> tuple[Mapping[str, Tensor], str]:
    """Return the tensors of a model, by its name or folder, or of a `.safetensors` file; and where they come from, in words.

    Raises:
        ModelNotFound: There is no such model, folder or file, or the model has no `model.safetensors`.
        CheckpointRefused: The file is not safetensors.
    """
    from openlepton.hub.index import find

    path = Path(model)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ModelNotFound(f"{path}: no such file")
        data, source = path.read_bytes(), path.name
    else:
        folder = find(model)
        if WEIGHTS not in folder.card.files:
            raise ModelNotFound(f"{folder.path}: has no {WEIGHTS}, which training starts from")
        data, source = folder.read(WEIGHTS), f"{folder.card.name} {folder.card.version} ({folder.card.licence})"
    try:
        return safetensors.torch.load(data), source
    except safetensors.SafetensorError as error:
        raise CheckpointRefused(f"{path}: not a safetensors file, or damaged: {error}") from None


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
    return Taken(source, len(fitting), tuple(name for name in own if name not in fitting))


def freeze(network: Yolov5, layers: str) -> Sequence[nn.Module]:
    """Stop the training of the first `layers` (a number, or `backbone`) and return them: their statistics stand still too.

    Raises:
        UsageError: That would leave nothing to train.
    """
    if not layers:
        return ()
    upsample = next(index for index, module in enumerate(network.model) if isinstance(module, nn.Upsample))
    count = upsample - 1 if layers == "backbone" else int(layers)  # the neck begins with a convolution before it
    if count >= len(network.model):
        raise UsageError(f"freeze: {layers} of the network's {len(network.model)} layers leave nothing to train")
    for module in network.model[:count]:
        module.requires_grad_(False)
    return list(network.model[:count])
