"""What the networks are made of, as functions from tensor to tensor, `(B, H, W, C)` throughout.

Each is the twin of a module of `openlepton.nets`; a layer has the module's path as its name, so weights move by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openlepton.nets.blocks import Activation
from openlepton.tf.imports import keras, tf

Tensor = Any
"""A tensor of TensorFlow, or of Keras while a network is put together."""

Layers = keras.layers


class BatchNorm(keras.layers.BatchNormalization):
    """Batch norm in TensorFlow's one operation: faster than in six, and its running variance is the unbiased one, as in torch."""

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        """Return `inputs` normalised, by their own statistics where `training`."""
        training = bool(training) and self.trainable
        mean, variance = (self.moving_mean, self.moving_variance)
        y, own_mean, own_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=tf.zeros(0) if training else tf.convert_to_tensor(mean),
            variance=tf.zeros(0) if training else tf.convert_to_tensor(variance),
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            mean.assign(mean * self.momentum + own_mean * (1 - self.momentum))
            variance.assign(variance * self.momentum + own_variance * (1 - self.momentum))
        return y


class Function(keras.layers.Layer):
    """A function of tensors as a layer without weights."""

    def __init__(self, function: Callable[..., Any], **settings: Any) -> None:
        super().__init__(**settings)
        self.function = function

    def call(self, inputs: Tensor) -> Tensor:
        """Return what the function gives."""
        return self.function(inputs)


class SomeBranches(keras.layers.Layer):
    """Stochastic depth (arXiv:1603.09382): training keeps a residual branch with probability `survival`, drawn for each image."""

    def __init__(self, survival: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.survival, self.seed_generator = survival, keras.random.SeedGenerator(0)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return `inputs`, and where `training` zeros in place of some images, the others enlarged to make up for it."""
        if not (training and self.trainable):
            return inputs
        drawn = keras.random.uniform((tf.shape(inputs)[0], 1, 1, 1), seed=self.seed_generator)
        return tf.where(drawn < self.survival, inputs / self.survival, tf.zeros_like(inputs))


def fresh() -> Any:
    """Return how torch fills new kernels."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


@dataclass(frozen=True)
class Maker:
    """Makes the blocks of one network.

    Attributes:
        act: What follows every batch norm.
        eps: Of batch norms.
        normalized: Whether there are batch norms; without, convolutions have biases that stand for them.
    """

    act: Activation = "silu"
    eps: float = 1e-3
    normalized: bool = True

    def conv(
        self, x: Tensor, path: str, cout: int, kernel: int = 1, stride: int = 1, *, pad: int | None = None
    ) -> Tensor:
        """Return `(B, H / stride, W / stride, cout)`: convolution, batch norm, activation."""
        pad = kernel // 2 if pad is None else pad
        if stride > 1 and pad:  # "same" would pad one side alone
            x = Layers.ZeroPadding2D(pad, name=f"{path}.pad")(x)
        x = Layers.Conv2D(
            cout,
            kernel,
            stride,
            "valid" if stride > 1 else "same",
            use_bias=not self.normalized,
            kernel_initializer=fresh(),
            name=f"{path}.conv",
        )(x)
        if self.normalized:
            x = BatchNorm(momentum=0.97, epsilon=self.eps, name=f"{path}.bn")(x)
        return activation(x, self.act, f"{path}.act")


def activation(x: Tensor, act: Activation, name: str) -> Tensor:
    """Return the activation of `x`."""
    if act == "leaky_relu":
        return Layers.LeakyReLU(0.1, name=name)(x)
    return Layers.Activation({"hardswish": "hard_silu"}.get(act, act), name=name)(x)


def linear(x: Tensor, path: str, cout: int) -> Tensor:
    """Return `(B, H, W, cout)`: a 1x1 convolution with biases, the last of a head."""
    return Layers.Conv2D(cout, 1, kernel_initializer=fresh(), name=path)(x)


def concat(xs: list[Tensor], path: str) -> Tensor:
    """Return the maps side by side."""
    return Layers.Concatenate(name=f"{path}.concat")(xs)


def upsample(x: Tensor, path: str) -> Tensor:
    """Return every pixel four times, `(B, 2 * H, 2 * W, C)`."""
    return Function(_doubled, name=f"{path}.upsample")(x)


def _doubled(x: Tensor) -> Tensor:
    height, width = sides(x)
    return tf.image.resize(x, (2 * height, 2 * width), "nearest")


def pool(x: Tensor, path: str, kernel: int, stride: int = 1) -> Tensor:
    """Return the maxima of squares of `kernel` pixels; what lies outside of the map is no maximum."""
    return Layers.MaxPooling2D(kernel, stride, "same", name=path)(x)


def channels_last(images: Tensor) -> Tensor:
    """Return `(B, 3, H, W)`, as the contract has it, as `(B, H, W, 3)`."""
    return Function(_last, name="channels_last")(images)


def _last(x: Tensor) -> Tensor:
    return tf.transpose(x, (0, 2, 3, 1))


def sides(x: Tensor) -> tuple[Any, Any]:
    """Return height and width of `(B, H, W, C)`, as numbers where they are known before anything runs."""
    shape = tf.shape(x)
    height, width = (shape[axis] if x.shape[axis] is None else x.shape[axis] for axis in (1, 2))
    return height, width
