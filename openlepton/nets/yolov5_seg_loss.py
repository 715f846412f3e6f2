"""What YOLOv5 with masks learns from: the loss of the detectors, and cross-entropy of each mask inside its box."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from openlepton.errors import ShapeError
from openlepton.nets.losses import LossConfig
from openlepton.nets.yolov5_loss import Yolov5Loss

if TYPE_CHECKING:
    from openlepton.nets.yolov5 import Config


class MaskTargets(NamedTuple):
    """What is to be found in a batch."""

    boxes: Tensor
    """`(N, 6)` row of the batch, class, centre x, y, width and height in pixels of the images."""
    owners: Tensor
    """`(B, h, w)` integers at the size of the prototypes: 1 + the row in `boxes` of the object that a cell shows, or 0."""


class Yolov5SegLoss:
    """The loss of raw maps and prototypes against boxes and masks.

    Args:
        config: The network's.
        weights: Of the parts; masks weigh as boxes do.
        size: Longest side of the images of the training, pixels.
    """

    parts = ("box", "obj", "cls", "mask")

    def __init__(self, config: "Config", weights: LossConfig, size: int = 640) -> None:
        self.detection = Yolov5Loss(config, weights, size)
        self.classes, self.gain = config.classes, weights.box

    def __call__(self, raw: tuple[Sequence[Tensor], Tensor], targets: MaskTargets) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the batch's images, and its parts for one image, `(4,)` box, objectness, classes, mask.

        Args:
            raw: For each level `(B, A * (5 + C + 32), H, W)` logits, and the prototypes `(B, 32, h, w)`.
            targets: Boxes and masks.
        """
        maps, protos = raw
        B = len(protos)
        if targets.owners.shape != (B, *protos.shape[2:]):
            raise ShapeError(f"owners: expected {(B, *protos.shape[2:])}, got {tuple(targets.owners.shape)}")
        parts, answers = self.detection.terms(maps, targets.boxes)
        mask, protos = protos.new_zeros((), dtype=torch.float32), protos.float()
        stride = maps[0].shape[-1] * 8 / protos.shape[-1]  # pixels of a prototype's cell
        for found, own in answers:
            boxes = targets.boxes[found.target, 2:] / stride
            each = mask_loss(own[:, 5 + self.classes :], protos, found.image, boxes, targets.owners, found.target + 1)
            # The mean over the cells that answer in an image, then over all the images of the batch.
            count = torch.bincount(found.image, minlength=B).clamp(min=1)
            mask = mask + (each / count[found.image]).sum() / B
        parts = torch.cat((parts, mask[None] * self.gain))
        return parts.sum() * B, parts


def mask_loss(coeffs: Tensor, protos: Tensor, image: Tensor, boxes: Tensor, owners: Tensor, owner: Tensor) -> Tensor:
    """Return the cross-entropy of each mask, `(P,)`: the sum over the cells whose centre its box holds, for the box's area.

    Args:
        coeffs: `(P, 32)` what each mask takes of the prototypes.
        protos: `(B, 32, h, w)`.
        image: `(P,)` row of the batch.
        boxes: `(P, 4)` centre and size in cells.
        owners: `(B, h, w)` what each cell shows.
        owner: `(P,)` what of it each mask should be.
    """
    _, _, h, w = protos.shape
    ends = boxes.new_tensor([w, h])
    first = (boxes[:, :2] - boxes[:, 2:] / 2 - 0.5).ceil().clamp(min=0)
    first = torch.minimum(first, ends - 1).long()  # a box between two centres has the next one
    last = (boxes[:, :2] + boxes[:, 2:] / 2 - 0.5).ceil().long() - 1
    sides = torch.minimum(last, (ends - 1).long()) - first + 1
    sides = sides.clamp(min=1)  # (P, 2) columns and rows of cells
    sizes = sides.prod(1)
    mask = torch.arange(len(coeffs), device=coeffs.device).repeat_interleave(sizes)  # (T,) T cells, all masks together
    place = torch.arange(len(mask), device=mask.device) - (sizes.cumsum(0) - sizes)[mask]
    row, column = first[mask, 1] + place // sides[mask, 0], first[mask, 0] + place % sides[mask, 0]
    cell = row * w + column
    truth = owners[image[mask], row, column] == owner[mask]
    each = F.binary_cross_entropy_with_logits(
        _mixed(coeffs, protos, image, mask, cell), truth.float(), reduction="none"
    )
    area = boxes[:, 2:].prod(1).clamp(min=1)
    return each.new_zeros(len(coeffs)).index_add(0, mask, each) / area


def _mixed(coeffs: Tensor, protos: Tensor, image: Tensor, mask: Tensor, cell: Tensor) -> Tensor:
    """Return the logits, `(T,)`, of cells of masks: of these alone where they are few, else of all, by matrix products."""
    cells = protos.shape[2] * protos.shape[3]
    if len(mask) * coeffs.shape[1] < len(coeffs) * cells:
        rows = protos.permute(0, 2, 3, 1).reshape(-1, coeffs.shape[1])  # (B * h * w, 32)
        return (rows[image[mask] * cells + cell] * coeffs[mask]).sum(1)
    order = image.argsort(stable=True)
    counts = torch.bincount(image, minlength=len(protos)).tolist()
    whole = torch.cat(
        [mine @ proto.flatten(1) for mine, proto in zip(torch.split(coeffs[order], counts), protos, strict=True)]
    )  # (P, h * w), in the order of the images
    return whole.flatten()[order.argsort()[mask] * cells + cell]
