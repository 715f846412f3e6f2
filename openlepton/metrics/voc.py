"""Average precision by the rules of PASCAL VOC, 2007 and later."""

from collections.abc import Sequence

import numpy as np

from openlepton.arrays import Array, Ints
from openlepton.errors import UsageError
from openlepton.metrics.matching import pairs
from openlepton.metrics.truth import GroundTruth, stack
from openlepton.results import Detections


def voc_ap(
    truth: Sequence[GroundTruth],
    found: Sequence[Detections],
    names: Sequence[str],
    *,
    min_iou: float = 0.5,
    points: int | None = None,
) -> Array:
    """Return the average precision of each class, `(C,)`; NaN without objects (Everingham et al. 2010, section 4.2).

    A detection is compared only with the object of its class that it overlaps most: a hit if that one is free, a false
    alarm if a better score had it, neither if it is to be ignored (`difficult`). COCO's rule would try the next object.

    Boxes are edges in pixels. VOC's files give inclusive pixels from 1: x1 - 1, y1 - 1, x2, y2 are the same boxes.

    Args:
        truth: One for each image.
        found: One for each image.
        names: The class names, all of them, by class id.
        min_iou: The least overlap of a hit.
        points: 11 samples precision at recalls 0, 0.1 .. 1, as VOC2007 did; None takes the whole area, as since 2010.

    Raises:
        UsageError: The sets or their class names do not belong together, or there are fewer than two points.
    """
    if points is not None and points < 2:
        raise UsageError(f"points: expected None or at least 2, got {points}")
    objects, detections = stack(truth, found, names)
    rows, columns, overlap = pairs(objects, detections, min_iou, by_class=True)
    nearest = np.full(len(detections), -1)
    order = np.lexsort((-columns, overlap))  # the last to write overlaps most; of equals, the first object
    nearest[rows[order]] = columns[order]
    ranked = np.argsort(-detections.scores, kind="stable")
    hit = np.zeros(len(detections), np.bool_)
    claimed, first = np.unique(nearest[ranked], return_index=True)
    hit[ranked[first[claimed >= 0]]] = True
    counted = (nearest < 0) | ~objects.ignored[nearest] if len(objects) else np.ones(len(detections), np.bool_)
    ranked = ranked[counted[ranked]]
    labels, hits = detections.class_ids[ranked], hit[ranked]
    positives = np.bincount(objects.class_ids[~objects.ignored], minlength=len(names))
    return np.array([_area(hits[labels == index], count, points) for index, count in enumerate(positives.tolist())])


def _area(hits: Array, positives: int, points: int | None) -> float:
    """Return the average precision of detections `(K,)` in order of score."""
    if not positives:
        return float("nan")
    found: Ints = np.cumsum(hits)
    recall = found / positives
    precision = np.maximum.accumulate((found / np.arange(1, len(hits) + 1))[::-1])[::-1]
    if points is None:
        return float((np.diff(recall, prepend=0.0) * precision).sum())
    at = np.arange(points) * (1 / (points - 1))  # 0.3 is 0.30000000000000004 here, as in the development kit
    return float(np.append(precision, 0.0)[np.searchsorted(recall, at, "left")].mean())
