"""Several sets of boxes of one image into one: weighted-box fusion, and objects that the border of a tile cut."""

from collections.abc import Sequence

import numpy as np

from openlepton.arrays import Bools, Boxes, Floats, Ints
from openlepton.errors import ShapeError
from openlepton.ops.boxes import area, iou

MIN_EXTENT = 0.5
"""Two halves of an object agree along the border that cut it by at least this overlap, as intersection over union."""
MIN_INSIDE = 0.6
"""A cut box of which at least this share lies in a larger box of its class is a part of what that one shows."""


def weighted_fusion(
    boxes: Boxes,
    scores: Floats,
    class_ids: Ints,
    *,
    max_iou: float = 0.55,
    sets: int = 1,
) -> tuple[Boxes, Floats, list[Ints]]:
    """Return fused boxes `(K, 4)`, their scores `(K,)`, best first, and the rows that went into each.

    Weighted boxes fusion (Solovyev et al. 2019, arXiv:1910.13302): in order of score each box joins the cluster of its class
    that it overlaps most, by more than `max_iou`, or begins a new one; a cluster's box is the mean weighted by score, its
    score the mean, times the share of the `sets` that took part.

    Args:
        boxes: `(N, 4)` x1, y1, x2, y2, of all sets together.
        scores: `(N,)` 0..1.
        class_ids: `(N,)`.
        max_iou: The overlap above which two boxes are one.
        sets: How many models or views could have found each object.
    """
    if boxes.shape != (len(scores), 4) or class_ids.shape != scores.shape:
        raise ShapeError(f"boxes: expected ({len(scores)}, 4), got {boxes.shape}")
    members: list[list[int]] = []
    fused = np.zeros((len(scores), 4), np.float64)  # of the clusters so far
    labels = np.full(len(scores), -1, np.int64)
    for row in np.argsort(-scores, kind="stable").tolist():
        count = len(members)
        over = iou(boxes[row : row + 1], fused[:count].astype(np.float32))[0]
        over[labels[:count] != class_ids[row]] = -1
        best = int(over.argmax()) if count else -1
        if best < 0 or over[best] <= max_iou:
            best = count
            members.append([])
            labels[best] = class_ids[row]
        members[best].append(row)
        rows = members[best]
        weights = scores[rows].astype(np.float64)
        fused[best] = np.average(boxes[rows], axis=0, weights=weights if weights.sum() > 0 else None)
    found = np.array([scores[rows].mean() * min(len(rows), sets) / sets for rows in members], np.float64)
    order = np.argsort(-found, kind="stable")
    return (
        fused[order].astype(np.float32),
        found[order].astype(np.float32),
        [np.array(members[index], np.int64) for index in order.tolist()],
    )


def join_cut(boxes: Boxes, scores: Floats, class_ids: Ints, cut: Bools) -> tuple[Boxes, list[Ints]]:
    """Return boxes `(K, 4)` in which what tile borders cut is whole again, and the rows that went into each.

    A box that a border cuts on its right and one that a border cuts on its left are one object where they overlap and are as
    high; likewise below and above. What is still cut afterwards and lies in a larger box of its class is dropped: that box
    comes from a tile that saw more of it.

    Args:
        boxes: `(N, 4)` x1, y1, x2, y2 in pixels of the whole image.
        scores: `(N,)`
        class_ids: `(N,)`
        cut: `(N, 4)` which sides (left, top, right, bottom) lie on a border that is not the image's.
    """
    first, second = _halves(boxes, class_ids, cut)
    group = _components(len(boxes), first, second)
    rows = [np.flatnonzero(group == index) for index in range(int(group.max(initial=-1)) + 1)]
    whole = np.zeros((len(rows), 4), boxes.dtype)
    open_ = np.zeros(len(rows), bool)
    for index, mine in enumerate(rows):
        whole[index, :2], whole[index, 2:] = boxes[mine, :2].min(0), boxes[mine, 2:].max(0)
        ends = boxes[mine] == whole[index]
        open_[index] = (cut[mine] & ends).any()
    labels = class_ids[[int(mine[0]) for mine in rows]] if rows else class_ids[:0]
    return _without_parts(whole, labels, open_, rows)


def _halves(boxes: Boxes, class_ids: Ints, cut: Bools) -> tuple[Ints, Ints]:
    """Return the pairs of rows that are two sides of one cut, `(P,)` and `(P,)`."""
    same = class_ids[:, None] == class_ids[None]
    lows = np.maximum(boxes[:, None, :2], boxes[None, :, :2])  # (N, N, 2)
    highs = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    touch = (highs >= lows).all(2) & same
    whole = np.maximum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.minimum(boxes[:, None, :2], boxes[None, :, :2])
    agree = np.maximum(highs - lows, 0) / np.maximum(whole, 1e-9) >= MIN_EXTENT  # (N, N, 2) along x, along y
    beside = cut[:, None, 2] & cut[None, :, 0] & agree[..., 1] & (boxes[:, None, 0] < boxes[None, :, 0])
    above = cut[:, None, 3] & cut[None, :, 1] & agree[..., 0] & (boxes[:, None, 1] < boxes[None, :, 1])
    first, second = np.nonzero((beside | above) & touch)
    return first, second


def _components(count: int, first: Ints, second: Ints) -> Ints:
    """Return the number of the group of each row, `(count,)`, when the rows of each pair are in one group."""
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        parent[root(a)] = root(b)
    _, group = np.unique([root(row) for row in range(count)], return_inverse=True)
    return np.asarray(group, np.int64).reshape(count)


def _without_parts(boxes: Boxes, labels: Ints, open_: Bools, rows: list[Ints]) -> tuple[Boxes, list[Ints]]:
    """Leave out boxes that are still cut and lie in a larger one of their class."""
    areas = area(boxes)
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    inside = np.maximum(high - low, 0).prod(2) / np.maximum(areas, 1e-9)[:, None]  # (K, K) share of the first
    larger = (areas[None] > areas[:, None]) & (labels[None] == labels[:, None])
    part = open_ & ((inside >= MIN_INSIDE) & larger).any(1)
    kept = np.flatnonzero(~part)
    return boxes[kept], [rows[index] for index in kept.tolist()]


def tile_starts(length: int, tile: int, overlap: float) -> Sequence[int]:
    """Return where tiles begin along a side of `length` pixels: evenly spread, overlapping by at least `overlap` of a tile."""
    if length <= tile:
        return [0]
    count = -(-(length - tile) // max(int(tile * (1 - overlap)), 1)) + 1
    return np.linspace(0, length - tile, count).round().astype(int).tolist()  # type: ignore[no-any-return]
