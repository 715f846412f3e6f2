"""ByteTrack: what the detector is unsure of continues tracks, but begins none.

Y. Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", 2021, algorithm 1; the filter and its
noises, which follow the height of the box, are DeepSORT's (N. Wojke et al., 2017).
"""

import numpy as np

from openlepton.arrays import Array, Bools, Image, Ints
from openlepton.errors import UsageError
from openlepton.results import Detections
from openlepton.video.camera import CameraMotion
from openlepton.video.kalman import begin, correct, predict, shift
from openlepton.video.tracks import assign, centres, identified, nothing, overlap

_ID, _CLASS, _MISSED = range(3)  # rows of the table; the identity is 0 until a second frame confirms the track

# Coordinates are centre x, centre y, width / height, height. Variances of a value and of its rate, (2, 4, 1): of lengths as a
# multiple of the height squared, and of the ratio, which does not depend on it.
_TALL = np.array([[1, 1, 0, 1]] * 2).reshape(2, 4, 1) * np.array([1 / 20, 1 / 160]).reshape(2, 1, 1) ** 2
_RATIO = np.array([[0, 0, 1, 0]] * 2).reshape(2, 4, 1) * np.array([1e-2, 1e-5]).reshape(2, 1, 1) ** 2
_BEGIN_TALL = _TALL * np.array([2, 10]).reshape(2, 1, 1) ** 2
_SEEN_TALL, _SEEN_RATIO = _TALL[0], _RATIO[0] * 10**2


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
        self._state = np.zeros((5, 4, 0))
        self._table = np.zeros((3, 0), np.int64)
        self._frames = 0
        self._given = 0

    def update(self, found: Detections, *, image: Image | None = None) -> Detections:
        """Return those of the next frame's detections that belong to a track, with `track_ids`; see `Tracker`."""
        seen = centres(found)
        self._frames += 1
        motion = None if self._camera is None else self._camera.step(image)
        if not len(found) and not self._table.shape[1]:
            return nothing(found)
        self._predict(motion)
        track_of = self._associate(found, seen)
        seen[2] /= seen[3]
        ids = np.zeros(len(found), np.int64)
        self._observe(track_of, seen, ids)
        new = (track_of < 0) & (found.scores >= self._new)
        if np.count_nonzero(new):
            ids[new] = self._begin(seen[:, new], found.class_ids[new])
        return identified(found, ids)

    def _predict(self, motion: Array | None) -> None:
        state = self._state
        state[1, 3] *= self._table[_MISSED] == 0  # what is hidden does not grow
        predict(state, state[0, 3] ** 2 * _TALL + _RATIO)
        if motion is not None:
            shift(state, motion, (0, 1))

    def _associate(self, found: Detections, seen: Array) -> Ints:
        """Return the track of each detection, `(M,)`; -1 for none."""
        track_of = np.empty(len(found), np.int64)
        track_of[:] = -1
        ids, class_ids, missed = self._table
        if not len(found) or not len(ids):
            return track_of
        tracks = self._state[0].copy()
        tracks[2] *= tracks[3]
        alike = overlap(tracks, seen)  # (N, M)
        if self._class_aware:
            alike *= class_ids[:, None] == found.class_ids
        scores = found.scores.astype(np.float64)
        sure, known = scores >= self._sure, ids > 0
        least, least_low, least_new = self._overlaps
        rows, columns = assign(alike * (known[:, None] * (scores * sure)), least)
        track_of[columns] = rows
        known[rows] = False  # from here on: known and still free
        rest = track_of < 0
        weak = rest & ~sure & (scores >= self._low)
        if np.count_nonzero(weak):
            _match(alike, known & (missed == 0), weak, least_low, track_of)
        young, strong = ids == 0, rest & sure
        if np.count_nonzero(young) and np.count_nonzero(strong):
            _match(alike * scores, young, strong, least_new, track_of)
        return track_of

    def _observe(self, track_of: Ints, seen: Array, ids: Ints) -> None:
        """Correct the tracks by what was seen of them, and fill in the identities `(M,)`; forget the others in time."""
        columns = (track_of >= 0).nonzero()[0]
        rows = track_of[columns]
        height = self._state[0, 3, rows]
        correct(self._state, rows, seen[:, columns], height * height * _SEEN_TALL + _SEEN_RATIO)
        table = self._table
        table[_MISSED] += 1
        table[_MISSED, rows] = 0
        known = table[_ID, rows]
        if np.count_nonzero(known) < len(known):
            fresh = known == 0
            known[fresh] = table[_ID, rows[fresh]] = self._next_ids(int(fresh.sum()))
        ids[columns] = known
        gone = table[_MISSED] > self._max_age * (table[_ID] > 0)
        if np.count_nonzero(gone):
            self._state, self._table = self._state[..., ~gone], table[:, ~gone]

    def _begin(self, seen: Array, class_ids: Ints) -> Ints:
        """Add tracks and return their identities; only those of the first frame have one at once."""
        ids = self._next_ids(len(class_ids)) if self._frames == 1 else np.zeros_like(class_ids)
        state = begin(seen, seen[3] ** 2 * _BEGIN_TALL + _RATIO)
        self._state = np.concatenate((self._state, state), axis=2)
        self._table = np.concatenate((self._table, [ids, class_ids, np.zeros_like(ids)]), axis=1)
        return ids

    def _next_ids(self, count: int) -> Ints:
        self._given += count
        return np.arange(self._given - count + 1, self._given + 1)


def _match(alike: Array, tracks: Bools, detections: Bools, least: float, track_of: Ints) -> None:
    """Assign some of the tracks `(N,)` to some of the detections `(M,)`, and note it in `track_of`."""
    rows, columns = np.flatnonzero(tracks), np.flatnonzero(detections)
    first, second = assign(alike[rows[:, None], columns], least)
    track_of[columns[second]] = rows[first]
