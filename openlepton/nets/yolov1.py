"""YOLOv1 (Redmon et al. 2016, arXiv:1506.02640): the paper's network, the one released with a `[local]` layer, and tiny.

One grid of S x S cells; each says what class is in it, and where: B boxes with a confidence each. The connected layers make
the size of the image part of the network. Modules stand in the order of Darknet's configuration files.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openlepton.errors import ShapeError, UsageError
from openlepton.nets.blocks import Conv, fuse_children
from openlepton.nets.losses import LossConfig

EPSILON = 1e-5
"""Of batch norm, as Darknet has it on GPUs."""

STRIDE = 64
"""Pixels of a cell: all of these networks halve the image six times."""

Layer = tuple[int, int, int]
"""Kernel, channels and stride of a convolution."""
POOL: Layer = (0, 0, 2)
"""A 2x2 max pool in its place."""

CONVS: tuple[Layer, ...] = (
    *((7, 64, 2), POOL),
    *((3, 192, 1), POOL),
    *((1, 128, 1), (3, 256, 1), (1, 256, 1), (3, 512, 1), POOL),
    *(((1, 256, 1), (3, 512, 1)) * 4),
    *((1, 512, 1), (3, 1024, 1), POOL),
    *(((1, 512, 1), (3, 1024, 1)) * 2),
    *((3, 1024, 1), (3, 1024, 2), (3, 1024, 1), (3, 1024, 1)),
)
"""The 24 convolutions of the paper's figure 3."""

CONVS_TINY: tuple[Layer, ...] = (
    *((3, 16, 1), POOL, (3, 32, 1), POOL, (3, 64, 1), POOL, (3, 128, 1), POOL, (3, 256, 1), POOL, (3, 512, 1), POOL),
    *((3, 1024, 1), (3, 256, 1)),
)
"""The eight of Darknet's yolov1-tiny."""


@dataclass(frozen=True)
class Config:
    """What distinguishes one YOLOv1 from another.

    Attributes:
        convs: The convolutions and max pools.
        head: What reads the last map: "connected" is a layer of 4096 and the last one, as in the paper; "local" is a 3x3
            convolution whose every place has its own kernel, and the last one; "direct" the last one alone.
        norm: Whether convolutions have batch norm, which is younger than the paper.
        boxes: Boxes of a cell (the paper's B).
        classes: Number of classes.
        channels: Channels of the image.
        size: Height and width of the image, pixels; the grid (the paper's S) has a cell for every 64.
        width: Factor on channels, which are rounded up to a multiple of four.
        dropout: How probable it is that an input of the last layer is left out in training, where there is a layer before.
    """

    convs: tuple[Layer, ...]
    head: Literal["connected", "local", "direct"]
    norm: bool
    boxes: int = 2
    classes: int = 20
    channels: int = 3
    size: int = 448
    width: float = 1.0
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.classes < 1 or self.boxes < 1:
            raise UsageError(f"classes, boxes: expected at least 1, got {self.classes}, {self.boxes}")
        if self.size < STRIDE or self.size % STRIDE:
            raise UsageError(f"size: expected a multiple of {STRIDE}, got {self.size}")

    @property
    def side(self) -> int:
        """Cells in a row of the grid."""
        return self.size // STRIDE

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell."""
        return (STRIDE,)

    @property
    def numbers(self) -> int:
        """How many numbers the network gives."""
        return self.side**2 * (self.classes + self.boxes * 5)

    def wide(self, channels: int) -> int:
        """Return how many of the paper's channels this network has."""
        return math.ceil(channels * self.width / 4) * 4


class Plain(nn.Module):
    """Convolution with bias, and activation: what came before batch norm."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2)
        nn.init.kaiming_uniform_(self.conv.weight, a=0.1)  # keeps the size of maps through layers that nothing norms
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, H / stride, W / stride)`."""
        return F.leaky_relu(self.conv(x), 0.1)


