"""YOLOv5 (Ultralytics, 2020-2022): the networks n, s, m, l, x and their P6 forms, as blocks, network and decode.

Tensor names and shapes are those of the published checkpoints (`model.0.conv.weight` ... `model.24.anchors`), so
weights load by name. `layout` tells the releases apart: "v6" (v6.0 to v7.0) begins with a 6x6 convolution and ends its
backbone with SPPF; "v5" (v5.0) begins with Focus, which is the same function, and has SPP before its last C3.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openlepton.errors import UsageError
from openlepton.nets.blocks import Activation, Conv, fuse_children
from openlepton.nets.losses import Criterion, LossConfig
from openlepton.nets.yolov5_heads import Detect, DetectApart, level_of
from openlepton.nets.yolov5_loss import Yolov5Loss

Anchors = tuple[tuple[tuple[float, float], ...], ...]
Layout = Literal["v6", "v5"]

ANCHORS_P5: Anchors = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
ANCHORS_P6: Anchors = (
    ((19, 27), (44, 40), (38, 94)),
    ((96, 68), (86, 152), (180, 137)),
    ((140, 301), (303, 264), (238, 542)),
    ((436, 615), (739, 380), (925, 792)),
)


@dataclass(frozen=True)
class Config:
    """What distinguishes one YOLOv5 from another.

    Attributes:
        depth: Factor on how often blocks repeat.
        width: Factor on channels, rounded up to a multiple of eight.
        classes: Number of classes.
        channels: Channels of the image.
        anchors: Widths and heights in pixels per level; three levels make the P5 network, four P6.
        layout: "v6" for v6.0 to v7.0, "v5" for v5.0.
        activation: What follows every batch norm.
        pools: Kernels of the pools in SPP (v5) beside the identity.
    """

    depth: float
    width: float
    classes: int = 80
    channels: int = 3
    anchors: Anchors = ANCHORS_P5
    layout: Layout = "v6"
    activation: Activation = "silu"
    pools: tuple[int, ...] = (5, 9, 13)

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UsageError(f"classes: expected at least 1, got {self.classes}")
        if len(self.anchors) not in (3, 4) or len({len(level) for level in self.anchors}) != 1 or not self.anchors[0]:
            raise UsageError("anchors: expected three or four levels (P5, P6), all with the same number of anchors")

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level."""
        return tuple(8 << level for level in range(len(self.anchors)))


SIZES: dict[str, tuple[float, float]] = {
    "n": (0.33, 0.25),
    "s": (0.33, 0.50),
    "m": (0.67, 0.75),
    "l": (1.00, 1.00),
    "x": (1.33, 1.25),
}
"""Depth and width of each size."""


