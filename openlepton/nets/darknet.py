"""Darknet's networks, from YOLOv1 to YOLOv4 and its classifiers: what a plan describes, as a network with its decode."""

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from openlepton.errors import UsageError
from openlepton.nets.blocks import fuse_children
from openlepton.nets.darknet_blocks import (
    Connection,
    Convolution,
    Enlarge,
    Epsilon,
    GroupSoftmax,
    Join,
    LocalConvolution,
    Mean,
    Pool,
    Reorganize,
    Sum,
    Unchanged,
)
from openlepton.nets.darknet_layers import (
    IMAGE,
    Avgpool,
    Connected,
    Convolutional,
    Detection,
    Head,
    Layer,
    Local,
    Maxpool,
    Region,
    Reorg,
    Route,
    Same,
    Shortcut,
    Softmax,
    Upsample,
    Yolo,
)
from openlepton.nets.darknet_plan import Plan


def _module(facts: Layer, epsilon: Epsilon) -> nn.Module:
    match facts:
        case Convolutional():
            return Convolution(facts, epsilon)
        case Local():
            return LocalConvolution(facts)
        case Connected():
            return Connection(facts, epsilon)
        case Maxpool():
            return Pool(facts)
        case Avgpool():
            return Mean()
        case Softmax():
            return GroupSoftmax(facts)
        case Route():
            return Join(facts)
        case Shortcut():
            return Sum(facts)
        case Upsample():
            return Enlarge(facts)
        case Reorg():
            return Reorganize(facts)
        case Same() | Head():
            return Unchanged()
    raise AssertionError(facts)


