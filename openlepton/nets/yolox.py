"""YOLOX (Ge et al. 2021, arXiv:2107.08430): detectors without anchors, from Nano (depthwise) to X.

The published networks take BGR of 0 to 255 and begin with Focus; these take RGB of 0 to 1 and begin with the equal 6x6
convolution of stride 2, so published weights go in with that one kernel rearranged.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openlepton.errors import UsageError
from openlepton.nets.blocks import Activation, Conv, fuse_children
from openlepton.nets.losses import LossConfig
from openlepton.nets.yolox_loss import STRIDES, YoloxLoss, cells

PRIOR = 0.01
"""What objectness and classes begin with, so that the empty cells do not drown the others (RetinaNet, arXiv:1708.02002)."""


@dataclass(frozen=True)
class Config:
    """What distinguishes one YOLOX from another.

    Attributes:
        depth: Factor on how often blocks repeat.
        width: Factor on channels.
        classes: Number of classes.
        channels: Channels of the image.
        depthwise: Whether 3x3 convolutions are a depthwise and a 1x1 convolution, as in Nano.
        activation: What follows every batch norm.
    """

    depth: float
    width: float
    classes: int = 80
    channels: int = 3
    depthwise: bool = False
    activation: Activation = "silu"

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UsageError(f"classes: expected at least 1, got {self.classes}")

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level."""
        return STRIDES


SIZES: dict[str, tuple[float, float, bool]] = {
    "nano": (0.33, 0.25, True),
    "tiny": (0.33, 0.375, False),
    "s": (0.33, 0.50, False),
    "m": (0.67, 0.75, False),
    "l": (1.00, 1.00, False),
    "x": (1.33, 1.25, False),
}
"""Depth, width, and whether depthwise, of each size."""


def spatial(cin: int, cout: int, stride: int, config: Config) -> nn.Module:
    """Return the 3x3 convolution of a network: one, or depthwise and then 1x1."""
    act = config.activation
    if not config.depthwise:
        return Conv(cin, cout, 3, stride, act=act)
    return nn.Sequential(Conv(cin, cin, 3, stride, groups=cin, act=act), Conv(cin, cout, 1, act=act))


class Bottleneck(nn.Module):
    """1x1 then 3x3 convolution at `c` channels, the input added if `shortcut`."""

    def __init__(self, c: int, config: Config, *, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = Conv(c, c, 1, act=config.activation)
        self.conv2 = spatial(c, c, 1, config)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, c, H, W)`."""
        y: Tensor = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class Csp(nn.Module):
    """Cross stage partial block (CSPNet, arXiv:1911.11929): bottlenecks on half the channels beside a bypass."""

    def __init__(self, cin: int, cout: int, repeats: int, config: Config, *, shortcut: bool = True) -> None:
        super().__init__()
        c, act = cout // 2, config.activation
        self.conv1 = Conv(cin, c, 1, act=act)
        self.conv2 = Conv(cin, c, 1, act=act)
        self.m = nn.Sequential(*(Bottleneck(c, config, shortcut=shortcut) for _ in range(repeats)))
        self.conv3 = Conv(2 * c, cout, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, H, W)`."""
        main, bypass = self.conv1(x), self.conv2(x)
        y: Tensor = self.conv3(torch.cat((self.m(main), bypass), 1))
        return y


class Pools(nn.Module):
    """Spatial pyramid pooling (arXiv:1406.4729): max pools of 5, 9 and 13, computed as a chain of three of 5."""

    def __init__(self, c: int, *, act: Activation) -> None:
        super().__init__()
        self.conv1 = Conv(c, c // 2, 1, act=act)
        self.conv2 = Conv(c * 2, c, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, c, H, W)`."""
        maps = [self.conv1(x)]
        for _ in range(3):
            maps.append(F.max_pool2d(maps[-1], 5, 1, 2))
        y: Tensor = self.conv2(torch.cat(maps, 1))
        return y


