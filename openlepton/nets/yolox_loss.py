"""What YOLOX learns from: SimOTA, which says what cells answer for which object, and the loss of boxes, objectness, classes.

Ge et al. 2021, arXiv:2107.08430, section 2.1; the assignment simplifies OTA (arXiv:2103.14259).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from openlepton.errors import ShapeError
from openlepton.nets.losses import LossConfig

if TYPE_CHECKING:
    from openlepton.nets.yolox import Config

STRIDES = (8, 16, 32)
"""Pixels per cell of each level."""

GAINS = (100.0, 1.0, 2.0)
"""Box, objectness, classes: what makes YOLOX's published weights, 5, 1 and 1, of the defaults of `LossConfig`."""

REACH = 2.5
"""Cells whose centre is less than so many sides from an object's may answer for it."""

CANDIDATES = 10
"""The sum of so many best overlaps of an object, rounded down, is how many cells answer for it."""

OVERLAP_COST = 3.0
OUTSIDE_COST = 1e5
"""Of a cell that lies outside the object or far from its centre: taken when there is no better one."""

EPSILON = 1e-8


class Assigned(NamedTuple):
    """The cells of one image that answer for an object: P of them, each for one."""

    cells: Tensor
    """`(P,)` their rows."""
    objects: Tensor
    """`(P,)` the row of the object that each answers for."""
    overlaps: Tensor
    """`(P,)` of what the cell found with that object."""


class YoloxLoss:
    """The loss of raw maps against boxes.

    Args:
        config: The network's.
        weights: Of the parts, in proportion to their defaults, at which the published ones of YOLOX hold.
    """

    parts = ("box", "obj", "cls")

    def __init__(self, config: "Config", weights: LossConfig) -> None:
        self.config = config
        self.gains = tuple(gain * own for gain, own in zip(GAINS, (weights.box, weights.obj, weights.cls), strict=True))
        self.high, self.low = 1 - weights.smoothing / 2, weights.smoothing / 2

    def __call__(self, maps: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss times the batch's images, and its parts, `(3,)` box, objectness, classes, for an answering cell.

        Args:
            maps: For each level `(B, 5 + C, H, W)` logits, of any precision.
            targets: `(N, 6)` row of the batch, class, centre x, y, width and height in pixels of the images.
        """
        if targets.ndim != 2 or targets.shape[1] != 6:
            raise ShapeError(f"targets: expected (N, 6), got {tuple(targets.shape)}")
        raw = torch.cat([level.flatten(2) for level in maps], 2).transpose(1, 2).float()  # (B, N, 5 + C)
        corners, sides = cells(maps)
        boxes = torch.cat(((raw[..., :2] + corners) * sides, raw[..., 2:4].exp() * sides), 2)  # centre and size, pixels
        centres = (corners + 0.5) * sides
        wanted, own, objects = torch.zeros_like(raw[..., 4]), [], []
        rows = torch.arange(len(targets), device=targets.device)
        for image in range(len(raw)):
            mine = targets[:, 0] == image
            found = assign(targets[mine], boxes[image], raw[image, :, 4:], centres, sides[:, 0])
            wanted[image, found.cells] = 1
            own.append(image * raw.shape[1] + found.cells)
            objects.append(rows[mine][found.objects])
        answering, truth = torch.cat(own), targets[torch.cat(objects)]
        overlap = iou(boxes.flatten(0, 1)[answering], truth[:, 2:])  # (P,)
        classes = raw.flatten(0, 1)[answering, 5:]
        sure = torch.full_like(classes, self.low).scatter_(1, truth[:, 1:2].long(), self.high)
        # The class is wanted as surely as the box overlaps: the score then tells how good the box is.
        sure = sure * overlap.detach()[:, None]
        each = torch.stack(
            (
                (1 - overlap**2).sum() * self.gains[0],
                F.binary_cross_entropy_with_logits(raw[..., 4], wanted, reduction="sum") * self.gains[1],
                F.binary_cross_entropy_with_logits(classes, sure, reduction="sum") * self.gains[2],
            )
        )
        parts = each / max(len(answering), 1)
        return parts.sum() * len(raw), parts


def cells(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return for every cell its column and row, `(N, 2)`, and its side in pixels, `(N, 1)`, level by level, row by row."""
    corners, sides = [], []
    for level, stride in zip(maps, STRIDES, strict=True):
        H, W = level.shape[-2:]
        rows = torch.arange(H, dtype=torch.float32, device=level.device)
        columns = torch.arange(W, dtype=torch.float32, device=level.device)
        grid = torch.stack((columns.expand(H, W), rows[:, None].expand(H, W)), -1).view(-1, 2)  # (H * W, 2)
        corners.append(grid)
        sides.append(torch.full_like(grid[:, :1], stride))
    return torch.cat(corners), torch.cat(sides)


@torch.no_grad()
def assign(targets: Tensor, boxes: Tensor, logits: Tensor, centres: Tensor, sides: Tensor) -> Assigned:
    """Return what cells of an image answer for its objects: those where they cost least, more for who overlaps more.

    Args:
        targets: `(M, 6)` the objects, as the loss takes them.
        boxes: `(N, 4)` what each cell finds, centre and size in pixels.
        logits: `(N, 1 + C)` objectness and classes.
        centres: `(N, 2)` of the cells, pixels.
        sides: `(N,)` of the cells, pixels.
    """
    from_centre = (centres[None] - targets[:, None, 2:4]).abs()  # (M, N, 2)
    inside = (from_centre < targets[:, None, 4:] / 2).all(2)
    near = (from_centre < REACH * sides[None, :, None]).all(2)  # (M, N)
    kept = (inside | near).any(0).nonzero()[:, 0]  # (K,) all the others cost too much
    if not len(kept):
        nothing = kept.new_zeros(0)
        return Assigned(nothing, nothing, boxes.new_zeros(0))
    good = (inside & near)[:, kept]  # (M, K)
    overlaps = iou(targets[:, None, 2:], boxes[None, kept])  # (M, K)
    scores = (logits[kept, 1:].sigmoid() * logits[kept, :1].sigmoid()).sqrt().clamp(1e-6, 1 - 1e-6)  # (K, C)
    unlike = -(1 - scores).log()  # cross-entropy of a class that is not there
    like = -scores.log()
    classes = targets[:, 1].long()
    cost = unlike.sum(1)[None] + (like - unlike).T[classes]  # (M, K)
    cost = cost - OVERLAP_COST * (overlaps + EPSILON).log() + OUTSIDE_COST * ~good
    counts = overlaps.topk(min(CANDIDATES, len(kept)), 1).values.sum(1).int().clamp(min=1)  # (M,)
    chosen = torch.zeros_like(good)
    order = cost.argsort(1)[:, : int(counts.max())]  # (M, most)
    chosen.scatter_(1, order, torch.arange(order.shape[1], device=order.device)[None] < counts[:, None])
    several = chosen.sum(0) > 1
    if several.any():  # the object it costs least keeps the cell
        chosen[:, several] = F.one_hot(cost[:, several].argmin(0), len(targets)).T.bool()
    cell = chosen.any(0).nonzero()[:, 0]
    objects = chosen[:, cell].int().argmax(0)
    return Assigned(kept[cell], objects, overlaps[objects, cell])


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return intersection over union of boxes of centre and size, `(..., 4)` and `(..., 4)` to `(...)`."""
    low = torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - shared + EPSILON)
