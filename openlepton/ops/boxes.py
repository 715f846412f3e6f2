"""Boxes: conversions, intersection over union, and non-maximum suppression."""

import numpy as np

from openlepton.arrays import Bools, Boxes, Floats, Ints
from openlepton.errors import ShapeError

NMS_TOP = 30_000
"""How many candidates suppression looks at, highest scores first."""

_CHUNK = 1024


def cxcywh_to_xyxy(boxes_cxcywh: Floats) -> Boxes:
    """Return `(..., 4)` boxes as x1, y1, x2, y2 from centre and size."""
    half = boxes_cxcywh[..., 2:] / 2
    return np.concatenate([boxes_cxcywh[..., :2] - half, boxes_cxcywh[..., :2] + half], axis=-1)


def xyxy_to_cxcywh(boxes: Boxes) -> Floats:
    """Return `(..., 4)` boxes as centre and size from x1, y1, x2, y2."""
    return np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], axis=-1)


def area(boxes: Boxes) -> Floats:
    """Return the area of every box, `(N, 4)` to `(N,)` square pixels; 0 for a box that is inside out."""
    sides: Floats = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]


def clip(boxes: Boxes, image_hw: tuple[int, int]) -> Boxes:
    """Return `(N, 4)` boxes cut to an image of `image_hw` pixels."""
    height, width = image_hw
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))


def iou(a: Boxes, b: Boxes) -> Floats:
    """Return intersection over union of every pair, `(N, 4)` and `(M, 4)` to `(N, M)`; 0 where both have no area."""
    _check(a)
    _check(b)
    shared = _intersection(np.ascontiguousarray(a.T), np.ascontiguousarray(b.T))  # (N, M)
    union = area(a)[:, None] + area(b)[None, :] - shared
    over: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return over


def nms(
    boxes: Boxes,
    scores: Floats,
    class_ids: Ints | None = None,
    *,
    max_iou: float = 0.45,
    max_detections: int | None = None,
) -> Ints:
    """Return the rows that greedy non-maximum suppression keeps, `(K,)`, highest score first, equal scores by row.

    A box goes when its overlap with a kept box is strictly greater than `max_iou`. The `NMS_TOP` highest scores take part.
    The result is exact: it does not depend on time, on block sizes, or on how far classes are apart (classes are compared,
    not moved away from each other by an offset, which costs float32 a sixteenth of a pixel).

    Args:
        boxes: `(N, 4)` x1, y1, x2, y2.
        scores: `(N,)`.
        class_ids: `(N,)`; boxes of different classes never suppress each other. None compares all with all.
        max_iou: The overlap, 0..1, above which the lower score goes.
        max_detections: Stop after so many.
    """
    _check(boxes)
    if scores.shape != (len(boxes),) or (class_ids is not None and class_ids.shape != scores.shape):
        raise ShapeError(f"scores and class_ids: expected ({len(boxes)},), got {scores.shape}")
    order = np.argsort(-scores, kind="stable")[:NMS_TOP]
    limit = len(order) if max_detections is None else max_detections
    ranked = np.asarray(boxes[order], np.float32)  # (N, 4), best first
    labels = np.zeros(len(order), np.int64) if class_ids is None else class_ids[order]
    kept = np.zeros(0, np.int64)
    for start in range(0, len(order), _CHUNK):
        rows = np.concatenate([kept, np.arange(start, min(start + _CHUNK, len(order)))])
        winners, losers = _overlapping(ranked[rows], labels[rows], max_iou)
        kept = rows[_survivors(len(rows), winners, losers)]
        if len(kept) >= limit:
            break
    return order[kept[:limit]]


def _survivors(count: int, winners: Ints, losers: Ints) -> Bools:
    """Return which of `count` rows are left, `(count,)`, when each row that is still there removes those it overlaps.

    Args:
        count: The number of rows, best first.
        winners: `(P,)` the better row of each overlapping pair.
        losers: `(P,)` the other.
    """
    alive = np.ones(count, bool)
    by_winner = np.argsort(winners, kind="stable")
    losers = losers[by_winner]
    rows, starts = np.unique(winners[by_winner], return_index=True)
    bounds = [*starts.tolist(), len(losers)]
    for row, start, end in zip(rows.tolist(), bounds[:-1], bounds[1:], strict=True):
        if alive[row]:
            alive[losers[start:end]] = False
    return alive


def _overlapping(boxes: Boxes, labels: Ints, max_iou: float) -> tuple[Ints, Ints]:
    """Return the pairs of rows, `(P,)` and `(P,)` with the first the smaller, of one class that overlap by more than `max_iou`.

    A sweep from left to right within each class. Boxes a and b with an overlap above t share more than t times the width of
    either, and likewise for the height, so most pairs are never formed and most of the rest need two comparisons.
    """
    sweep = np.lexsort((boxes[:, 0], labels))
    x1, y1, x2, y2 = np.ascontiguousarray(boxes[sweep].T)
    width, height = np.maximum(x2 - x1, 0), np.maximum(y2 - y1, 0)
    slack = np.float32(max_iou * (1 - 1e-5))  # rounding must never lose a pair here; the exact test comes last
    far = _rank(x2 - slack * width, labels[sweep], x1)
    first, second = _pairs(far)
    tall = np.minimum(y2[first], y2[second]) - np.maximum(y1[first], y1[second])
    near = tall > slack * np.maximum(height[first], height[second])
    first, second, tall = first[near], second[near], tall[near]
    wide = np.maximum(np.minimum(x2[first], x2[second]) - np.maximum(x1[first], x1[second]), 0)
    areas = width * height
    shared = wide * tall
    union = areas[first] + areas[second] - shared
    over = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0) > np.float64(max_iou)
    a, b = sweep[first[over]], sweep[second[over]]
    return np.minimum(a, b), np.maximum(a, b)


def _rank(reach: Floats, labels: Ints, x1: Floats) -> Ints:
    """Return for each row of a sweep the end, `(N,)`, of the rows of its class that begin no further right than `reach`."""
    ends = np.empty(len(x1), np.int64)
    bounds = np.flatnonzero(np.diff(labels)) + 1
    for start, end in zip([0, *bounds.tolist()], [*bounds.tolist(), len(x1)], strict=True):
        ends[start:end] = start + np.searchsorted(x1[start:end], reach[start:end], side="right")
    return ends


def _pairs(ends: Ints) -> tuple[Ints, Ints]:
    """Return every pair of a row and a later one before its end, `(N,)` to `(P,)` and `(P,)`."""
    rows = np.arange(len(ends))
    counts = np.maximum(ends - rows - 1, 0)
    first = np.repeat(rows, counts)
    before = np.cumsum(counts) - counts
    second = np.arange(len(first)) - np.repeat(before - rows - 1, counts)
    return first, second


def _intersection(a: Floats, b: Floats) -> Floats:
    """Return the shared area of every pair, `(4, N)` and `(4, M)` to `(N, M)`."""
    shared: Floats = np.minimum(a[2][:, None], b[2][None, :])
    shared -= np.maximum(a[0][:, None], b[0][None, :])
    np.maximum(shared, 0, out=shared)
    height = np.minimum(a[3][:, None], b[3][None, :])
    height -= np.maximum(a[1][:, None], b[1][None, :])
    np.maximum(height, 0, out=height)
    shared *= height
    return shared


def _check(boxes: Boxes) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ShapeError(f"boxes: expected (N, 4), got {boxes.shape}")
