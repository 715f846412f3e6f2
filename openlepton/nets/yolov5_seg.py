"""YOLOv5 with masks (v7.0, 2022): the body of the detectors, and a head that says for each box what it takes of 32 prototypes.

The mask of an object is the sigmoid of its coefficients times the prototypes, cut at its box (YOLACT, arXiv:1904.02689);
`openlepton.vision.segment` makes it. Tensor names and shapes are those of the published checkpoints.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from openlepton.nets.losses import LossConfig
from openlepton.nets.yolov5 import Yolov5, config_of
from openlepton.nets.yolov5_heads import MASKS, Segment, level_of
from openlepton.nets.yolov5_seg_loss import Yolov5SegLoss


class Yolov5Seg(Yolov5):
    """A YOLOv5 that finds objects with their masks; calling it gives raw maps and prototypes for training."""

    outputs = ("boxes", "scores", "coeffs", "protos")
    head = Segment

    def criterion(self, weights: LossConfig, size: int) -> Yolov5SegLoss:
        """Return the loss for images of `size` pixels."""
        return Yolov5SegLoss(self.config, weights, size)

    def decode(self, maps: Any) -> tuple[Tensor, ...]:
        """Return boxes `(B, N, 4)`, scores `(B, N, C)`, coefficients `(B, N, 32)` and prototypes `(B, 32, h, w)`.

        Rows come as in a detector; a prototype's cell covers 4 x 4 pixels of the input.
        """
        raw, protos = maps
        anchors, classes = self.detect.anchors.shape[1], self.config.classes
        levels = [level_of(one, anchors, classes) if isinstance(one, Tensor) else one for one in raw]
        boxes, scores = super().decode(levels)
        coeffs = [
            each.permute(0, 2, 3, 1).reshape(each.shape[0], -1, MASKS) for level in levels for each in level.extra
        ]  # (B, H * W, 32) per level and anchor
        return boxes, scores, torch.cat(coeffs, 1), protos


def build(size: str, classes: int = 80, **changes: object) -> Yolov5Seg:
    """Return the network of `size` (n, s, m, l, x) with fresh weights; `changes` are fields of `Config`."""
    return Yolov5Seg(replace(config_of(size, classes), **changes))  # type: ignore[arg-type]
