"""The networks that have a twin in Keras: the table of them, and how one is put together."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from openlepton.arrays import Array
from openlepton.card import Task
from openlepton.errors import UsageError
from openlepton.nets import efficientnet as torch_efficientnet
from openlepton.nets import yolov3 as torch_yolov3
from openlepton.nets import yolov5 as torch_yolov5
from openlepton.nets.anchors import Anchors
from openlepton.nets.losses import LossConfig
from openlepton.tf import efficientnet, yolov3, yolov5
from openlepton.tf.blocks import Function, Tensor
from openlepton.tf.imports import keras
from openlepton.tf.losses import ClassifierLoss, Criterion, Yolov5Loss
from openlepton.tf.weights import read_weights, set_weights, variables
from openlepton.tf.yolov3_loss import Yolov3Loss
from openlepton.tf.yolov5_seg_loss import Yolov5SegLoss


@dataclass(frozen=True)
class Kind:
    """What distinguishes one architecture from another."""

    task: Task
    """As cards say it."""
    config: Callable[[], Any]
    """Gives the config of the published network, which is that of its twin in `nets`."""
    outputs: tuple[str, ...]
    forward: Callable[..., Any]
    """From config and images to raw maps or logits; with `normalized=False` without batch norms."""
    decode: Callable[[Any, Any], dict[str, Tensor]]
    """From config and these to the outputs by name."""
    multiple: Callable[[Any], int]
    """What height and width of the images must be divisible by."""
    criterion: Callable[[Any, LossConfig, int], Criterion]
    """From config, weights of the losses and size of the images to the loss."""
    priors: Callable[[Any], Mapping[str, Array]] = field(default=lambda config: {})
    """Biases of the last layers of a fresh network."""


def _detector(size: str) -> Kind:
    return Kind(
        "detect",
        partial(torch_yolov5.config_of, size),
        ("boxes", "scores"),
        yolov5.forward,
        yolov5.decode,
        lambda config: int(config.strides[-1]),
        Yolov5Loss,
        yolov5.priors,
    )


def _segmenter(size: str) -> Kind:
    return replace(
        _detector(size),
        task="segment",
        outputs=("boxes", "scores", "coeffs", "protos"),
        forward=partial(yolov5.forward, masks=True),
        decode=partial(yolov5.decode, masks=True),
        criterion=Yolov5SegLoss,
        priors=partial(yolov5.priors, masks=True),
    )


def _classifier(size: str) -> Kind:
    config = partial(replace, torch_efficientnet.SIZES[size])

    def criterion(config: torch_efficientnet.Config, weights: LossConfig, size: int) -> ClassifierLoss:
        return ClassifierLoss(weights, multi_label=config.multi_label)

    return Kind("classify", config, ("scores",), efficientnet.forward, efficientnet.decode, lambda config: 1, criterion)


KINDS: Mapping[str, Kind] = {
    **{f"efficientnet-{size}": _classifier(size) for size in torch_efficientnet.SIZES},
    "yolov3-tiny": Kind(
        "detect",
        partial(replace, torch_yolov3.KINDS["tiny"]),
        ("boxes", "scores"),
        yolov3.forward,
        yolov3.decode,
        lambda config: 32,
        lambda config, weights, size: Yolov3Loss(config, weights),
        yolov3.priors,
    ),
    **{f"yolov5{size}": _detector(size) for size in torch_yolov5.SIZES},
    **{f"yolov5{size}6": _detector(f"{size}6") for size in torch_yolov5.SIZES},
    **{f"yolov5{size}-seg": _segmenter(size) for size in torch_yolov5.SIZES},
}
"""Every network that has a twin, by the name that cards give as `architecture`."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network in Keras; its two models share their layers, so what trains one trains the other."""

    architecture: str
    config: Any
    """That of the network's twin in `nets`."""
    raw: Any
    """`keras.Model` from `images (B, 3, H, W)` RGB 0..1 to raw maps `(B, H / s, W / s, A * (5 + C))`, or logits; trained."""
    model: Any
    """`keras.Model` from these images to the outputs of the contract by name."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `model` gives."""
        return KINDS[self.architecture].outputs

    @property
    def multiple(self) -> int:
        """What height and width of the images must be divisible by."""
        return KINDS[self.architecture].multiple(self.config)

    def criterion(self, weights: LossConfig, size: int) -> Criterion:
        """Return the loss of what `raw` gives; `size` is the longest side of the images, pixels."""
        return KINDS[self.architecture].criterion(self.config, weights, size)

    def decode(self, raw: Any) -> dict[str, Tensor]:
        """Return the outputs by name from what `raw` gave."""
        return KINDS[self.architecture].decode(self.config, raw)

    def fused(self, *, size: int | tuple[int, int] | None = None, batch: int | None = None) -> "Network":
        """Return an equal network for inference: batch norms inside convolutions, computed in double precision.

        Args:
            size: Height and width of its images, as in `network`.
            batch: How many images it takes at a time, as in `network`.
        """
        fused = _assembled(self.architecture, self.config, size, batch, normalized=False)
        own = {layer.name: layer for layer in self.raw.layers}
        for layer in fused.raw.layers:
            if not layer.weights:
                continue
            given = own[layer.name]
            norm = own.get(f"{layer.name.removesuffix('.conv')}.bn") if layer.name.endswith(".conv") else None
            values = [value.numpy() for value in given.weights]
            layer.set_weights(values if norm is None else _folded(given, norm))
        return fused