class Head(nn.Module):
    """The decoupled head (section 2.1): on each level one branch for classes, one for places and objectness."""

    def __init__(self, channels: Sequence[int], config: Config) -> None:
        super().__init__()
        c, act = int(256 * config.width), config.activation
        self.stems = nn.ModuleList(Conv(cin, c, 1, act=act) for cin in channels)
        self.class_convs = nn.ModuleList(self._branch(c, config) for _ in channels)
        self.place_convs = nn.ModuleList(self._branch(c, config) for _ in channels)
        self.places = nn.ModuleList(nn.Conv2d(c, 4, 1) for _ in channels)
        self.objectness = nn.ModuleList(nn.Conv2d(c, 1, 1) for _ in channels)
        self.classes = nn.ModuleList(nn.Conv2d(c, config.classes, 1) for _ in channels)
        for conv in (*self.objectness, *self.classes):
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            nn.init.constant_(conv.bias, -math.log((1 - PRIOR) / PRIOR))

    @staticmethod
    def _branch(c: int, config: Config) -> nn.Sequential:
        return nn.Sequential(spatial(c, c, 1, config), spatial(c, c, 1, config))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the logits of each level, `(B, 5 + C, H, W)`: x, y, w, h, objectness, classes."""
        levels = []
        for level, x in enumerate(maps):
            x = self.stems[level](x)
            classes = self.classes[level](self.class_convs[level](x))
            x = self.place_convs[level](x)
            levels.append(torch.cat((self.places[level](x), self.objectness[level](x), classes), 1))
        return levels


class Yolox(nn.Module):
    """A YOLOX detector; calling it gives raw maps for training, `decode` turns them into boxes and scores."""

    outputs = ("boxes", "scores")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        act = config.activation
        c1, c2, c3, c4, c5 = (int(c * config.width) for c in (64, 128, 256, 512, 1024))
        few = max(round(3 * config.depth), 1)
        self.stem = Conv(config.channels, c1, 6, 2, pad=2, act=act)
        self.dark2 = nn.Sequential(spatial(c1, c2, 2, config), Csp(c2, c2, few, config))
        self.dark3 = nn.Sequential(spatial(c2, c3, 2, config), Csp(c3, c3, 3 * few, config))
        self.dark4 = nn.Sequential(spatial(c3, c4, 2, config), Csp(c4, c4, 3 * few, config))
        self.dark5 = nn.Sequential(
            spatial(c4, c5, 2, config), Pools(c5, act=act), Csp(c5, c5, few, config, shortcut=False)
        )
        self.lateral5 = Conv(c5, c4, 1, act=act)
        self.down4 = Csp(2 * c4, c4, few, config, shortcut=False)
        self.lateral4 = Conv(c4, c3, 1, act=act)
        self.down3 = Csp(2 * c3, c3, few, config, shortcut=False)
        self.stride3 = spatial(c3, c3, 2, config)
        self.up4 = Csp(2 * c3, c4, few, config, shortcut=False)
        self.stride4 = spatial(c4, c4, 2, config)
        self.up5 = Csp(2 * c4, c5, few, config, shortcut=False)
        self.head = Head((c3, c4, c5), config)

    @property
    def multiple(self) -> int:
        """What height and width of the images must be divisible by."""
        return STRIDES[-1]

    @property
    def stages(self) -> tuple[Sequence[nn.Module], int]:
        """Stem, four stages, eight parts of the pyramid and the head; the first five are the backbone."""
        return list(self.children()), 5

    def criterion(self, weights: LossConfig, size: int) -> YoloxLoss:
        """Return the loss, which is the same for every size."""
        return YoloxLoss(self.config, weights)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return raw maps `(B, 5 + C, H / s, W / s)` for every stride s, finest first.

        Args:
            images: `(B, 3, H, W)` RGB, 0 to 1; `multiple` divides H and W.
        """
        return self.levels(*self.features(images))

    def features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the backbone gives at strides 8, 16 and 32, each with twice the channels of the one before."""
        c3 = self.dark3(self.dark2(self.stem(images)))
        c4 = self.dark4(c3)
        return c3, c4, self.dark5(c4)

    def levels(self, c3: Tensor, c4: Tensor, c5: Tensor) -> list[Tensor]:
        """Return raw maps for every stride, as `forward` does, of what the backbone gave."""
        p5 = self.lateral5(c5)
        p4 = self.lateral4(self.down4(torch.cat((_twice(p5), c4), 1)))
        n3 = self.down3(torch.cat((_twice(p4), c3), 1))
        n4 = self.up4(torch.cat((self.stride3(n3), p4), 1))
        n5 = self.up5(torch.cat((self.stride4(n4), p5), 1))
        levels: list[Tensor] = self.head((n3, n4, n5))
        return levels

    def decode(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return boxes `(B, N, 4)` as x1, y1, x2, y2 in input pixels and scores `(B, N, C)`, objectness times class.

        Rows come level by level, then by row and column of the cell.
        """
        raw = torch.cat([level.flatten(2) for level in maps], 2).transpose(1, 2)  # (B, N, 5 + C)
        corners, sides = cells(maps)  # (N, 2), (N, 1)
        centres = (raw[..., :2] + corners) * sides
        halves = raw[..., 2:4].exp() * (sides / 2)
        scores = raw[..., 5:].sigmoid() * raw[..., 4:5].sigmoid()
        return torch.cat((centres - halves, centres + halves), 2), scores

    def fused(self) -> Self:
        """Return an equal network for inference: batch norms inside convolutions."""
        fused = copy.deepcopy(self).eval()
        fuse_children(fused)
        return fused


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def build(size: str, classes: int = 80, **changes: object) -> Yolox:
    """Return the network of `size` (nano, tiny, s, m, l, x) with fresh weights; `changes` are fields of `Config`."""
    if size not in SIZES:
        raise UsageError(f"size: expected one of {', '.join(SIZES)}, got {size!r}")
    depth, width, depthwise = SIZES[size]
    return Yolox(replace(Config(depth, width, classes, depthwise=depthwise), **changes))  # type: ignore[arg-type]