class Darknet(nn.Module):
    """The network that a plan describes; calling it gives what its heads read, `decode` makes boxes and scores of that."""

    def __init__(self, plan: Plan, epsilon: Epsilon = "variance") -> None:
        if epsilon not in ("variance", "deviation"):
            raise UsageError(f"epsilon: expected variance or deviation, got {epsilon!r}")
        super().__init__()
        self.config = plan
        self.layers = nn.ModuleList(_module(facts, epsilon) for facts in plan.layers)
        wanted = [(index, read) for index, facts in enumerate(plan.layers) for read in facts.reads]
        self._last = {read: index for index, read in wanted}  # after which layer a map is not needed any more

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `decode` returns."""
        return ("boxes", "scores") if self.config.task == "detect" else ("scores",)

    @property
    def multiple(self) -> int:
        """What height and width of the images must be divisible by, if they may differ from the plan's at all."""
        return self.config.multiple

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels per cell of each head, in their order."""
        side = self.config.size_hw[0]
        return tuple(side / self._cells(head)[0] for head in self._heads)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return what each head reads, `(B, ...)` logits, in the order of the file.

        Args:
            images: `(B, 3, H, W)` RGB, 0 to 1, of the plan's size, or any other that `multiple` divides if `any_size`.
        """
        maps, raw, heads = {IMAGE: images}, [], set(self.config.heads)
        for index, (facts, module) in enumerate(zip(self.config.layers, self.layers, strict=True)):
            if index in heads:
                raw.append(maps[facts.reads[0]])
            elif index in self._last or not raw:
                maps[index] = module(*(maps[read] for read in facts.reads))
            for read in facts.reads:
                if self._last[read] == index:
                    maps.pop(read, None)
        return raw

    def decode(self, raw: Sequence[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Return boxes `(B, N, 4)` as x1, y1, x2, y2 in input pixels and scores `(B, N, C)`; of a classifier, `(B, C)` scores.

        Rows come head by head in the order of the file, then by anchor, row and column of the cell (`[detection]`: by row and
        column, then by box). What lies outside of 0 to 1 in YOLOv1's scores, which are no probabilities, is cut off.
        """
        if self.config.task == "classify":
            scores: Tensor = self.layers[self.config.heads[0]](raw[0]).flatten(1)
            return scores
        found = []
        for x, head in zip(raw, self._heads, strict=True):
            stride_yx = tuple(s / c for s, c in zip(self.config.size_hw, self._cells(head), strict=True))
            found.append(_grouped(x, head, stride_yx) if isinstance(head, Detection) else _anchored(x, head, stride_yx))
        boxes, scores = (parts[0] if len(parts) == 1 else torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return boxes, scores

    def fused(self) -> Self:
        """Return an equal network for inference: batch norms inside convolutions."""
        fused = copy.deepcopy(self).eval()
        fuse_children(fused)
        return fused

    @property
    def _heads(self) -> list[Head]:
        heads = [self.config.layers[index] for index in self.config.heads]
        return [head for head in heads if isinstance(head, Head)]

    @staticmethod
    def _cells(head: Head) -> tuple[int, int]:
        return (head.side, head.side) if isinstance(head, Detection) else head.shape[1:]


def _anchored(raw: Tensor, head: Head, stride_yx: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return boxes `(B, A * H * W, 4)` and scores `(B, A * H * W, C)` of `[yolo]` or `[region]`."""
    assert isinstance(head, Yolo | Region)
    B, _, H, W = raw.shape
    raw = raw.reshape(B, head.boxes, 5 + head.classes, H, W)
    x, y, w, h, o = raw[:, :, :5].unbind(2)  # (B, A, H, W) each
    kinds = raw[:, :, 5:]  # (B, A, C, H, W)
    columns = torch.arange(W, dtype=raw.dtype, device=raw.device)
    rows = torch.arange(H, dtype=raw.dtype, device=raw.device)[:, None]
    anchors = torch.tensor(head.anchors, dtype=torch.float64)
    if isinstance(head, Region):
        anchors = anchors * torch.tensor(stride_yx[::-1], dtype=torch.float64)
    half = (anchors / 2).to(raw).T[..., None, None]  # (2, A, 1, 1) pixels
    scale = head.scale_xy if isinstance(head, Yolo) else 1.0
    if isinstance(head, Yolo) and head.new_coords:  # the convolution before has the sigmoid
        w, h = (2 * w) ** 2 * half[0], (2 * h) ** 2 * half[1]
    else:
        x, y, o = x.sigmoid(), y.sigmoid(), o.sigmoid()
        w, h = w.exp() * half[0], h.exp() * half[1]
        kinds = kinds.softmax(2) if isinstance(head, Region) else kinds.sigmoid()
    x = (x * scale + (columns - (scale - 1) / 2)) * stride_yx[1]
    y = (y * scale + (rows - (scale - 1) / 2)) * stride_yx[0]
    boxes = torch.stack((x - w, y - h, x + w, y + h), -1).reshape(B, -1, 4)
    scores = (kinds * o[:, :, None]).permute(0, 1, 3, 4, 2).reshape(B, -1, head.classes)
    return boxes, scores


def _grouped(raw: Tensor, head: Detection, stride_yx: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return boxes `(B, S * S * boxes, 4)` and scores of `[detection]`: all classes stand first, then confidences, places."""
    cells, side = head.side**2, head.side
    sizes = [cells * head.classes, cells * head.boxes, cells * head.boxes * 4]
    kinds, confidences, places = torch.split(raw.flatten(1), sizes, 1)
    kinds = kinds.reshape(-1, cells, 1, head.classes)
    if head.softmax:
        kinds = kinds.softmax(3)
    places = places.reshape(-1, cells, head.boxes, 4)
    numbers = torch.arange(cells, device=raw.device)
    corner = torch.stack((numbers % side, numbers // side), 1)[:, None].to(raw)  # (S * S, 1, 2)
    stride = torch.tensor(stride_yx[::-1], dtype=raw.dtype, device=raw.device)
    centre = (places[..., :2] + corner) * stride
    lengths = places[..., 2:] ** 2 if head.roots else places[..., 2:]
    half = lengths * (stride * side / 2)
    boxes = torch.cat((centre - half, centre + half), -1)
    scores = (confidences.reshape(-1, cells, head.boxes, 1) * kinds).clamp(0, 1)
    return boxes.flatten(1, 2), scores.flatten(1, 2)
