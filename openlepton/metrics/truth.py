"""What there is to find: annotations as values, and whole sets as parallel arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from openlepton.arrays import Array, Bools, Ints
from openlepton.errors import ShapeError, UsageError
from openlepton.ops.masks import Rle
from openlepton.results import Detections


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What is annotated in one image.

    Raises:
        ShapeError: The arrays do not have the same number of rows, or a box is not finite or is inside out.
    """

    boxes: Array
    """`(M, 4)` float64 x1, y1, x2, y2 in pixels: rounding annotations to float32 moves some across a threshold."""
    class_ids: Ints
    """`(M,)` int64, indices into the class names."""
    crowd: Bools | None = None
    """`(M,)` regions of many objects (COCO's `iscrowd`): any number of detections inside them count neither way."""
    ignore: Bools | None = None
    """`(M,)` objects that need not be found (VOC's `difficult`): missed or found, they count neither way."""
    areas: Array | None = None
    """`(M,)` square pixels, for small, medium and large; None takes the boxes'. COCO's files state the masks'."""
    masks: Sequence[Rle] | None = None
    """`(M,)` where the objects are exactly; None where masks are not measured."""

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float64)
        object.__setattr__(self, "boxes", boxes.reshape(0, 4) if boxes.size == 0 else boxes)
        object.__setattr__(self, "class_ids", np.asarray(self.class_ids, np.int64))
        for name, dtype in (("crowd", np.bool_), ("ignore", np.bool_), ("areas", np.float64)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        self._check()

    def _check(self) -> None:
        count = len(self.class_ids)
        if self.boxes.shape != (count, 4):
            raise ShapeError(f"boxes: expected ({count}, 4), got {self.boxes.shape}")
        if self.masks is not None and len(self.masks) != count:
            raise ShapeError(f"masks: expected {count}, got {len(self.masks)}")
        for name in ("class_ids", "crowd", "ignore", "areas"):
            values = getattr(self, name)
            if values is not None and values.shape != (count,):
                raise ShapeError(f"{name}: expected ({count},), got {values.shape}")
        bad = ~np.isfinite(self.boxes).all(axis=1) | (self.boxes[:, 2:] < self.boxes[:, :2]).any(axis=1)
        if bad.any():
            row = int(bad.argmax())
            raise ShapeError(f"boxes: row {row} is not x1 <= x2, y1 <= y2: {self.boxes[row].tolist()}")

    def __len__(self) -> int:
        return len(self.class_ids)


@dataclass(frozen=True, eq=False)
class Stack:
    """The objects of a set of images, or the detections in it, as parallel arrays in the order of the images."""

    image_ids: Ints
    """`(N,)` position of the image in the set."""
    class_ids: Ints
    """`(N,)`"""
    boxes: Array
    """`(N, 4)` float64."""
    scores: Array
    """`(N,)` float32; ones for objects."""
    crowd: Bools
    """`(N,)`"""
    ignored: Bools
    """`(N,)` crowd or to be ignored."""
    areas: Array
    """`(N,)` float64 square pixels."""
    masks: tuple[Rle, ...] | None = None
    """`(N,)` what overlaps are taken of, in place of boxes."""

    def __len__(self) -> int:
        return len(self.class_ids)


def stack(
    truth: Sequence[GroundTruth], found: Sequence[Detections], names: Sequence[str], *, masks: bool = False
) -> tuple[Stack, Stack]:
    """Return all objects and all detections of a set, checked against each other; their overlaps are those of boxes, or `masks`.

    Raises:
        UsageError: There are no images, not as many results as images, the results have other class names, or no masks.
        ShapeError: A class id has no name, or a detection is not finite.
    """
    if len(truth) != len(found) or not truth:
        raise UsageError(f"expected one result for each annotated image, got {len(found)} for {len(truth)}")
    for index, one in enumerate(found):
        if one.names is not names and list(one.names) != list(names):
            raise UsageError(f"image {index}: the detections have other class names than the annotations")
    objects, detections = _stack_truth(truth, len(names)), _stack_found(found)
    if not masks:
        return objects, detections
    drawn, own = _masks(truth, "annotations"), _masks(found, "detections")
    areas = np.array([mask.area for mask in own], np.float64)
    return replace(objects, masks=drawn), replace(detections, masks=own, areas=areas)


def _stack_truth(truth: Sequence[GroundTruth], classes: int) -> Stack:
    counts = [len(one) for one in truth]
    class_ids = np.concatenate([one.class_ids for one in truth])
    if len(class_ids) and (class_ids.min() < 0 or class_ids.max() >= classes):
        raise ShapeError(f"class_ids: expected 0..{classes - 1}, got {class_ids.min()}..{class_ids.max()}")
    boxes = np.concatenate([one.boxes for one in truth])
    crowd = _filled([one.crowd for one in truth], counts)
    return Stack(
        image_ids=np.repeat(np.arange(len(truth)), counts),
        class_ids=class_ids,
        boxes=boxes,
        scores=np.ones(len(class_ids), np.float32),
        crowd=crowd,
        ignored=crowd | _filled([one.ignore for one in truth], counts),
        areas=np.concatenate([_areas(one.boxes) if one.areas is None else one.areas for one in truth]),
    )


def _stack_found(found: Sequence[Detections]) -> Stack:
    boxes = np.concatenate([one.boxes for one in found]).astype(np.float64)
    scores = np.concatenate([one.scores for one in found])
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        row = int((~np.isfinite(boxes).all(axis=1) | ~np.isfinite(scores)).argmax())
        raise ShapeError(f"detections: row {row} is not finite: {boxes[row].tolist()}, score {scores[row]}")
    never = np.zeros(len(scores), np.bool_)
    return Stack(
        image_ids=np.repeat(np.arange(len(found)), [len(one) for one in found]),
        class_ids=np.concatenate([one.class_ids for one in found]),
        boxes=boxes,
        scores=scores,
        crowd=never,
        ignored=never,
        areas=_areas(boxes),
    )


def _masks(images: Sequence[GroundTruth | Detections], what: str) -> tuple[Rle, ...]:
    for index, one in enumerate(images):
        if one.masks is None and len(one):
            raise UsageError(f"image {index}: the {what} have no masks")
    return tuple(mask for one in images for mask in one.masks or ())


def _filled(flags: Sequence[Any], counts: Sequence[int]) -> Bools:
    sized = zip(flags, counts, strict=True)
    return np.concatenate([np.zeros(count, np.bool_) if flag is None else flag for flag, count in sized])


def _areas(boxes: Array) -> Array:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
