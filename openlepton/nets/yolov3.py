"""YOLOv3 (Redmon and Farhadi 2018, arXiv:1804.02767): Darknet-53, the same with SPP, and tiny.

Modules stand in the order of Darknet's configuration files: what its `.weights` hold goes into them one after the other.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openlepton.errors import ShapeError, UsageError
from openlepton.nets.anchors import Anchors
from openlepton.nets.blocks import Conv, fuse_children
from openlepton.nets.losses import LossConfig

ANCHORS: Anchors = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
ANCHORS_TINY: Anchors = (((10, 14), (23, 27), (37, 58)), ((81, 82), (135, 169), (344, 319)))

EPSILON = 1e-5
"""Of batch norm, as Darknet has it on GPUs."""

PRIOR = 0.01
"""The objectness of a fresh network; at the 1/2 of zero logits the empty cells drown the others (RetinaNet, arXiv:1708.02002)."""

LARGEST = 10.0
"""Sides are at most e to this power as long as the anchor's, so that they stay finite."""


@dataclass(frozen=True)
class Config:
    """What distinguishes one YOLOv3 from another.

    Attributes:
        backbone: "darknet53" with three levels, or "tiny" with two.
        classes: Number of classes.
        channels: Channels of the image.
        anchors: Widths and heights in pixels per level, finest first.
        pools: Kernels of the max pools before the coarsest level (SPP), none by default.
        width: Factor on channels, which are rounded up to a multiple of four.
    """

    backbone: Literal["darknet53", "tiny"]
    classes: int = 80
    channels: int = 3
    anchors: Anchors = ANCHORS
    pools: tuple[int, ...] = ()
    width: float = 1.0

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UsageError(f"classes: expected at least 1, got {self.classes}")
        levels = 2 if self.backbone == "tiny" else 3
        if len(self.anchors) != levels or len({len(level) for level in self.anchors}) != 1 or not self.anchors[0]:
            raise UsageError(f"anchors: expected {levels} levels, all with the same number of anchors")

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level, finest first."""
        return (16, 32) if self.backbone == "tiny" else (8, 16, 32)

    def wide(self, channels: int) -> int:
        """Return how many of the paper's channels this network has."""
        return math.ceil(channels * self.width / 4) * 4


def conv(cin: int, cout: int, kernel: int = 1, stride: int = 1) -> Conv:
    """Return the block that all of Darknet is made of."""
    return Conv(cin, cout, kernel, stride, act="leaky_relu", eps=EPSILON)


class Residual(nn.Module):
    """1x1 convolution to half the channels, 3x3 back, and the input added."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1 = conv(c, c // 2)
        self.cv2 = conv(c // 2, c, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, c, H, W)`."""
        y: Tensor = x + self.cv2(self.cv1(x))
        return y


