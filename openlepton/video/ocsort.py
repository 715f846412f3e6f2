"""OC-SORT: SORT that trusts what it saw more than what it predicted.

J. Cao et al., "Observation-Centric SORT: Rethinking SORT for Robust Multi-Object Tracking", 2022: the direction of observations
helps to assign (OCM), what is left is compared with where tracks were last seen (OCR), and a track that comes back is filtered
again along the straight way it must have taken (ORU).
"""

import numpy as np

from openlepton.arrays import Array, Floats, Image, Ints
from openlepton.results import Detections
from openlepton.video.camera import CameraMotion
from openlepton.video.kalman import begin, correct, scale_of, shift
from openlepton.video.sort import (
    BEGIN_VAR,
    POWERS,
    SEEN_NOISE,
    advance,
    begin_table,
    check_options,
    confirm,
    from_area,
    others,
    to_area,
)
from openlepton.video.tracks import assign, centres, identified, nothing, overlap

_ID, _CLASS, _MISSED, _HITS = range(4)

# What is remembered of each track, four numbers each:
_STATE = slice(0, 5)  # the filter's
_ANCHOR = slice(5, 10)  # the same when the track was last seen
_LAST = 10  # centre, width, height when it was last seen
_COURSE = 11  # the direction of its observations, x and y of a unit vector; 0 where there is none yet
_PAST = slice(12, None)  # centre, width, height in each of the last frames, the newest first; NaN where it was not seen


