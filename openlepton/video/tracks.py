"""What the trackers share: reading detections, assigning them to tracks, and giving them back with identities."""

from dataclasses import replace

import numpy as np

from openlepton.arrays import Array, Bools, Ints
from openlepton.errors import ShapeError, missing_extra
from openlepton.results import Detections

LEAST_SIDE = 1e-2
"""Boxes without an extent count as so wide and high, pixels: a ratio needs one."""


def centres(found: Detections) -> Array:
    """Return `(N, 4)` centre x, centre y, width, height of detections, in double precision.

    Raises:
        ShapeError: A box or a score is not a finite number.
    """
    boxes = found.boxes.astype(np.float64)
    if not np.isfinite(boxes.sum() + found.scores.sum(dtype=np.float64)):
        bad = int(np.flatnonzero(~(np.isfinite(boxes).all(axis=1) & np.isfinite(found.scores)))[0])
        box = ", ".join(f"{value:g}" for value in boxes[bad])
        raise ShapeError(f"detection {bad}: expected finite numbers, got box {box} with score {found.scores[bad]:g}")
    low, high = boxes[:, :2], boxes[:, 2:]
    sides = np.maximum(high - low, LEAST_SIDE)
    return np.concatenate(((low + high) / 2, sides), axis=1)


def assign(gain: Array, least: float) -> tuple[Ints, Ints]:
    """Return the pairs, `(K,)` rows and `(K,)` columns, that together exceed `least` by the most; no pair is at or below it."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise missing_extra("scipy", "video") from error
    worth = gain - least
    np.maximum(worth, 0, out=worth)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    good = worth[rows, columns] > 0
    return rows[good], columns[good]


def same_class(class_ids: Ints, others: Ints) -> Bools:
    """Return which pairs are of one class, `(N,)` and `(M,)` to `(N, M)`."""
    alike: Bools = class_ids[:, None] == others
    return alike


def identified(found: Detections, track_ids: Ints) -> Detections:
    """Return the detections that have an identity, in their order.

    Args:
        found: All detections of the frame.
        track_ids: `(N,)`, 0 where there is none.
    """
    named = replace(found, track_ids=track_ids)
    return named if track_ids.all() else named[track_ids > 0]
