"""SORT: a Kalman filter, overlap and the Hungarian method.

A. Bewley et al., "Simple Online and Realtime Tracking", 2016.
"""

import numpy as np

from openlepton.arrays import Array, Image, Ints
from openlepton.errors import UsageError
from openlepton.results import Detections
from openlepton.video.camera import CameraMotion
from openlepton.video.kalman import begin, correct, predict, shift
from openlepton.video.tracks import assign, centres, identified, nothing, overlap

_ID, _CLASS, _MISSED, _HITS = range(4)  # rows of the table; the identity is 0 until enough hits confirm the track

# Coordinates are centre x, centre y, area, width / height; the last has no rate. Variances of values and of rates, (2, 4, 1):
BEGIN_VAR = np.array([[10, 10, 10, 10], [1e4, 1e4, 1e4, 0]]).reshape(2, 4, 1)
NOISE = np.array([[1, 1, 1, 1], [1e-2, 1e-2, 1e-4, 0]]).reshape(2, 4, 1)
SEEN_NOISE = np.array([[1.0], [1.0], [10.0], [10.0]])
POWERS = (2, 0)
"""How area and ratio grow with the scale of the picture."""


class Sort:
    """SORT; its state and its identities belong to the instance.

    Args:
        min_score: Detections that score less are not looked at.
        max_age: Frames for which a track that is not seen is kept.
        min_hits: Frames in a row in which a track must be seen before it counts; not in the first frames of all.
        min_overlap: The least overlap of a detection and its track.
        class_aware: Whether a track keeps to detections of its class.
        camera_motion: Whether to make up for the camera's motion; `update` then needs the images.

    Raises:
        UsageError: An option is out of range.
    """

    def __init__(
        self,
        *,
        min_score: float = 0.5,
        max_age: int = 1,
        min_hits: int = 3,
        min_overlap: float = 0.3,
        class_aware: bool = True,
        camera_motion: bool = False,
    ) -> None:
        check_options(min_score, max_age, min_hits)
        self._min_score, self._max_age, self._min_hits, self._least = min_score, max_age, min_hits, min_overlap
        self._class_aware = class_aware
        self._camera = CameraMotion() if camera_motion else None
        self._state = np.zeros((5, 4, 0))
        self._table = np.zeros((4, 0), np.int64)
        self._frames = 0
        self._given = 0

    def update(self, found: Detections, *, image: Image | None = None) -> Detections:
        """Return those of the next frame's detections that belong to a track, with `track_ids`; see `Tracker`."""
        sure = (found.scores >= self._min_score).nonzero()[0]
        seen = centres(found)[:, sure]
        class_ids = found.class_ids[sure]
        self._frames += 1
        motion = None if self._camera is None else self._camera.step(image)
        if not len(found) and not self._table.shape[1]:
            return nothing(found)
        advance(self._state, motion)
        alike = overlap(from_area(self._state[0]), seen)  # (N, M)
        if self._class_aware:
            alike *= self._table[_CLASS][:, None] == class_ids
        rows, columns = assign(alike, self._least)
        measured = to_area(seen)
        correct(self._state, rows, measured[:, columns], SEEN_NOISE)
        new = others(len(sure), columns)
        table = begin_table(self._table, class_ids[new])
        self._state = np.concatenate((self._state, begin(measured[:, new], BEGIN_VAR)), axis=2)
        rows = np.concatenate((rows, np.arange(self._table.shape[1], table.shape[1])))
        self._given += confirm(table, rows, self._min_hits if self._frames > self._min_hits else 1, self._given)
        ids = np.zeros(len(found), np.int64)
        ids[sure[np.concatenate((columns, new))]] = table[_ID, rows]
        kept = table[_MISSED] <= self._max_age
        self._state, self._table = self._state[..., kept], table[:, kept]
        return identified(found, ids)


def check_options(min_score: float, max_age: int, min_hits: int) -> None:
    """Raise for options out of range.

    Raises:
        UsageError: One is.
    """
    if not 0 <= min_score <= 1:
        raise UsageError(f"min_score: expected 0 to 1, got {min_score}")
    for what, value, least in (("max_age", max_age, 0), ("min_hits", min_hits, 1)):
        if value < least:
            raise UsageError(f"{what}: expected {least} or more, got {value}")


def others(count: int, rows: Ints) -> Ints:
    """Return the rows of `count` that are not among `rows`."""
    free = np.ones(count, bool)
    free[rows] = False
    return free.nonzero()[0]


def begin_table(table: Ints, class_ids: Ints) -> Ints:
    """Return the table `(4, N)` with a column for each new track."""
    new = np.zeros((4, len(class_ids)), np.int64)
    new[_CLASS] = class_ids
    return np.concatenate((table, new), axis=1)


def confirm(table: Ints, rows: Ints, min_hits: int, given: int) -> int:
    """Note in the table which tracks were seen, give identities to those that earned one, and return to how many.

    Args:
        table: `(4, N)` identity, class, frames missed, frames seen in a row.
        rows: `(K,)` the tracks that were seen.
        min_hits: How many frames in a row earn an identity.
        given: How many identities have been given before.
    """
    hits = table[_HITS, rows] + 1
    table[_MISSED] += 1
    table[_HITS] = 0
    table[_HITS, rows] = hits
    table[_MISSED, rows] = 0
    fresh = rows[(hits >= min_hits) & (table[_ID, rows] == 0)]
    table[_ID, fresh] = np.arange(given + 1, given + 1 + len(fresh))
    return len(fresh)


def advance(state: Array, motion: Array | None) -> None:
    """Move every track on by one frame, in place; an area does not shrink to nothing."""
    state[1, 2] *= state[0, 2] + state[1, 2] > 0
    predict(state, NOISE)
    if motion is not None:
        shift(state, motion, POWERS)


def to_area(seen: Array) -> Array:
    """Return centre, area and ratio from centre, width and height, `(4, N)`."""
    measured = seen.copy()
    measured[2] *= seen[3]
    measured[3] = seen[2] / seen[3]
    return measured


def from_area(coordinates: Array) -> Array:
    """Return centre, width and height from centre, area and ratio, `(4, N)`."""
    seen = coordinates.copy()
    area, ratio = np.maximum(coordinates[2:], 1e-6)
    seen[2] = np.sqrt(area * ratio)
    seen[3] = area / seen[2]
    return seen