class OcSort:
    """OC-SORT; its state and its identities belong to the instance.

    Args:
        min_score: Detections that score less are not looked at.
        max_age: Frames for which a track that is not seen is kept.
        min_hits: Frames in a row in which a track must be seen before it counts; not in the first frames of all.
        min_overlap: The least overlap of a detection and its track.
        interval: Frames between the observations that give a track its direction.
        inertia: How much keeping the direction counts beside the overlap.
        class_aware: Whether a track keeps to detections of its class.
        camera_motion: Whether to make up for the camera's motion; `update` then needs the images.

    Raises:
        UsageError: An option is out of range.
    """

    def __init__(
        self,
        *,
        min_score: float = 0.6,
        max_age: int = 30,
        min_hits: int = 3,
        min_overlap: float = 0.3,
        interval: int = 3,
        inertia: float = 0.2,
        class_aware: bool = True,
        camera_motion: bool = False,
    ) -> None:
        check_options(min_score, max_age, min_hits)
        self._min_score, self._max_age, self._min_hits, self._least = min_score, max_age, min_hits, min_overlap
        self._interval, self._inertia = interval, inertia
        self._class_aware = class_aware
        self._camera = CameraMotion() if camera_motion else None
        self._table = np.zeros((4, 0), np.int64)
        self._memory = np.zeros((_PAST.start + interval, 4, 0))
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
        self._advance(motion)
        before = self._before()
        rows, columns = self._associate(seen, class_ids, found.scores[sure], before)
        self._observe(rows, seen[:, columns], before)
        new = others(len(sure), columns)
        table = begin_table(self._table, class_ids[new])
        self._memory = np.concatenate((self._memory, _begun(seen[:, new], len(self._memory))), axis=2)
        rows = np.concatenate((rows, np.arange(self._table.shape[1], table.shape[1])))
        self._given += confirm(table, rows, self._min_hits if self._frames > self._min_hits else 1, self._given)
        ids = np.zeros(len(found), np.int64)
        ids[sure[np.concatenate((columns, new))]] = table[_ID, rows]
        kept = table[_MISSED] <= self._max_age
        self._memory, self._table = self._memory[..., kept], table[:, kept]
        return identified(found, ids)

    def _advance(self, motion: Array | None) -> None:
        memory = self._memory
        advance(memory[_STATE], motion)
        if motion is not None:
            turn, scale = motion[:, :2], scale_of(motion)
            shift(memory[_ANCHOR], motion, POWERS)
            memory[_COURSE, :2] = turn @ memory[_COURSE, :2] / scale
            for places in (memory[_LAST], *memory[_PAST]):
                places[:2] = turn @ places[:2] + motion[:, 2:]
                places[2:] *= scale

    def _before(self) -> Array:
        """Return `(2, N)` the centre in the oldest of the last `interval` frames that saw the track, or the last of all."""
        before: Array = self._memory[_LAST, :2]
        for places in self._memory[_PAST, :2]:  # from the newest to the oldest
            before = np.where(np.isnan(places), before, places)
        return before

    def _associate(self, seen: Array, class_ids: Ints, scores: Floats, before: Array) -> tuple[Ints, Ints]:
        """Return the pairs, `(K,)` tracks and `(K,)` detections: by overlap and direction, then by the last observation."""
        allowed = np.ones((before.shape[1], len(scores)), bool)
        if self._class_aware:
            np.equal(self._table[_CLASS][:, None], class_ids, out=allowed)
        alike = overlap(from_area(self._memory[0]), seen)  # (N, M)
        gain = alike + self._inertia * self._agreement(seen, before) * scores
        rows, columns = assign(gain * (allowed & (alike > self._least)), 0)
        left, unmet = others(len(allowed), rows), others(len(scores), columns)
        if len(left) and len(unmet):
            again = overlap(self._memory[_LAST][:, left], seen[:, unmet]) * allowed[left[:, None], unmet]
            first, second = assign(again, self._least)
            rows, columns = np.concatenate((rows, left[first])), np.concatenate((columns, unmet[second]))
        return rows, columns

    def _agreement(self, seen: Array, before: Array) -> Array:
        """Return how well the way to each detection keeps to each track's direction, `(N, M)` from -1/2 to 1/2."""
        course = self._memory[_COURSE, :2]
        way = seen[:2, None] - before[..., None]  # (2, N, M)
        length = np.hypot(way[0], way[1])
        way *= course[..., None]
        along = (way[0] + way[1]) / np.maximum(length, 1e-6)
        agreement: Array = 0.5 - np.arccos(np.clip(along, -1, 1)) / np.pi
        return agreement  # where there is no way or no direction, along is 0, and so is this

    def _observe(self, rows: Ints, seen: Array, before: Array) -> None:
        """Correct the tracks `(K,)` by what was seen of them, `(4, K)` centres and sides."""
        memory = self._memory
        hidden = (self._table[_MISSED, rows] > 0).nonzero()[0]
        if len(hidden):
            self._replay(rows[hidden], seen[:, hidden])
        correct(memory[_STATE], rows, to_area(seen), SEEN_NOISE)
        way = seen[:2] - before[:, rows]
        memory[_COURSE, :2, rows] = (way / np.maximum(np.hypot(way[0], way[1]), 1e-6)).T
        memory[_ANCHOR, :, rows] = memory[_STATE, :, rows]
        memory[_LAST, :, rows] = seen.T
        past = memory[_PAST]
        past[1:] = past[:-1].copy()
        past[0] = np.nan
        past[0][:, rows] = seen

    def _replay(self, rows: Ints, seen: Array) -> None:
        """Filter tracks that were hidden again, from where they were last seen to now, as if they had gone straight."""
        missed = self._table[_MISSED, rows]
        state = self._memory[_ANCHOR].take(rows, axis=2)  # (5, 4, K)
        start = self._memory[_LAST][:, rows]
        for step in range(1, int(missed.max()) + 1):
            hidden = (step <= missed).nonzero()[0]
            part = state[..., hidden]
            advance(part, None)
            between = start[:, hidden] + step / (missed[hidden] + 1) * (seen - start)[:, hidden]
            correct(part, np.arange(len(hidden)), to_area(between), SEEN_NOISE)
            state[..., hidden] = part
        advance(state, None)
        self._memory[_STATE][..., rows] = state


def _begun(seen: Array, depth: int) -> Array:
    """Return what is remembered of new tracks, `(depth, 4, K)`."""
    memory = np.full((depth, *seen.shape), np.nan)
    memory[_STATE] = memory[_ANCHOR] = begin(to_area(seen), BEGIN_VAR)
    memory[_LAST] = memory[_PAST.start] = seen
    memory[_COURSE] = 0
    return memory
