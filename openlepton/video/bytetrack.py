"""ByteTrack: what the detector is unsure of continues tracks, but begins none.

Y. Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", 2021, algorithm 1; the filter and its
noises, which follow the height of the box, are DeepSORT's (N. Wojke et al., 2017).
"""

import numpy as np

from openlepton.arrays import Array, Image, Ints
from openlepton.errors import UsageError
from openlepton.ops.boxes import iou
from openlepton.results import Detections
from openlepton.video.camera import CameraMotion
from openlepton.video.kalman import begin, correct, predict, shift
from openlepton.video.tracks import assign, centres, identified, same_class

_ID, _CLASS, _MISSED = range(3)  # rows of the table; the identity is 0 until a second frame confirms the track

# Coordinates are centre x, centre y, width / height, height. Standard deviations in heights, and what the ratio's is instead.
_PLACE, _RATE = 1 / 20, 1 / 160
_TALL = np.array([1.0, 1.0, 0.0, 1.0])
_RATIO = np.array([0.0, 0.0, 1.0, 0.0])


class ByteTrack:
    """ByteTrack; its state and its identities belong to the instance.

    Args:
        min_score: Detections that score at least this are sure: they continue tracks first, and may begin some.
        low_score: Those between this and `min_score` continue tracks that were seen in the frame before.
        new_score: What a detection must score to begin a track; `min_score` + 0.1 by default.
        max_age: Frames for which a track that is not seen is kept.
        min_overlap: The least overlap times score of a sure detection and its track.
        min_overlap_low: The least overlap of an unsure detection and its track.
        min_overlap_new: The least overlap times score of a track's second detection and its first.
        class_aware: Whether a track keeps to detections of its class.
        camera_motion: Whether to make up for the camera's motion; `update` then needs the images.

    Raises:
        UsageError: An option is out of range.
    """

    def __init__(
        self,
        *,
        min_score: float = 0.6,
        low_score: float = 0.1,
        new_score: float | None = None,
        max_age: int = 30,
        min_overlap: float = 0.2,
        min_overlap_low: float = 0.5,
        min_overlap_new: float = 0.3,
        class_aware: bool = True,
        camera_motion: bool = False,
    ) -> None:
        new_score = min_score + 0.1 if new_score is None else new_score
        if not 0 <= low_score <= min_score <= 1 or max_age < 0:
            raise UsageError(
                f"expected 0 <= low_score <= min_score <= 1 and max_age >= 0, got {low_score}, {min_score}, {max_age}"
            )
        self._low, self._sure, self._new, self._max_age = low_score, min_score, new_score, max_age
        self._overlaps = min_overlap, min_overlap_low, min_overlap_new
        self._class_aware = class_aware
        self._camera = CameraMotion() if camera_motion else None
        self._state = np.zeros((5, 0, 4))
        self._table = np.zeros((3, 0), np.int64)
        self._frames = 0
        self._given = 0

    def update(self, found: Detections, *, image: Image | None = None) -> Detections:
        """Return those of the next frame's detections that belong to a track, with `track_ids`; see `Tracker`."""
        seen = centres(found)
        measured = seen.copy()
        measured[:, 2] /= seen[:, 3]
        self._frames += 1
        self._predict(None if self._camera is None else self._camera.step(image))
        track_of = self._associate(found)
        columns = np.flatnonzero(track_of >= 0)
        rows = track_of[columns]
        correct(self._state, rows, measured[columns], _variance(self._state[0, rows], _PLACE, 0.1))
        table = self._table
        table[_MISSED] += 1
        table[_MISSED, rows] = 0
        fresh = rows[table[_ID, rows] == 0]
        table[_ID, fresh] = self._next_ids(len(fresh))
        ids = np.zeros(len(found), np.int64)
        ids[columns] = table[_ID, rows]
        self._forget()
        born = np.flatnonzero((track_of < 0) & (found.scores >= self._new))
        if len(born):
            ids[born] = self._begin(measured[born], found.class_ids[born])
        return identified(found, ids)

    def _associate(self, found: Detections) -> Ints:
        """Return the track of each detection, `(M,)`; -1 for none."""
        track_of = np.full(len(found), -1)
        ids, class_ids, missed = self._table
        if not len(found) or not len(ids):
            return track_of
        overlap = iou(_boxes(self._state[0]), found.boxes)  # (N, M)
        if self._class_aware:
            overlap *= same_class(class_ids, found.class_ids)
        fused = overlap * found.scores
        sure = found.scores >= self._sure
        known = ids > 0
        free = np.ones(len(ids), bool)

        def match(gain: Array, rows: Ints, columns: Ints, least: float) -> None:
            if len(rows) and len(columns):
                first, second = assign(gain[rows[:, None], columns], least)
                track_of[columns[second]] = rows[first]
                free[rows[first]] = False

        strong, weak = np.flatnonzero(sure), np.flatnonzero(~sure & (found.scores >= self._low))
        least, least_low, least_new = self._overlaps
        match(fused, np.flatnonzero(known), strong, least)
        match(overlap, np.flatnonzero(known & free & (missed == 0)), weak, least_low)
        match(fused, np.flatnonzero(~known), strong[track_of[strong] < 0], least_new)
        return track_of

    def _predict(self, motion: Array | None) -> None:
        state = self._state
        state[1, self._table[_MISSED] > 0, 3] = 0  # what is hidden does not grow
        predict(state, _variance(state[0], _PLACE, 1e-2), _variance(state[0], _RATE, 1e-5))
        if motion is not None:
            shift(state, motion, (0, 1))

    def _forget(self) -> None:
        """Drop tracks that were not seen for too long, or not a second time."""
        ids, _, missed = self._table
        kept = (missed <= self._max_age) & ((ids > 0) | (missed == 0))
        if not kept.all():
            self._state, self._table = self._state[:, kept], self._table[:, kept]

    def _begin(self, measured: Array, class_ids: Ints) -> Ints:
        """Add tracks and return their identities; only those of the first frame have one at once."""
        ids = self._next_ids(len(measured)) if self._frames == 1 else np.zeros(len(measured), np.int64)
        state = begin(measured, _variance(measured, 2 * _PLACE, 1e-2), _variance(measured, 10 * _RATE, 1e-5))
        self._state = np.concatenate((self._state, state), axis=1)
        self._table = np.concatenate((self._table, [ids, class_ids, np.zeros_like(ids)]), axis=1)
        return ids

    def _next_ids(self, count: int) -> Ints:
        self._given += count
        return np.arange(self._given - count + 1, self._given + 1)


def _variance(coordinates: Array, share: float, ratio: float) -> Array:
    """Return variances, `(N, 4)`: of `share` heights for lengths, of `ratio` for the ratio."""
    tall = coordinates[:, 3:] * share
    variance: Array = tall * tall * _TALL + ratio**2 * _RATIO
    return variance


def _boxes(coordinates: Array) -> Array:
    """Return x1, y1, x2, y2 from centre, ratio and height, `(N, 4)`."""
    half = coordinates[:, 2:] / 2
    half[:, 0] *= coordinates[:, 3]
    return np.concatenate((coordinates[:, :2] - half, coordinates[:, :2] + half), axis=1)
