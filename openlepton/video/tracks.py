"""What the trackers share: reading detections, comparing them with tracks, and giving them back with identities.

Coordinates are kept as `(4, N)`, one row for each: so every operation runs along the tracks.
"""

from dataclasses import replace
from math import isfinite

import numpy as np

from openlepton.arrays import Array, Ints
from openlepton.errors import ShapeError, missing_extra
from openlepton.results import Detections

LEAST_SIDE = 1e-2
"""Boxes without an extent count as so wide and high, pixels: a ratio needs one."""


def centres(found: Detections) -> Array:
    """Return `(4, N)` centre x, centre y, width, height of detections, in double precision.

    Raises:
        ShapeError: A box or a score is not a finite number.
    """
    corners = np.array(found.boxes.T, np.float64, order="C")
    if not isfinite(np.add.reduce(corners, axis=None) + np.add.reduce(found.scores, dtype=np.float64)):
        bad = int(np.flatnonzero(~(np.isfinite(found.boxes).all(axis=1) & np.isfinite(found.scores)))[0])
        box = ", ".join(f"{value:g}" for value in found.boxes[bad])
        raise ShapeError(f"detection {bad}: expected finite numbers, got box {box} with score {found.scores[bad]:g}")
    seen = np.empty_like(corners)
    np.subtract(corners[2:], corners[:2], out=seen[2:])
    np.maximum(seen[2:], LEAST_SIDE, out=seen[2:])
    np.add(corners[2:], corners[:2], out=seen[:2])
    seen[:2] *= 0.5
    return seen


def overlap(a: Array, b: Array) -> Array:
    """Return intersection over union of every pair, `(4, N)` and `(4, M)` centres and sides to `(N, M)`.

    The same numbers as `ops.boxes.iou`, in the layout and precision that tracks are kept in.
    """
    half_a, half_b = a[2:] / 2, b[2:] / 2
    sides = np.minimum((a[:2] + half_a)[:, :, None], (b[:2] + half_b)[:, None])  # (2, N, M)
    sides -= np.maximum((a[:2] - half_a)[:, :, None], (b[:2] - half_b)[:, None])
    np.maximum(sides, 0, out=sides)
    shared: Array = sides[0] * sides[1]
    union = (a[2] * a[3])[:, None] + b[2] * b[3]
    union -= shared
    shared /= union
    return shared


def assign(gain: Array, least: float) -> tuple[Ints, Ints]:
    """Return the pairs, `(K,)` rows and `(K,)` columns, that together exceed `least` by the most; no pair is at or below it."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise missing_extra("scipy", "video") from error
    cost = least - gain
    np.minimum(cost, 0, out=cost)
    rows, columns = linear_sum_assignment(cost)
    good = cost[rows, columns] < 0
    return (rows, columns) if np.count_nonzero(good) == len(good) else (rows[good], columns[good])


def nothing(found: Detections) -> Detections:
    """Return no detections, with no identities: what most frames of a quiet camera come to."""
    return replace(found, track_ids=np.zeros(0, np.int64))


def identified(found: Detections, track_ids: Ints) -> Detections:
    """Return the detections that have an identity, in their order.

    Args:
        found: All detections of the frame.
        track_ids: `(N,)`, 0 where there is none.
    """
    named = replace(found, track_ids=track_ids)
    return named if np.count_nonzero(track_ids) == len(track_ids) else named[track_ids.nonzero()[0]]
