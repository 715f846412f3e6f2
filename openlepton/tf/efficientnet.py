"""EfficientNet-Lite in Keras: the twin of `nets/efficientnet.py`, in the padding that it came with."""

from math import ceil
from typing import Any

from openlepton.nets.efficientnet import HEAD_WIDTH, STAGES, STEM_WIDTH, Config, scaled_width
from openlepton.tf.blocks import BatchNorm, Function, Layers, SomeBranches, Tensor, activation, channels_last, fresh
from openlepton.tf.imports import keras, tf


def forward(config: Config, images: Tensor, *, normalized: bool = True) -> Tensor:
    """Return logits `(B, classes)` of `images` `(B, 3, H, W)` RGB, 0 to 1."""

    def block(x: Tensor, path: str, cout: int = 0, kernel: int = 1, stride: int = 1, *, linear: bool = False) -> Tensor:
        """Return convolution, batch norm and ReLU6; of each channel apart where `cout` is 0."""
        facts: dict[str, Any] = {"strides": stride, "padding": "same", "use_bias": not normalized}
        if cout:
            x = Layers.Conv2D(cout, kernel, kernel_initializer=_he(), name=f"{path}.conv", **facts)(x)
        else:
            x = Layers.DepthwiseConv2D(kernel, depthwise_initializer=_he(), name=f"{path}.conv", **facts)(x)
        if normalized:
            x = BatchNorm(momentum=0.99, epsilon=1e-3, name=f"{path}.bn")(x)
        return x if linear else activation(x, "relu6", f"{path}.act")  # type: ignore[arg-type]

    x = Function(_normalized, name="normalize")(channels_last(images))
    x = block(x, "stem", STEM_WIDTH, 3, 2)
    rows = _rows(config)
    fall = (1 - config.survival) / len(rows)
    for index, (cout, kernel, stride, expand) in enumerate(rows):
        path, given = f"blocks.{index}", x
        if expand > 1:
            x = block(x, f"{path}.expand", given.shape[-1] * expand)
        x = block(x, f"{path}.depthwise", 0, kernel, stride)
        x = block(x, f"{path}.project", cout, linear=True)
        if stride == 1 and given.shape[-1] == cout:
            survival = 1 - fall * index
            x = given + (SomeBranches(survival, name=f"{path}.branch")(x) if survival < 1 else x)
    x = block(x, "head", HEAD_WIDTH)
    x = Layers.GlobalAveragePooling2D(name="pool")(x)
    x = Layers.Dropout(config.dropout, seed=0, name="dropout")(x)
    return Layers.Dense(config.classes, kernel_initializer=fresh(), name="classifier")(x)


def decode(config: Config, logits: Tensor) -> dict[str, Tensor]:
    """Return `scores (B, classes)`."""
    return {"scores": tf.sigmoid(logits) if config.multi_label else tf.nn.softmax(logits)}


def _rows(config: Config) -> list[tuple[int, int, int, int]]:
    """Return width, kernel, stride and expansion of each block."""
    rows = []
    for stage in STAGES:
        fixed = stage in (STAGES[0], STAGES[-1])
        for index in range(stage.depth if fixed else ceil(stage.depth * config.depth)):
            width = scaled_width(stage.width, config.width)
            rows.append((width, stage.kernel, stage.stride if index == 0 else 1, stage.expand))
    return rows


def _normalized(x: Tensor) -> Tensor:
    return x * (255 / 128) - 127 / 128


def _he() -> Any:
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