class Local(nn.Module):
    """3x3 convolution whose every place has a kernel and a bias of its own, and activation."""

    def __init__(self, cin: int, cout: int, side: int) -> None:
        super().__init__()
        self.side = side
        bound = (9 * cin) ** -0.5
        self.bias = nn.Parameter(torch.zeros(cout, side, side))
        self.weight = nn.Parameter(torch.empty(side * side, cout, 9 * cin).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, S, S)`."""
        patches = F.unfold(x, 3, padding=1).permute(2, 0, 1)  # (S * S, B, 9 * in)
        y = patches @ self.weight.transpose(1, 2)  # (S * S, B, out)
        return F.leaky_relu(y.permute(1, 2, 0).reshape(x.shape[0], -1, self.side, self.side) + self.bias, 0.1)


def _features(config: Config) -> tuple[nn.Sequential, int]:
    """Return convolutions and pools, and how many channels come out of them."""
    layers, cin = list[nn.Module](), config.channels
    for kernel, channels, stride in config.convs:
        if not kernel:
            layers.append(nn.MaxPool2d(2))
            continue
        cout = config.wide(channels)
        if config.norm:
            layers.append(Conv(cin, cout, kernel, stride, act="leaky_relu", eps=EPSILON))
        else:
            layers.append(Plain(cin, cout, kernel, stride))
        cin = cout
    return nn.Sequential(*layers), cin


def _head(config: Config, cin: int) -> nn.Sequential:
    """Return what makes the numbers of the last map, `(B, in, S, S)` to `(B, numbers)`."""
    cells = config.side**2
    if config.head == "direct":
        return nn.Sequential(nn.Flatten(), nn.Linear(cin * cells, config.numbers))
    if config.head == "local":
        c = config.wide(256)
        first: tuple[nn.Module, ...] = (Local(cin, c, config.side), nn.Flatten())
        inputs = c * cells
    else:
        inputs = config.wide(4096)
        first = (nn.Flatten(), nn.Linear(cin * cells, inputs), nn.LeakyReLU(0.1))
    return nn.Sequential(*first, nn.Dropout(config.dropout), nn.Linear(inputs, config.numbers))


class Yolov1(nn.Module):
    """A YOLOv1 detector; calling it gives numbers for training, `decode` turns them into boxes and scores."""

    outputs = ("boxes", "scores")
    multiple = STRIDE

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.features, channels = _features(config)
        self.head = _head(config, channels)

    @property
    def stages(self) -> tuple[Sequence[nn.Module], int]:
        """The layers, and how many of them are convolutions and pools."""
        return [*self.features, *self.head], len(self.features)

    def criterion(self, weights: LossConfig, size: int) -> "Yolov1Loss":
        """Return the loss; `size` is that of the network."""
        return Yolov1Loss(self.config, weights)

    def forward(self, images: Tensor) -> Tensor:
        """Return `(B, S * S * (C + 5 * boxes))` numbers, of which `parts` says what they are.

        Args:
            images: `(B, 3, size, size)` RGB, 0 to 1.
        """
        size = self.config.size
        if tuple(images.shape[2:]) != (size, size):
            raise ShapeError(f"images: the network sees {size} x {size} pixels, got {tuple(images.shape)}")
        numbers: Tensor = self.head(self.features(images))
        return numbers

    def decode(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes `(B, N, 4)` as x1, y1, x2, y2 in input pixels and scores `(B, N, C)`, confidence times class.

        Rows come by row and column of the cell, then by box. The network's numbers are no probabilities: what lies outside
        of 0 to 1 is cut off.
        """
        classes, confidences, places = parts(numbers, self.config)
        boxes = corners(places, self.config)
        scores = (confidences[..., None] * classes[:, :, None]).clamp(0, 1)  # (B, S * S, boxes, C)
        return boxes.flatten(1, 2), scores.flatten(1, 2)

    def fused(self) -> Self:
        """Return an equal network for inference: batch norms inside convolutions."""
        fused = copy.deepcopy(self).eval()
        fuse_children(fused)
        return fused


def parts(numbers: Tensor, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Return classes `(B, S * S, C)`, confidences `(B, S * S, boxes)` and places `(B, S * S, boxes, 4)`.

    A place is the centre x, y from the cell's corner, in cells, and the roots of width and height, which are shares of the
    image. In the vector all classes stand first, then all confidences, then all places.
    """
    cells = config.side**2
    classes, confidences, places = torch.split(
        numbers, [cells * config.classes, cells * config.boxes, cells * config.boxes * 4], 1
    )
    return (
        classes.view(-1, cells, config.classes),
        confidences.view(-1, cells, config.boxes),
        places.view(-1, cells, config.boxes, 4),
    )


def corners(places: Tensor, config: Config) -> Tensor:
    """Return boxes as x1, y1, x2, y2 in pixels, `(B, S * S, boxes, 4)`, of places as `parts` gives them."""
    cells = torch.arange(config.side**2, device=places.device)
    corner = torch.stack((cells % config.side, cells // config.side), 1)[:, None]  # (S * S, 1, 2)
    centre = (places[..., :2] + corner) * STRIDE
    half = places[..., 2:] ** 2 * (config.size / 2)
    return torch.cat((centre - half, centre + half), -1)


GAINS = (100.0, 1.0, 2.0)
"""Box, confidence, classes: what makes the paper's weights (5, 1, 1) of the defaults of `LossConfig`."""

EMPTY = 0.5
"""The paper's lambda_noobj: what the confidence of a box that answers for nothing weighs."""


class Yolov1Loss:
    """The loss of the numbers against boxes (section 2.2): squared errors, all of them.

    An object belongs to the cell that holds its centre, the first object in it where there are several. Of the cell's boxes
    the one that overlaps it most is responsible, or where none does, the closest. Its place learns the object's, its
    confidence how much they overlap; every other confidence learns 0. Only cells that hold an object learn classes.

    Args:
        config: The network's.
        weights: Of the parts, in proportion to their defaults, at which the paper's hold: lambda_coord is 5.
    """

    parts = ("box", "obj", "noobj", "cls")

    def __init__(self, config: Config, weights: LossConfig | None = None) -> None:
        weights = weights or LossConfig()
        self.config = config
        box, obj, cls = (gain * own for gain, own in zip(GAINS, (weights.box, weights.obj, weights.cls), strict=True))
        self.gains = (box, obj, EMPTY * obj, cls)

    def __call__(self, numbers: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the batch's images, and its parts for one image, `(4,)`.

        Args:
            numbers: `(B, S * S * (C + 5 * boxes))`, of any precision.
            targets: `(N, 6)` row of the batch, class, centre x, y, width and height in pixels of the images.
        """
        if targets.ndim != 2 or targets.shape[1] != 6:
            raise ShapeError(f"targets: expected (N, 6), got {tuple(targets.shape)}")
        classes, confidences, places = parts(numbers.float(), self.config)
        boxes = corners(places, self.config).flatten(0, 1)  # (B * S * S, boxes, 4)
        cells, objects = self._cells(targets)
        truth = targets[objects, 2:]  # (U, 4)
        box, overlap = self._responsible(boxes[cells].detach(), truth)  # (U,) (U,)
        S, size = self.config.side, self.config.size
        corner = torch.stack((cells % S, cells // S % S), 1)
        wanted = torch.cat((truth[:, :2] / STRIDE - corner, (truth[:, 2:] / size).sqrt()), 1)
        error = (places.flatten(0, 1)[cells, box] - wanted).square().sum()
        confidence = confidences.flatten(0, 1)  # (B * S * S, boxes)
        idle = torch.ones_like(confidence)
        idle[cells, box] = 0
        kinds = torch.zeros_like(classes).flatten(0, 1)
        kinds[cells, targets[objects, 1].long()] = 1
        terms = torch.stack(
            (
                error,
                (confidence[cells, box] - overlap).square().sum(),
                (confidence.square() * idle).sum(),
                class_error(classes.flatten(0, 1), kinds, kinds.any(1)),
            )
        ) * numbers.new_tensor(self.gains, dtype=torch.float32)
        return terms.sum(), terms / len(numbers)

    def _cells(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cells that hold an object, `(U,)` counted through the batch, and the row of its first, `(U,)`."""
        S = self.config.side
        column, row = (targets[:, 2:4] / STRIDE).long().clamp(0, S - 1).unbind(1)
        cells, which = torch.unique((targets[:, 0].long() * S + row) * S + column, return_inverse=True)
        rows = torch.arange(len(targets), device=targets.device)
        return cells, torch.full_like(cells, len(targets)).scatter_reduce(0, which, rows, "amin")

    def _responsible(self, boxes: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Return which of the boxes `(U, boxes, 4)` answers for each object, and how much they overlap."""
        half = truth[:, None, 2:] / 2
        corner, opposite = truth[:, None, :2] - half, truth[:, None, :2] + half
        sides = torch.minimum(boxes[..., 2:], opposite) - torch.maximum(boxes[..., :2], corner)
        shared = sides.clamp(min=0).prod(2)  # (U, boxes)
        overlap = shared / ((boxes[..., 2:] - boxes[..., :2]).prod(2) + truth[:, None, 2:].prod(2) - shared)
        centres, lengths = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
        distance = (torch.cat((centres, lengths), 2) - truth[:, None]).square().sum(2)
        box = torch.where(overlap.amax(1) > 0, overlap.argmax(1), distance.argmin(1))
        return box, overlap.gather(1, box[:, None])[:, 0]


def class_error(predicted: Tensor, truth: Tensor, holds: Tensor, weight: float = 1.0) -> Tensor:
    """Return the squared error of classes, L = sum_i L_i: the last line of YOLOv1's loss (equation 3).

    L_i = weight * sum_j (p_ij - y_ij)^2 for a cell i that holds an object, and 0 for one that does not.

    Args:
        predicted: `(N, C)` p, what the cells say of each class.
        truth: `(N, C)` y, 1 for the class of the cell's object and 0 for every other.
        holds: `(N,)` whether there is an object in the cell.
        weight: The lambda, 1 in the paper.
    """
    if predicted.shape != truth.shape or holds.shape != predicted.shape[:1]:
        shapes = ", ".join(str(tuple(one.shape)) for one in (predicted, truth, holds))
        raise ShapeError(f"class_error: expected (N, C), (N, C) and (N,), got {shapes}")
    return weight * ((predicted - truth).square().sum(1) * holds).sum()


KINDS: dict[str, Config] = {
    "paper": Config(CONVS, "connected", norm=False),
    "local": Config(CONVS, "local", norm=True, boxes=3),
    "tiny": Config(CONVS_TINY, "direct", norm=True),
}
"""The published networks; the released `yolov1.cfg` is the one with the local layer, not the paper's."""


def build(kind: str, /, classes: int = 20, **changes: object) -> Yolov1:
    """Return the network of that kind (paper, local, tiny) with fresh weights; `changes` are fields of `Config`."""
    if kind not in KINDS:
        raise UsageError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    return Yolov1(replace(KINDS[kind], classes=classes, **changes))  # type: ignore[arg-type]
