"""YOLOv5 classifiers (v6.2 to v7.0, 2022): the backbone of the detectors, and a head that pools it.

Tensor names and shapes are those of the published checkpoints (`model.0.conv.weight` ... `model.9.linear.weight`). Images are
normalised inside, by the mean and deviation of ImageNet.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openlepton.errors import UsageError
from openlepton.nets.blocks import Activation, Conv, fuse_children
from openlepton.nets.classifier_loss import ClassifierLoss
from openlepton.nets.losses import LossConfig
from openlepton.nets.yolov5 import C3, SIZES

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet, RGB, for pixels of 0 to 1."""

HEAD_WIDTH = 1280


@dataclass(frozen=True)
class Config:
    """What distinguishes one classifier from another.

    Attributes:
        depth: Factor on how often blocks repeat.
        width: Factor on channels of the backbone, rounded up to a multiple of eight.
        classes: Number of classes.
        size: Height and width that it is trained for, pixels; it accepts others.
        dropout: Share of the pooled features that training drops.
        activation: What follows every batch norm.
        multi_label: Whether classes do not exclude each other.
    """

    depth: float
    width: float
    classes: int = 1000
    size: int = 224
    dropout: float = 0.0
    activation: Activation = "silu"
    multi_label: bool = False

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UsageError(f"classes: expected at least 1, got {self.classes}")


class Classify(nn.Module):
    """The head: a 1x1 convolution to 1280 channels, whose means one linear layer weighs."""

    def __init__(self, cin: int, config: Config) -> None:
        super().__init__()
        self.conv = Conv(cin, HEAD_WIDTH, 1, act=config.activation)
        self.linear = nn.Linear(HEAD_WIDTH, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the linear layer sees, the means of the channels, `(B, 1280)`."""
        y: Tensor = self.conv(x)  # (B, 1280, H / 32, W / 32)
        return y.mean((2, 3))


class Yolov5Cls(nn.Module):
    """A classifier; calling it gives logits for training, `decode` turns them into probabilities."""

    outputs: tuple[str, ...] = ("scores",)
    reads: ClassVar[tuple[tuple[int, ...], ...]] = ((-1,),) * 10
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = nn.ModuleList(_layers(config))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)

    @property
    def multiple(self) -> int:
        """What height and width of the images must be divisible by."""
        return 1

    @property
    def head(self) -> Classify:
        """The last layer."""
        head = self.model[-1]
        assert isinstance(head, Classify)
        return head

    @property
    def stages(self) -> tuple[Sequence[nn.Module], int]:
        """Its parts from the image on, and how many of them are the backbone: all but the linear layer."""
        return [*self.model[:-1], self.head.conv, self.head.linear], len(self.model)

    def criterion(self, weights: LossConfig, size: int) -> ClassifierLoss:
        """Return the loss, the same for every `size`."""
        return ClassifierLoss(weights, multi_label=self.config.multi_label)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(B, classes)` of `images` `(B, 3, H, W)` float32 0..1 RGB."""
        return self.classify(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Return what the linear layer sees of `images`, `(B, 1280)`."""
        x = (images - self.mean) / self.deviation
        for layer in self.model:
            x = layer(x)
        return x

    def classify(self, features: Tensor) -> Tensor:
        """Return logits `(B, classes)`."""
        logits: Tensor = self.head.linear(F.dropout(features, self.config.dropout, self.training))
        return logits

    def decode(self, logits: Tensor) -> Tensor:
        """Return probabilities `(B, classes)`, which sum to 1 for each image unless classes do not exclude each other."""
        return logits.sigmoid() if self.config.multi_label else logits.softmax(1)

    def fused(self) -> Self:
        """Return an equal network for inference: batch norms inside convolutions."""
        fused = copy.deepcopy(self).eval()
        fuse_children(fused)
        return fused


def _layers(config: Config) -> list[nn.Module]:
    """Return the backbone of the detectors down to its last C3, and the head."""
    act = config.activation

    def width(c: int) -> int:
        return math.ceil(c * config.width / 8) * 8

    layers: list[nn.Module] = [Conv(3, width(64), 6, 2, pad=2, act=act)]
    for cin, cout, repeats in ((64, 128, 3), (128, 256, 6), (256, 512, 9), (512, 1024, 3)):
        layers.append(Conv(width(cin), width(cout), 3, 2, act=act))
        layers.append(C3(width(cout), width(cout), max(round(repeats * config.depth), 1), act=act))
    return [*layers, Classify(width(1024), config)]


def build(size: str, classes: int = 1000, **changes: object) -> Yolov5Cls:
    """Return the network of `size` (n, s, m, l, x) with fresh weights; `changes` are fields of `Config`."""
    if size not in SIZES:
        raise UsageError(f"size: expected one of {', '.join(SIZES)}, got {size!r}")
    depth, width = SIZES[size]
    return Yolov5Cls(replace(Config(depth, width, classes), **changes))  # type: ignore[arg-type]
