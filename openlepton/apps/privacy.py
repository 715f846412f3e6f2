"""Making people unrecognisable in what is written."""

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from openlepton.arrays import Boxes, Image
from openlepton.ops.boxes import iou
from openlepton.results import Detections

BLOCKS = 6
"""A region keeps no more blocks than this along its shorter side, each of one mean colour: that cannot be undone."""

HEAD_SHARE = 0.3
"""The upper part of an upright person's box that surely holds the head."""

HOLD_S = 0.6
"""Regions stay covered for so long after their detection is lost: detectors miss a frame now and then."""

SAME_IOU = 0.3
"""A region that overlaps an older one by more has taken its place."""


def cover(image: Image, regions: Boxes) -> Image:
    """Return a copy of `image` `(H, W, 3)` with the regions `(N, 4)` x1, y1, x2, y2 reduced to a few blurred blocks each."""
    covered = image.copy()
    for x1, y1, x2, y2 in _inside(regions, image.shape[:2]):
        part = covered[y1:y2, x1:x2]
        side = max(1, -(-min(part.shape[:2]) // BLOCKS))
        small = (max(1, part.shape[1] // side), max(1, part.shape[0] // side))
        blocks = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
        covered[y1:y2, x1:x2] = cv2.resize(blocks, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return covered


def regions(found: Detections, blur: Literal["none", "persons", "heads"], classes: Sequence[str]) -> Boxes:
    """Return what to cover, `(N, 4)`: the boxes of `classes`, a tenth wider on each side, or the heads in them.

    Of a box that is wider than tall, which may be somebody lying, the whole is covered in place of the head.
    """
    if blur == "none":
        return np.zeros((0, 4), np.float32)
    boxes = found.boxes[np.isin(np.array(found.labels, dtype=object), list(classes))].astype(np.float64)
    size = boxes[:, 2:] - boxes[:, :2]
    if blur == "heads":
        upright = size[:, 1] > size[:, 0]
        boxes[upright, 3] = boxes[upright, 1] + HEAD_SHARE * size[upright, 1]
    margin = 0.1 * size
    margin[:, 1] = np.minimum(margin[:, 1], 0.1 * (boxes[:, 3] - boxes[:, 1]))
    return np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1).astype(np.float32)


class Veil:
    """Regions of one source over time: what was covered stays covered for a moment after its detection is lost."""

    def __init__(self) -> None:
        self._boxes, self._since = np.zeros((0, 4), np.float32), np.zeros(0)

    def update(self, covered: Boxes, time_s: float) -> Boxes:
        """Return everything to cover in the frame of `time_s`: its own regions, and those that nothing has replaced yet."""
        replaced = iou(self._boxes, covered).max(axis=1, initial=0.0) > SAME_IOU
        lost = ~replaced & (time_s - self._since <= HOLD_S)
        self._boxes = np.concatenate([covered, self._boxes[lost]])
        self._since = np.concatenate([np.full(len(covered), time_s), self._since[lost]])
        return self._boxes


def _inside(boxes: Boxes, image_hw: Sequence[int]) -> list[tuple[int, int, int, int]]:
    low, high = np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])
    corners = np.concatenate([low, high], axis=1).clip(0, [image_hw[1], image_hw[0]] * 2).astype(int)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in corners.tolist() if x2 > x1 and y2 > y1]