def network(
    architecture: str,
    *,
    classes: int,
    anchors: Anchors = (),
    size: int | tuple[int, int] | None = None,
    batch: int | None = None,
    **changes: Any,
) -> Network:
    """Return a network with fresh weights.

    Args:
        architecture: A name in `KINDS`, such as `yolov5n`.
        classes: How many.
        anchors: In pixels, the published ones by default.
        size: Side of its images, or height and width; by default any that `multiple` divides.
        batch: How many images it takes at a time; any number by default.
        changes: Other fields of the config.

    Raises:
        UsageError: No twin has that name, or a value makes no sense.
    """
    if architecture not in KINDS:
        raise UsageError(f"{architecture}: has no twin in TensorFlow; those that have: {', '.join(KINDS)}")
    given: dict[str, Any] = {"classes": classes, **changes} | ({"anchors": anchors} if anchors else {})
    return of_config(architecture, replace(KINDS[architecture].config(), **given), size=size, batch=batch)


def of_config(
    architecture: str, config: Any, *, size: int | tuple[int, int] | None = None, batch: int | None = None
) -> Network:
    """Return a network with fresh weights for the config of its twin; the rest as in `network`."""
    made = _assembled(architecture, config, size, batch, normalized=True)
    for name, bias in KINDS[architecture].priors(config).items():
        made.raw.get_layer(name).bias.assign(bias)
    return made


def build(
    architecture: str,
    *,
    classes: int,
    anchors: Anchors = (),
    weights: Mapping[str, Array] | str | os.PathLike[str] | None = None,
    size: int | tuple[int, int] | None = None,
    batch: int | None = None,
    fused: bool = False,
    **changes: Any,
) -> Any:
    """Return a `keras.Model` from `images (B, 3, H, W)` RGB 0..1 to the outputs of the contract by name.

    Args:
        architecture: A name in `KINDS`, such as `yolov5n`.
        classes: How many.
        anchors: In pixels, the published ones by default.
        weights: Tensors by their names in torch, or a model's name or folder, or a `.safetensors`; fresh ones by default.
        size: Side of its images, or height and width; by default any that divides.
        batch: How many images it takes at a time; any number by default.
        fused: Whether batch norms are computed inside convolutions: faster, and not to be trained any more.
        changes: Other fields of the config.

    Raises:
        UsageError: No twin has that name, or a value makes no sense.
        CheckpointMismatch: The weights are not those of this network.
    """
    made = network(architecture, classes=classes, anchors=anchors, size=size, batch=batch, **changes)
    if weights is not None:
        set_weights(made.raw, weights if isinstance(weights, Mapping) else read_weights(weights))
    return made.fused(size=size, batch=batch).model if fused else made.model


def _assembled(
    architecture: str, config: Any, size: int | tuple[int, int] | None, batch: int | None, *, normalized: bool
) -> Network:
    kind = KINDS[architecture]
    multiple = kind.multiple(config)
    height, width = (size, size) if size is None or isinstance(size, int) else size
    if any(side is not None and (side < 1 or side % multiple) for side in (height, width)):
        raise UsageError(f"size: expected sides that {multiple} divides, got {height} x {width}")
    images = keras.Input((3, height, width), batch_size=batch, name="images")
    given = kind.forward(config, images, normalized=normalized)
    raw = keras.Model(images, given, name=architecture)
    decoded = Function(partial(kind.decode, config), name="decode")(given)
    return Network(architecture, config, raw, keras.Model(images, decoded, name=f"{architecture}_decoded"))


def _folded(conv: Any, norm: Any) -> list[Array]:
    """Return kernel and bias of one convolution equal to `norm(conv(x))`."""
    gamma, beta, mean, variance = (
        value.numpy().astype(np.float64) for value in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    scale = gamma / np.sqrt(variance + norm.epsilon)
    kernel = conv.kernel.numpy().astype(np.float64)
    kernel = kernel * (scale[:, None] if kernel.shape[2] == len(scale) and kernel.shape[3] == 1 else scale)
    return [kernel.astype(np.float32), (beta - mean * scale).astype(np.float32)]


def count(model: Any) -> int:
    """Return how many numbers the weights of a Keras network are, statistics of batch norms among them."""
    return sum(int(np.prod(variable.shape)) for _, variable, _ in variables(model))