class Bottleneck(nn.Module):
    """1x1 then 3x3 convolution at `c` channels, the input added if `shortcut`."""

    def __init__(self, c: int, *, shortcut: bool, act: Activation) -> None:
        super().__init__()
        self.cv1 = Conv(c, c, 1, act=act)
        self.cv2 = Conv(c, c, 3, act=act)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, c, H, W)`."""
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C3(nn.Module):
    """Cross stage partial block of three convolutions (CSPNet, arXiv:1911.11929): bottlenecks on half the channels."""

    def __init__(self, cin: int, cout: int, repeats: int, *, shortcut: bool = True, act: Activation = "silu") -> None:
        super().__init__()
        c = cout // 2
        self.cv1 = Conv(cin, c, 1, act=act)
        self.cv2 = Conv(cin, c, 1, act=act)
        self.cv3 = Conv(2 * c, cout, 1, act=act)
        self.m = nn.Sequential(*(Bottleneck(c, shortcut=shortcut, act=act) for _ in range(repeats)))

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, H, W)`."""
        y: Tensor = self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))
        return y


class SPP(nn.Module):
    """Spatial pyramid pooling (arXiv:1406.4729): max pools of several sizes side by side."""

    def __init__(self, cin: int, cout: int, pools: tuple[int, ...], *, act: Activation = "silu") -> None:
        super().__init__()
        c = cin // 2
        self.cv1 = Conv(cin, c, 1, act=act)
        self.cv2 = Conv(c * (len(pools) + 1), cout, 1, act=act)
        self.pools = pools

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, H, W)`."""
        x = self.cv1(x)
        y: Tensor = self.cv2(torch.cat((x, *(F.max_pool2d(x, k, 1, k // 2) for k in self.pools)), 1))
        return y


class SPPF(nn.Module):
    """SPP with pools 5, 9, 13, computed as a chain of three 5x5 pools."""

    def __init__(self, cin: int, cout: int, *, act: Activation = "silu") -> None:
        super().__init__()
        c = cin // 2
        self.cv1 = Conv(cin, c, 1, act=act)
        self.cv2 = Conv(c * 4, cout, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, H, W)`."""
        maps = [self.cv1(x)]
        for _ in range(3):
            maps.append(F.max_pool2d(maps[-1], 5, 1, 2))
        y: Tensor = self.cv2(torch.cat(maps, 1))
        return y


class Focus(nn.Module):
    """The four pixels of every 2x2 square side by side as channels, then a 3x3 convolution."""

    def __init__(self, cin: int, cout: int, *, act: Activation = "silu") -> None:
        super().__init__()
        self.conv = Conv(cin * 4, cout, 3, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, H / 2, W / 2)`."""
        squares = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
        y: Tensor = self.conv(torch.cat(squares, 1))
        return y

    def fused(self) -> Conv:
        """Return the equal 6x6 convolution of stride 2, its batch norm fused."""
        block = self.conv.fused()
        small = block.conv
        cin = small.in_channels // 4
        weight = small.weight.new_zeros(small.out_channels, cin, 6, 6)
        for square, (dy, dx) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
            weight[:, :, dy::2, dx::2] = small.weight.detach()[:, square * cin : (square + 1) * cin]
        block.conv = nn.Conv2d(cin, small.out_channels, 6, 2, 2)
        block.conv.weight, block.conv.bias, block.conv.scale = nn.Parameter(weight), small.bias, small.scale
        return block


class Concat(nn.Module):
    """Joins maps along channels; it exists so that the layers are numbered as in the field."""

    def forward(self, x: list[Tensor]) -> Tensor:
        """Return `(B, sum of channels, H, W)`."""
        return torch.cat(x, 1)


class Yolov5(nn.Module):
    """A YOLOv5 detector; calling it gives raw maps for training, `decode` turns them into boxes and scores."""

    outputs: tuple[str, ...] = ("boxes", "scores")
    head: ClassVar[type[Detect]] = Detect

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        modules, self.reads = _layers(config, self.head)
        self.model = nn.ModuleList(modules)

    @property
    def multiple(self) -> int:
        """What height and width of the images must be divisible by."""
        return self.config.strides[-1]

    @property
    def detect(self) -> Detect | DetectApart:
        """The head, which is the last layer."""
        head = self.model[-1]
        assert isinstance(head, Detect | DetectApart)
        return head

    @property
    def stages(self) -> tuple[Sequence[nn.Module], int]:
        """The numbered layers, and how many of them are the backbone: the neck begins with a convolution and an upsampling."""
        upsample = next(index for index, module in enumerate(self.model) if isinstance(module, nn.Upsample))
        return list(self.model), upsample - 1

    def criterion(self, weights: LossConfig, size: int) -> Criterion:
        """Return the loss for images of `size` pixels."""
        return Yolov5Loss(self.config, weights, size)

    def forward(self, images: Tensor) -> Any:
        """Return what the head gives: raw maps `(B, A * (5 + C), H / s, W / s)` for every stride s, finest first.

        Args:
            images: `(B, 3, H, W)` RGB, 0 to 1; `multiple` divides H and W.
        """
        kept: list[Tensor] = []
        x: Any = images
        for module, reads in zip(self.model, self.reads, strict=True):
            given = [x if index == -1 else kept[index] for index in reads]
            x = module(given if isinstance(module, Concat | Detect | DetectApart) else given[0])
            kept.append(x)
        return x

    def decode(self, maps: Any) -> tuple[Tensor, ...]:
        """Return boxes `(B, N, 4)` as x1, y1, x2, y2 in input pixels and scores `(B, N, C)`, objectness times class.

        Rows come level by level, then by anchor, row and column of the cell.
        """
        boxes, objectness, scores = [], [], []
        for raw, anchors, stride in zip(maps, self.detect.anchors, self.config.strides, strict=True):
            level = level_of(raw, len(anchors), self.config.classes) if isinstance(raw, Tensor) else raw
            places = level.places.sigmoid()
            B, _, H, W = places.shape
            x, y, w, h, o = places.view(B, 5, -1, H, W).unbind(1)  # (B, A, H, W) each
            columns = torch.arange(W, dtype=x.dtype, device=x.device)
            rows = torch.arange(H, dtype=x.dtype, device=x.device)[:, None]
            x = x * (2 * stride) + (columns - 0.5) * stride  # the centre, pixels
            y = y * (2 * stride) + (rows - 0.5) * stride
            reach = (anchors * (2 * stride)).T[..., None, None]  # (2, A, 1, 1): times sigmoid squared, half the box
            w, h = w * w * reach[0], h * h * reach[1]
            boxes.append(torch.stack((x - w, y - h, x + w, y + h), -1).view(B, -1, 4))  # (B, A * H * W, 4)
            objectness.append(o.reshape(B, -1, 1))
            scores += [
                c.sigmoid().permute(0, 2, 3, 1).reshape(B, -1, self.config.classes) for c in level.classes
            ]  # (B, H * W, C)
        return torch.cat(boxes, 1), torch.cat(scores, 1) * torch.cat(objectness, 1)

    def fused(self) -> Self:
        """Return an equal network for inference: batch norms inside convolutions, no Focus, the head apart."""
        fused = copy.deepcopy(self).eval()
        fuse_children(fused)
        return fused


def _layers(config: Config, head: type[Detect]) -> tuple[list[nn.Module], tuple[tuple[int, ...], ...]]:
    """Return the numbered layers (backbone, way down the pyramid, way up, head) and what each reads (-1: the one before)."""
    act = config.activation
    layers, reads, channels = list[nn.Module](), list[tuple[int, ...]](), list[int]()

    def width(c: int) -> int:
        return math.ceil(c * config.width / 8) * 8

    def add(module: nn.Module, c: int, reads_from: tuple[int, ...] = (-1,)) -> int:
        layers.append(module)
        channels.append(c)
        reads.append(reads_from)
        return len(layers) - 1

    def conv(c: int, kernel: int, stride: int) -> int:
        return add(Conv(channels[-1], width(c), kernel, stride, act=act), width(c))

    def c3(c: int, repeats: int, *, shortcut: bool = True) -> int:
        repeats = max(round(repeats * config.depth), 1)
        return add(C3(channels[-1], width(c), repeats, shortcut=shortcut, act=act), width(c))

    def concat(other: int) -> None:
        add(Concat(), channels[-1] + channels[other], (-1, other))

    v5 = config.layout == "v5"
    deep = (512, 1024) if len(config.anchors) == 3 else (512, 768, 1024)
    stem = Focus(config.channels, width(64), act=act) if v5 else Conv(config.channels, width(64), 6, 2, pad=2, act=act)
    add(stem, width(64))
    conv(128, 3, 2)
    c3(128, 3)
    conv(256, 3, 2)
    taps = [c3(256, 9 if v5 else 6)]  # what the paths read: P3, P4, ...
    for c in deep:
        conv(c, 3, 2)
        if v5 and c == 1024:
            add(SPP(channels[-1], width(c), config.pools, act=act), width(c))
            c3(c, 3, shortcut=False)
        else:
            taps.append(c3(c, 9 if c == 512 else 3))
    if not v5:
        add(SPPF(width(1024), width(1024), act=act), width(1024))

    laterals = []
    for c, tap in zip((*deep[-2::-1], 256), taps[len(deep) - 1 :: -1], strict=True):
        laterals.append(conv(c, 1, 1))
        add(nn.Upsample(scale_factor=2, mode="nearest"), width(c))
        concat(tap)
        finest = c3(c, 3, shortcut=False)

    levels = [finest]
    for finer, c, lateral in zip((256, *deep[:-1]), deep, laterals[::-1], strict=True):
        conv(finer, 3, 2)
        concat(lateral)
        levels.append(c3(c, 3, shortcut=False))
    add(head(config, [channels[index] for index in levels]), 0, tuple(levels))
    return layers, tuple(reads)


def config_of(size: str, classes: int = 80) -> Config:
    """Return what the published network of `size` is like."""
    if size.removesuffix("6") not in SIZES:
        raise UsageError(f"size: expected one of {', '.join(SIZES)}, with 6 appended for P6, got {size!r}")
    depth, width = SIZES[size.removesuffix("6")]
    return Config(depth, width, classes, anchors=ANCHORS_P6 if size.endswith("6") else ANCHORS_P5)


def build(size: str, classes: int = 80, **changes: object) -> Yolov5:
    """Return the network of `size` (n, s, m, l, x; n6 ... x6) with fresh weights; `changes` are fields of `Config`."""
    return Yolov5(replace(config_of(size, classes), **changes))  # type: ignore[arg-type]