class Darknet53(nn.Module):
    """The backbone of section 2.4: 52 convolutions; its 53rd is the classifier's."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = [config.wide(32 << power) for power in range(6)]
        self.stem = conv(config.channels, c[0], 3)
        self.stages = nn.ModuleList(
            nn.Sequential(conv(cin, cout, 3, 2), *(Residual(cout) for _ in range(repeats)))
            for cin, cout, repeats in zip(c, c[1:], (1, 2, 8, 8, 4), strict=False)
        )
        self.channels = tuple(c[3:])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of strides 8, 16 and 32."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[2:]


class Tiny(nn.Module):
    """The backbone of tiny: seven convolutions with max pools in between."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = [config.channels, *(config.wide(16 << power) for power in range(7))]
        self.convs = nn.ModuleList(conv(cin, cout, 3) for cin, cout in pairwise(c))
        self.channels = (c[5], c[7])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of strides 16 and 32."""
        x = images
        for block in self.convs[:4]:
            x = F.max_pool2d(block(x), 2)
        fine = self.convs[4](x)
        x = self.convs[5](F.max_pool2d(fine, 2))
        # Darknet's pool of stride 1 pads below and on the right with what no maximum takes; the edge repeated does the same.
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, 1)
        return [fine, self.convs[6](x)]


class Pools(nn.Module):
    """Spatial pyramid pooling (arXiv:1406.4729): max pools side by side, the largest first, and the input last."""

    def __init__(self, pools: Sequence[int]) -> None:
        super().__init__()
        self.pools = tuple(pools)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, (pools + 1) * c, H, W)`."""
        return torch.cat((*(F.max_pool2d(x, k, 1, k // 2) for k in sorted(self.pools, reverse=True)), x), 1)


def neck(cin: int, c: int, pools: Sequence[int] = ()) -> nn.Sequential:
    """Return what stands before the head of a level of Darknet-53: `(B, cin, H, W)` to `(B, c, H, W)`."""
    pyramid = (Pools(pools), conv((len(pools) + 1) * c, c)) if pools else ()
    return nn.Sequential(conv(cin, c), conv(c, 2 * c, 3), conv(2 * c, c), *pyramid, conv(c, 2 * c, 3), conv(2 * c, c))


class Level(nn.Module):
    """One level of the pyramid: joined with the coarser level, a neck, and the head; `lateral` is None for the coarsest."""

    def __init__(self, lateral: Conv | None, neck: nn.Module, channels: tuple[int, int], config: Config) -> None:
        super().__init__()
        self.lateral, self.neck = lateral, neck
        last = nn.Conv2d(channels[1], len(config.anchors[0]) * (5 + config.classes), 1)
        self.head = nn.Sequential(conv(*channels, 3), last)
        assert last.bias is not None
        with torch.no_grad():
            last.bias.view(-1, 5 + config.classes)[:, 4] -= math.log(1 / PRIOR - 1)

    def forward(self, coarser: Tensor | None, tap: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the finer level reads, and this level's logits `(B, A * (5 + C), H, W)`."""
        if self.lateral is not None:
            tap = torch.cat((F.interpolate(self.lateral(coarser), scale_factor=2.0, mode="nearest"), tap), 1)
        x = self.neck(tap)
        return x, self.head(x)


def _levels(config: Config, channels: Sequence[int]) -> list[Level]:
    """Return the levels, coarsest first; `channels` are those of the backbone's maps, finest first."""
    w = config.wide
    if config.backbone == "tiny":
        return [
            Level(None, conv(channels[1], w(256)), (w(256), w(512)), config),
            Level(conv(w(256), w(128)), nn.Identity(), (w(128) + channels[0], w(256)), config),
        ]
    c = [w(512), w(256), w(128)]
    first = Level(None, neck(channels[2], c[0], config.pools), (c[0], 2 * c[0]), config)
    return [
        first,
        *(
            Level(conv(coarser, own), neck(own + tap, own), (own, 2 * own), config)
            for coarser, own, tap in zip(c, c[1:], channels[1::-1], strict=False)
        ),
    ]


def corners(raw: Tensor, anchors: Tensor, stride: int) -> Tensor:
    """Return the boxes of one level (section 2.1), `(B, A, 5 + C, H, W)` to `(B, A, H, W, 4)` x1, y1, x2, y2 in pixels.

    Args:
        raw: The logits.
        anchors: `(A, 2)` width and height in pixels.
        stride: Pixels of a cell.
    """
    H, W = raw.shape[3:]
    columns = torch.arange(W, dtype=raw.dtype, device=raw.device)
    rows = torch.arange(H, dtype=raw.dtype, device=raw.device)[:, None]
    x = (raw[:, :, 0].sigmoid() + columns) * stride  # (B, A, H, W)
    y = (raw[:, :, 1].sigmoid() + rows) * stride
    half = (anchors / 2).to(raw.dtype).T[..., None, None]  # (2, A, 1, 1)
    w = raw[:, :, 2].clamp(max=LARGEST).exp() * half[0]
    h = raw[:, :, 3].clamp(max=LARGEST).exp() * half[1]
    return torch.stack((x - w, y - h, x + w, y + h), -1)


class Yolov3(nn.Module):
    """A YOLOv3 detector; calling it gives raw maps for training, `decode` turns them into boxes and scores."""

    outputs = ("boxes", "scores")
    multiple = 32

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = Tiny(config) if config.backbone == "tiny" else Darknet53(config)
        self.levels = nn.ModuleList(_levels(config, self.backbone.channels))

    @property
    def stages(self) -> tuple[Sequence[nn.Module], int]:
        """The backbone's parts and the levels, and how many of them are the backbone's."""
        backbone = self.backbone
        parts = [*backbone.convs] if isinstance(backbone, Tiny) else [backbone.stem, *backbone.stages]
        return [*parts, *self.levels], len(parts)

    def criterion(self, weights: LossConfig, size: int) -> "Yolov3Loss":
        """Return the loss, which is the same for images of any `size`."""
        return Yolov3Loss(self.config, weights)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return raw maps `(B, A * (5 + C), H / s, W / s)` for every stride s, finest first.

        Args:
            images: `(B, 3, H, W)` RGB, 0 to 1; 32 divides H and W.
        """
        taps = self.backbone(images)
        x, maps = None, []
        for level, tap in zip(self.levels, taps[::-1], strict=True):
            x, raw = level(x, tap)
            maps.append(raw)
        return maps[::-1]

    def decode(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return boxes `(B, N, 4)` as x1, y1, x2, y2 in input pixels and scores `(B, N, C)`, objectness times class.

        Rows come level by level, finest first, then by anchor, row and column of the cell.
        """
        boxes, scores = [], []
        for raw, pixels, stride in zip(maps, self.config.anchors, self.config.strides, strict=True):
            B, _, H, W = raw.shape
            raw = raw.view(B, len(pixels), 5 + self.config.classes, H, W)
            anchors = torch.tensor(pixels, dtype=raw.dtype, device=raw.device)
            boxes.append(corners(raw, anchors, stride).view(B, -1, 4))
            each = raw[:, :, 5:].sigmoid() * raw[:, :, 4:5].sigmoid()  # (B, A, C, H, W)
            scores.append(each.permute(0, 1, 3, 4, 2).reshape(B, -1, self.config.classes))
        return torch.cat(boxes, 1), torch.cat(scores, 1)

    def fused(self) -> Self:
        """Return an equal network for inference: batch norms inside convolutions."""
        fused = copy.deepcopy(self).eval()
        fuse_children(fused)
        return fused


GAINS = (20.0, 1.0, 2.0)
"""Box, objectness, classes: what makes the paper's weights, which are all 1, of the defaults of `LossConfig`."""


class Yolov3Loss:
    """The loss of raw maps against boxes (section 2): squared error for the box, cross-entropy for objectness and classes.

    The anchor of all levels whose shape overlaps most with an object answers for it, in the cell that holds its centre. What
    found an object well enough without being asked, with an IoU above `ignore`, is not told that nothing was there.

    Args:
        config: The network's.
        weights: Of the parts, in proportion to their defaults, at which the paper's hold.
        ignore: The paper says 0.5, its configurations 0.7.
    """

    parts = ("box", "obj", "cls")

    def __init__(self, config: Config, weights: LossConfig | None = None, *, ignore: float = 0.7) -> None:
        weights = weights or LossConfig()
        self.config, self.ignore = config, ignore
        self.gains = [gain * own for gain, own in zip(GAINS, (weights.box, weights.obj, weights.cls), strict=True)]
        self.high, self.low = 1 - weights.smoothing / 2, weights.smoothing / 2

    def __call__(self, maps: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the batch's images, and its parts for one image, `(3,)` box, objectness, classes.

        Args:
            maps: For each level `(B, A * (5 + C), H, W)` logits, of any precision.
            targets: `(N, 6)` row of the batch, class, centre x, y, width and height in pixels of the images.
        """
        if targets.ndim != 2 or targets.shape[1] != 6:
            raise ShapeError(f"targets: expected (N, 6), got {tuple(targets.shape)}")
        pixels = targets.new_tensor(self.config.anchors)  # (levels, A, 2)
        best = shape_iou(targets[:, 4:], pixels.flatten(0, 1)).argmax(1)  # (N,)
        box = obj = cls = maps[0].new_zeros((), dtype=torch.float32)
        for level, (raw, anchors, stride) in enumerate(zip(maps, pixels, self.config.strides, strict=True)):
            B, _, H, W = raw.shape
            logits = raw.float().view(B, len(anchors), 5 + self.config.classes, H, W)
            mine = best // len(anchors) == level
            wanted = logits.new_zeros(B, len(anchors), H, W)
            if mine.any():
                cells, places, kinds = self._asked(logits, targets[mine], best[mine] % len(anchors), anchors, stride)
                box, cls = box + places, cls + kinds
                wanted.view(-1)[cells] = 1
            spared = self._found(logits.detach(), targets, anchors, stride) & (wanted == 0)
            each = F.binary_cross_entropy_with_logits(logits[:, :, 4], wanted, reduction="none")
            obj = obj + each.masked_fill(spared, 0).sum()
        terms = torch.stack((box, obj, cls)) * box.new_tensor(self.gains)
        return terms.sum(), terms / len(maps[0])

    def _asked(
        self, logits: Tensor, targets: Tensor, anchor: Tensor, anchors: Tensor, stride: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the cells `(U,)` of a level that answer for an object, and their loss of boxes and of classes."""
        _, A, _, H, W = logits.shape
        image, kind = targets[:, :2].long().unbind(1)
        centre = targets[:, 2:4] / stride
        corner = torch.minimum(centre.floor().clamp(min=0), centre.new_tensor((W - 1, H - 1)))
        column, row = corner.long().unbind(1)
        # One cell answers for one box, the last that asks, and for the classes of all: so every order of sums is the same.
        cells, which = torch.unique(((image * A + anchor) * H + row) * W + column, return_inverse=True)
        order = torch.arange(len(which), device=which.device)
        last = torch.zeros_like(cells).scatter_reduce(0, which, order, "amax")  # (U,)
        own = logits[image[last], anchor[last], :, row[last], column[last]]  # (U, 5 + C)
        sides = targets[last, 4:]
        truth = torch.cat(((centre - corner)[last], (sides / anchors[anchor[last]]).log()), 1)
        scale = 2 - sides.prod(1, keepdim=True) / (H * W * stride**2)
        box = (scale * (torch.cat((straight_sigmoid(own[:, :2]), own[:, 2:4]), 1) - truth) ** 2).sum() / 2
        kinds = torch.full_like(own[:, 5:], self.low)
        kinds[which, kind] = self.high
        return cells, box, F.binary_cross_entropy_with_logits(own[:, 5:], kinds, reduction="sum")

    def _found(self, logits: Tensor, targets: Tensor, anchors: Tensor, stride: int) -> Tensor:
        """Return which boxes of a level lie well on some object, `(B, A, H, W)`."""
        boxes = corners(logits, anchors, stride)  # (B, A, H, W, 4)
        half = targets[:, 4:] / 2
        truth = torch.cat((targets[:, 2:4] - half, targets[:, 2:4] + half), 1)  # (N, 4)
        found = torch.zeros_like(boxes[..., 0], dtype=torch.bool)
        for image in range(len(boxes)):
            overlap = iou(boxes[image].view(-1, 4), truth[targets[:, 0] == image])
            found[image] = (overlap > self.ignore).any(1).view_as(found[image])
        return found


def straight_sigmoid(logits: Tensor) -> Tensor:
    """Return the sigmoid with a derivative of one everywhere.

    "Our gradient is the ground truth value minus our prediction" (section 2.1): the difference of the sigmoid goes straight
    to the logit, as in Darknet, and does not vanish where the sigmoid is flat.
    """
    return logits + (logits.sigmoid() - logits).detach()


def shape_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of sides laid corner on corner, `(N, 2)` and `(M, 2)` to `(N, M)`."""
    shared = torch.minimum(a[:, None], b).prod(2)
    return shared / (a.prod(1)[:, None] + b.prod(1) - shared)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return intersection over union of every pair, `(N, 4)` and `(M, 4)` of corners to `(N, M)`."""
    sides = torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])
    shared = sides.clamp(min=0).prod(2)
    return shared / ((a[:, 2:] - a[:, :2]).prod(1)[:, None] + (b[:, 2:] - b[:, :2]).prod(1) - shared)


KINDS: dict[str, Config] = {
    "darknet53": Config("darknet53"),
    "spp": Config("darknet53", pools=(5, 9, 13)),
    "tiny": Config("tiny", anchors=ANCHORS_TINY),
}
"""The published networks."""


def build(kind: str, /, classes: int = 80, **changes: object) -> Yolov3:
    """Return the network of that kind (darknet53, spp, tiny) with fresh weights; `changes` are fields of `Config`."""
    if kind not in KINDS:
        raise UsageError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    return Yolov3(replace(KINDS[kind], classes=classes, **changes))  # type: ignore[arg-type]
