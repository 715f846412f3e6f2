"""What YOLOv5 learns from: which cells answer for which object, and the loss of boxes, objectness and classes."""

from collections.abc import Sequence
from math import pi
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from openlepton.errors import ShapeError
from openlepton.nets.losses import LossConfig

if TYPE_CHECKING:
    from openlepton.nets.yolov5 import Config

BALANCE = {3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.25, 0.06)}
"""Weight of each level's objectness, finest first, by the number of levels."""

NEIGHBOUR = 0.5
"""An object whose centre lies less than this from a neighbouring cell is that cell's too."""


class Assigned(NamedTuple):
    """The cells of one level that answer for an object: P of them, an object up to nine times."""

    target: Tensor
    """`(P,)` row of the object among the targets."""
    image: Tensor
    """`(P,)` row of the batch."""
    anchor: Tensor
    row: Tensor
    column: Tensor
    boxes: Tensor
    """`(P, 4)` centre, relative to the cell's corner, and size, in cells."""
    classes: Tensor
    """`(P,)`"""


class Yolov5Loss:
    """The loss of raw maps against boxes.

    Args:
        config: The network's.
        weights: Of the parts.
        size: Longest side of the images of the training, pixels.
    """

    parts = ("box", "obj", "cls")

    def __init__(self, config: "Config", weights: LossConfig, size: int = 640) -> None:
        levels = len(config.anchors)
        self.config, self.max_ratio, self.focus = config, weights.max_ratio, weights.focus
        self.high, self.low = 1 - weights.smoothing / 2, weights.smoothing / 2
        even = 3 / levels
        self.gains = (
            weights.box * even,
            weights.obj * (size / 640) ** 2 * even,
            weights.cls * config.classes / 80 * even,
        )

    def __call__(self, maps: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the batch's images, and its parts for one image, `(3,)` box, objectness, classes.

        Args:
            maps: For each level `(B, A * (5 + C), H, W)` logits, of any precision.
            targets: `(N, 6)` row of the batch, class, centre x, y, width and height in pixels of the images.
        """
        parts, _ = self.terms(maps, targets)
        return parts.sum() * len(maps[0]), parts

    def terms(self, maps: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, list[tuple[Assigned, Tensor]]]:
        """Return the parts for one image, `(3,)`, and for each level the cells that answer and their `(P, 5 + C + E)` logits."""
        if targets.ndim != 2 or targets.shape[1] != 6:
            raise ShapeError(f"targets: expected (N, 6), got {tuple(targets.shape)}")
        C, answers = self.config.classes, []
        box = obj = cls = maps[0].new_zeros((), dtype=torch.float32)
        levels = zip(maps, self.config.anchors, self.config.strides, BALANCE[len(maps)], strict=True)
        for raw, pixels, stride, weight in levels:
            B, _, H, W = raw.shape
            anchors = torch.tensor(pixels, device=raw.device) / stride  # (A, 2)
            logits = raw.view(B, len(anchors), -1, H, W).float()  # (B, A, 5 + C + E, H, W)
            found = assign(targets, anchors, stride, (H, W), self.max_ratio)
            wanted = logits.new_zeros(B, len(anchors), H, W)
            if len(found.image):
                own = logits[found.image, found.anchor, :, found.row, found.column]  # (P, 5 + C + E)
                answers.append((found, own))
                centre = own[:, :2].sigmoid() * 2 - 0.5
                sides = (own[:, 2:4].sigmoid() * 2) ** 2 * anchors[found.anchor]
                overlap = ciou(torch.cat((centre, sides), 1), found.boxes)  # (P,)
                box = box + (1 - overlap).mean()
                cell = ((found.image * len(anchors) + found.anchor) * H + found.row) * W + found.column
                # Where several objects want one cell, the best overlap counts: the same on every device and in any order.
                wanted.view(-1).scatter_reduce_(0, cell, overlap.detach().clamp(min=0), "amax")
                if C > 1:
                    truth = torch.full_like(own[:, 5 : 5 + C], self.low)
                    truth.scatter_(1, found.classes[:, None], self.high)
                    cls = cls + self._cross_entropy(own[:, 5 : 5 + C], truth)
            obj = obj + self._cross_entropy(logits[:, :, 4], wanted) * weight
        return torch.stack((box * self.gains[0], obj * self.gains[1], cls * self.gains[2])), answers

    def _cross_entropy(self, logits: Tensor, truth: Tensor) -> Tensor:
        if not self.focus:
            return F.binary_cross_entropy_with_logits(logits, truth)
        each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        share = logits.sigmoid()
        right = truth * share + (1 - truth) * (1 - share)
        balance = truth * 0.25 + (1 - truth) * 0.75
        return (each * balance * (1 - right) ** self.focus).mean()


def assign(targets: Tensor, anchors: Tensor, stride: int, size_hw: tuple[int, int], max_ratio: float) -> Assigned:
    """Return the cells of a level that answer for `targets`: the centre's and up to two neighbours, for anchors of like size.

    Args:
        targets: `(N, 6)` as the loss takes them.
        anchors: `(A, 2)` width and height in cells.
        stride: Pixels of a cell.
        size_hw: Rows and columns of the level.
        max_ratio: How many times an object may be larger or smaller than an anchor, in width and in height.
    """
    A, N = len(anchors), len(targets)
    places = targets[:, 2:] / stride  # (N, 4) in cells
    ratio = places[None, :, 2:] / anchors[:, None]  # (A, N, 2)
    anchor, target = (torch.maximum(ratio, 1 / ratio).amax(2) < max_ratio).view(A, N).nonzero(as_tuple=True)  # (K,)
    centre = places[target, :2]  # (K, 2)
    ends = centre.new_tensor(size_hw[::-1])
    from_end = ends - centre
    before = (centre % 1 < NEIGHBOUR) & (centre > 1)  # (K, 2): left, above
    after = (from_end % 1 < NEIGHBOUR) & (from_end > 1)  # right, below
    chosen = torch.stack((torch.ones_like(before[:, 0]), *before.T, *after.T))  # (5, K)
    steps = centre.new_tensor([[0, 0], [-1, 0], [0, -1], [1, 0], [0, 1]]) * NEIGHBOUR
    which, pair = chosen.nonzero(as_tuple=True)  # (P,)
    cell = (centre[pair] + steps[which]).floor()
    cell = torch.minimum(cell.clamp(min=0), ends - 1)
    boxes = torch.cat((centre[pair] - cell, places[target[pair], 2:]), 1)
    column, row = cell.long().unbind(1)
    image, classes = targets[target[pair], :2].long().unbind(1)
    return Assigned(target[pair], image, anchor[pair], row, column, boxes, classes)


def ciou(a: Tensor, b: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Return complete IoU (Zheng et al. 2020, arXiv:1911.08287) row by row, two `(P, 4)` of centre and size to `(P,)`."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.unbind(1), b.unbind(1)
    left, right = torch.maximum(ax - aw / 2, bx - bw / 2), torch.minimum(ax + aw / 2, bx + bw / 2)
    top, bottom = torch.maximum(ay - ah / 2, by - bh / 2), torch.minimum(ay + ah / 2, by + bh / 2)
    shared = (right - left).clamp(min=0) * (bottom - top).clamp(min=0)
    iou = shared / (aw * ah + bw * bh - shared + epsilon)
    around_w = torch.maximum(ax + aw / 2, bx + bw / 2) - torch.minimum(ax - aw / 2, bx - bw / 2)
    around_h = torch.maximum(ay + ah / 2, by + bh / 2) - torch.minimum(ay - ah / 2, by - bh / 2)
    apart = ((ax - bx) ** 2 + (ay - by) ** 2) / (around_w**2 + around_h**2 + epsilon)
    shape = (torch.atan(bw / (bh + epsilon)) - torch.atan(aw / (ah + epsilon))) ** 2 * (4 / pi**2)
    with torch.no_grad():
        weight = shape / (1 - iou + shape + epsilon)
    return iou - apart - weight * shape
