"""EfficientNet-Lite: image classifiers for small machines.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019), in the variant that
TensorFlow published in 2020 as "lite": no squeeze-and-excitation, ReLU6 in place of swish, a stem and a head that never
scale, a first and a last stage that never deepen. Padding is TensorFlow's SAME, so that its weights give its numbers.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openlepton.errors import UsageError
from openlepton.nets.blocks import fuse, fuse_children
from openlepton.nets.classifier_loss import ClassifierLoss
from openlepton.nets.losses import LossConfig


@dataclass(frozen=True)
class Config:
    """How far the network is scaled, and how many classes it tells apart."""

    width: float
    """Multiplies the channels of every stage, rounded to multiples of 8."""
    depth: float
    """Multiplies the blocks of every stage but the first and the last, rounded up."""
    size: int
    """Height and width that it is trained for, pixels; it accepts others."""
    dropout: float
    """Share of the pooled features that training drops."""
    survival: float = 0.8
    """Probability that training keeps the last residual branch; it falls linearly from 1 at the first block."""
    classes: int = 1000
    multi_label: bool = False
    """Whether classes do not exclude each other."""

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UsageError(f"classes: expected at least 1, got {self.classes}")


SIZES = {
    "lite0": Config(width=1.0, depth=1.0, size=224, dropout=0.2),
    "lite1": Config(width=1.0, depth=1.1, size=240, dropout=0.2),
    "lite2": Config(width=1.1, depth=1.2, size=260, dropout=0.3),
}


@dataclass(frozen=True)
class Stage:
    """One row of the paper's Table 1: `depth` inverted bottlenecks, the first of which has the stride."""

    depth: int
    kernel: int
    stride: int
    expand: int
    """Width inside the bottleneck, as a multiple of the width that comes in."""
    width: int
    """Channels that come out."""


STEM_WIDTH = 32
STAGES = (
    Stage(depth=1, kernel=3, stride=1, expand=1, width=16),
    Stage(depth=2, kernel=3, stride=2, expand=6, width=24),
    Stage(depth=2, kernel=5, stride=2, expand=6, width=40),
    Stage(depth=3, kernel=3, stride=2, expand=6, width=80),
    Stage(depth=3, kernel=5, stride=1, expand=6, width=112),
    Stage(depth=4, kernel=5, stride=2, expand=6, width=192),
    Stage(depth=1, kernel=3, stride=1, expand=6, width=320),
)
HEAD_WIDTH = 1280


