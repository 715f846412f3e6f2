"""A U-Net (Ronneberger et al. 2015) over EfficientNet-Lite: a class for each pixel, on small machines.

The encoder is EfficientNet-Lite without its last stage, under the same tensor names, so that weights for ImageNet go in by name.
Each step of the decoder doubles the map, joins it with what the encoder saw at that size, and convolves once. Decoders that
convolve depthwise, add, stop earlier, or are DeepLabV3+'s were compared with it: recipes/unet_nuclei.py, docs/segment.md.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openlepton.errors import UsageError
from openlepton.nets import efficientnet
from openlepton.nets.blocks import fuse_children
from openlepton.nets.efficientnet import Block, ConvNorm, normalize
from openlepton.nets.losses import LossConfig
from openlepton.nets.semantic_loss import SemanticLoss


@dataclass(frozen=True)
class Config:
    """What distinguishes one of these networks from another.

    Attributes:
        encoder: Size of the EfficientNet-Lite: lite0, lite1, lite2.
        classes: Number of classes.
        widths: Channels of each step of the decoder, coarsest first; the last map has half the height and width of the image.
    """

    encoder: str
    classes: int = 2
    widths: tuple[int, ...] = (96, 64, 32, 24)

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise UsageError(f"classes: expected at least 2, got {self.classes}")
        if len(self.widths) != 4:
            raise UsageError(f"widths: expected four, got {len(self.widths)}")


class Step(nn.Module):
    """`(B, in, H, W)` and `(B, skip, 2 * H, 2 * W)` to `(B, out, 2 * H, 2 * W)`."""

    def __init__(self, cin: int, skip: int, cout: int) -> None:
        super().__init__()
        self.conv = ConvNorm(cin + skip, cout, 3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return `(B, out, 2 * H, 2 * W)`."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")  # (B, in, 2 * H, 2 * W)
        y: Tensor = self.conv(torch.cat((x, skip), 1))
        return y


def follow(fresh: nn.Module) -> None:
    """Let batch norms follow what comes to them ten times as fast as the encoder's, which ImageNet has settled.

    At the encoder's pace a training of a hundred steps would end while they still hold a third of what they began with.
    """
    for module in fresh.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1


class UNet(nn.Module):
    """A semantic segmenter; calling it gives logits for training, `decode` turns them into probabilities."""

    outputs: tuple[str, ...] = ("scores",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        whole = efficientnet.build(config.encoder, 1)
        self.stem, self.blocks = whole.stem, nn.Sequential(*list(whole.blocks)[:-1])
        channels = self._channels()
        self.steps = nn.ModuleList(
            Step(cin, skip, cout)
            for cin, skip, cout in zip((channels[-1], *config.widths), channels[-2::-1], config.widths, strict=False)
        )
        for step in self.steps:
            follow(step)
        self.classifier = nn.Conv2d(config.widths[-1], config.classes, 1)

    @property
    def multiple(self) -> int:
        """What height and width of the images must be divisible by."""
        return 32

    @property
    def stages(self) -> tuple[Sequence[nn.Module], int]:
        """Its parts from the image on, and how many of them are the encoder."""
        return [self.stem, *self.blocks, *self.steps, self.classifier], 1 + len(self.blocks)

    def criterion(self, weights: LossConfig, size: int) -> SemanticLoss:
        """Return the loss, the same for every `size`."""
        return SemanticLoss(weights)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(B, C, H / 2, W / 2)` of `images` `(B, 3, H, W)` float32 0..1 RGB; `multiple` divides H and W."""
        x, skips = self.stem(normalize(images)), list[Tensor]()
        for block in self.blocks:
            if _halves(block):
                skips.append(x)
            x = block(x)
        # skips: (B, 16, H / 2, W / 2), (B, 24, H / 4, W / 4), (B, 40, H / 8, W / 8), (B, 112, H / 16, W / 16)
        for step in self.steps:
            x = step(x, skips.pop())
        logits: Tensor = self.classifier(x)  # (B, C, H / 2, W / 2)
        return logits

    def decode(self, logits: Tensor) -> Tensor:
        """Return probabilities `(B, C, H / 2, W / 2)` that sum to 1 for each cell."""
        return logits.softmax(1)

    def fused(self) -> Self:
        """Return an equal network for inference: batch norms inside convolutions."""
        fused = copy.deepcopy(self).eval()
        fuse_children(fused)
        return fused

    def _channels(self) -> list[int]:
        """Return the channels of the maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image."""
        channels, last = list[int](), 0
        for block in self.blocks:
            if _halves(block):
                channels.append(last)
            assert isinstance(block, Block)
            last = block.project.conv.out_channels
        return [*channels, last]


def _halves(block: nn.Module) -> bool:
    return isinstance(block, Block) and block.depthwise.stride == 2


def build(encoder: str, classes: int = 2, **changes: object) -> UNet:
    """Return the network over an `encoder` (lite0, lite1, lite2) with fresh weights; `changes` are fields of `Config`."""
    return UNet(replace(Config(encoder, classes), **changes))  # type: ignore[arg-type]