def scaled_width(channels: int, factor: float) -> int:
    """Return the multiple of 8 nearest to `channels * factor`, or the next one where that loses more than a tenth."""
    wanted = channels * factor
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * wanted else nearest + 8


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after an axis of `size`, as TensorFlow's SAME has them: the odd one comes after."""
    total = max((ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class ConvNorm(nn.Module):
    """`(B, in, H, W)` to `(B, out, H / stride, W / stride)`: convolution, batch norm, and ReLU6 unless `linear`."""

    def __init__(
        self, cin: int, cout: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.groups, self.linear = kernel, stride, groups, linear
        self.conv = nn.Conv2d(cin, cout, kernel, stride, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(cout, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, ceil(H / stride), ceil(W / stride))`."""
        height, width = int(x.shape[2]), int(x.shape[3])  # plain numbers, so that an exported graph pads by constants
        top, bottom = same_padding(height, self.kernel, self.stride)
        left, right = same_padding(width, self.kernel, self.stride)
        if (top, left) != (bottom, right):
            # The value is stated because ONNX Runtime makes padding a part of the convolution only where a graph says it.
            x = F.pad(x, (left, right, top, bottom), value=0.0)  # (B, in, top + H + bottom, left + W + right)
            top = left = 0
        w, b = self.conv.weight, self.conv.bias
        x = F.conv2d(x, w, b, self.stride, (top, left), 1, self.groups)  # (B, out, H / stride, W / stride)
        x = self.bn(x)
        return x if self.linear else F.relu6(x)

    def fused(self) -> Self:
        """Return an equal block whose convolution has a bias and whose batch norm is gone."""
        fused = copy.copy(self)
        fused._modules = {"conv": fuse(self.conv, self.bn), "bn": nn.Identity()}
        return fused


class Block(nn.Module):
    """Inverted bottleneck (MobileNetV2): widen, convolve each channel, narrow; add the input where shapes allow."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expand: int, survival: float) -> None:
        super().__init__()
        inner = cin * expand
        self.expand = ConvNorm(cin, inner) if expand > 1 else nn.Identity()
        self.depthwise = ConvNorm(inner, inner, kernel, stride, groups=inner)
        self.project = ConvNorm(inner, cout, linear=True)
        self.residual = stride == 1 and cin == cout
        self.survival = survival

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, ceil(H / stride), ceil(W / stride))`."""
        y: Tensor = self.expand(x)  # (B, inner, H, W)
        y = self.depthwise(y)  # (B, inner, H / stride, W / stride)
        y = self.project(y)  # (B, out, H / stride, W / stride)
        if not self.residual:
            return y
        if self.training and self.survival < 1:  # stochastic depth (arXiv:1603.09382), drawn for each image
            y = y * torch.bernoulli(y.new_full((len(y), 1, 1, 1), self.survival)) / self.survival
        return x + y


class EfficientNetLite(nn.Module):
    """A classifier; calling it gives logits for training, `decode` turns them into probabilities."""

    outputs: tuple[str, ...] = ("scores",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.stem = ConvNorm(3, STEM_WIDTH, kernel=3, stride=2)
        self.blocks = nn.Sequential(*_blocks(config))
        self.head = ConvNorm(scaled_width(STAGES[-1].width, config.width), HEAD_WIDTH)
        self.classifier = nn.Linear(HEAD_WIDTH, config.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def multiple(self) -> int:
        """What height and width of the images must be divisible by."""
        return 1

    @property
    def stages(self) -> tuple[Sequence[nn.Module], int]:
        """Its parts from the image on, and how many of them are the backbone: all but the classifier."""
        stages = [self.stem, *self.blocks, self.head, self.classifier]
        return stages, len(stages) - 1

    def criterion(self, weights: LossConfig, size: int) -> ClassifierLoss:
        """Return the loss, the same for every `size`."""
        return ClassifierLoss(weights, multi_label=self.config.multi_label)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(B, classes)` of `images` `(B, 3, H, W)` float32 0..1 RGB."""
        return self.classify(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Return what the classifier sees of `images`, `(B, 1280)`."""
        x = normalize(images)
        x = self.stem(x)  # (B, 32, H / 2, W / 2)
        x = self.blocks(x)  # (B, 320 * width, H / 32, W / 32)
        x = self.head(x)  # (B, 1280, H / 32, W / 32)
        features: Tensor = x.mean((2, 3))
        return features

    def classify(self, features: Tensor) -> Tensor:
        """Return logits `(B, classes)`."""
        x = F.dropout(features, self.config.dropout, self.training)
        logits: Tensor = self.classifier(x)
        return logits

    def decode(self, logits: Tensor) -> Tensor:
        """Return probabilities `(B, classes)`, which sum to 1 for each image unless classes do not exclude each other."""
        return logits.sigmoid() if self.config.multi_label else logits.softmax(1)

    def fused(self) -> Self:
        """Return an equal network for inference: batch norms folded into convolutions."""
        fused = copy.deepcopy(self).eval()
        fuse_children(fused)
        return fused


def normalize(images: Tensor) -> Tensor:
    """Return `images` of 0 to 1 as TensorFlow's (pixel - 127) / 128."""
    x: Tensor = images * (255 / 128) - 127 / 128
    return x


def _blocks(config: Config) -> list[Block]:
    rows = []  # (in, out, kernel, stride, expand) of each block
    cin = STEM_WIDTH
    for stage in STAGES:
        cout = scaled_width(stage.width, config.width)
        fixed = stage in (STAGES[0], STAGES[-1])
        for index in range(stage.depth if fixed else ceil(stage.depth * config.depth)):
            rows.append((cin, cout, stage.kernel, stage.stride if index == 0 else 1, stage.expand))
            cin = cout
    fall = (1 - config.survival) / len(rows)
    return [Block(*row, survival=1 - fall * index) for index, row in enumerate(rows)]


def build(size: str, classes: int = 1000, **changes: object) -> EfficientNetLite:
    """Return the network of `size` (lite0, lite1, lite2) with fresh weights; `changes` are fields of `Config`."""
    if size not in SIZES:
        raise UsageError(f"size: expected one of {', '.join(SIZES)}, got {size!r}")
    return EfficientNetLite(replace(SIZES[size], classes=classes, **changes))  # type: ignore[arg-type]
