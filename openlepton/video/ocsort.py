"""OC-SORT: SORT that trusts what it saw more than what it predicted.

J. Cao et al., "Observation-Centric SORT: Rethinking SORT for Robust Multi-Object Tracking", 2022: the direction of observations
helps to assign (OCM), what is left is compared with where tracks were last seen (OCR), and a track that comes back is filtered
again along the straight way it must have taken (ORU).
"""

import numpy as np

from openlepton.arrays import Array, Image, Ints
from openlepton.ops.boxes import iou
from openlepton.results import Detections
from openlepton.video.camera import CameraMotion
from openlepton.video.kalman import begin, correct, shift
from openlepton.video.sort import (
    POWERS,
    RATE_VAR,
    SEEN_NOISE,
    VALUE_VAR,
    advance,
    check_options,
    confirm,
    to_area,
    to_boxes,
)
from openlepton.video.tracks import assign, centres, identified, same_class

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
        self._memory = np.zeros((_PAST.start + interval, 0, 4))
        self._frames = 0
        self._given = 0

    def update(self, found: Detections, *, image: Image | None = None) -> Detections:
        """Return those of the next frame's detections that belong to a track, with `track_ids`; see `Tracker`."""
        seen = centres(found)
        self._frames += 1
        self._advance(None if self._camera is None else self._camera.step(image))
        before = self._before()
        sure = np.flatnonzero(found.scores >= self._min_score)
        rows, columns = self._associate(found[sure], seen[sure], before)
        new = np.delete(sure, columns)
        self._observe(rows, seen[sure[columns]], before)
        self._begin(seen[new], found.class_ids[new])
        count = self._table.shape[1]
        rows = np.concatenate((rows, np.arange(count - len(new), count)))
        self._given += confirm(self._table, rows, self._min_hits if self._frames > self._min_hits else 1, self._given)
        ids = np.zeros(len(found), np.int64)
        ids[np.concatenate((sure[columns], new))] = self._table[_ID, rows]
        kept = self._table[_MISSED] <= self._max_age
        if not kept.all():
            self._memory, self._table = self._memory[:, kept], self._table[:, kept]
        return identified(found, ids)

    def _advance(self, motion: Array | None) -> None:
        advance(self._memory[_STATE], motion)
        if motion is not None:
            turn = motion[:, :2]
            scale = np.sqrt(abs(np.linalg.det(turn)))
            shift(self._memory[_ANCHOR], motion, POWERS)
            self._memory[_COURSE, :, :2] = self._memory[_COURSE, :, :2] @ turn.T / scale
            for places in (self._memory[_LAST], *self._memory[_PAST]):
                places[:, :2] = places[:, :2] @ turn.T + motion[:, 2]
                places[:, 2:] *= scale

    def _before(self) -> Array:
        """Return `(N, 4)` the oldest observation of the last `interval` frames, or the last one of all."""
        before: Array = self._memory[_LAST]
        for places in self._memory[_PAST]:  # from the newest to the oldest
            before = np.where(np.isnan(places), before, places)
        return before

    def _associate(self, found: Detections, seen: Array, before: Array) -> tuple[Ints, Ints]:
        """Return the pairs, `(K,)` tracks and `(K,)` sure detections: by overlap and direction, then by the last observation."""
        overlap = iou(to_boxes(self._memory[0]), found.boxes)  # (N, M)
        alike = np.ones(overlap.shape, bool)
        if self._class_aware:
            alike = same_class(self._table[_CLASS], found.class_ids)
        gain = overlap + self._inertia * self._agreement(seen, before) * found.scores
        rows, columns = assign(np.where(alike & (overlap > self._least), gain, 0), 0)
        if len(rows) == min(overlap.shape):
            return rows, columns
        left, others = np.delete(np.arange(len(before)), rows), np.delete(np.arange(len(seen)), columns)
        last = self._memory[_LAST, left]
        again = iou(
            np.concatenate((last[:, :2] - last[:, 2:] / 2, last[:, :2] + last[:, 2:] / 2), axis=1), found.boxes[others]
        )
        again *= alike[left[:, None], others]
        first, second = assign(again, self._least)
        return np.concatenate((rows, left[first])), np.concatenate((columns, others[second]))

    def _agreement(self, seen: Array, before: Array) -> Array:
        """Return how well the way to each detection keeps to each track's direction, `(N, M)` from -1/2 to 1/2."""
        course = self._memory[_COURSE, :, :2]
        way = seen[None, :, :2] - before[:, None, :2]  # (N, M, 2)
        length = np.sqrt(np.einsum("nmk,nmk->nm", way, way))
        along = np.einsum("nmk,nk->nm", way, course) / np.maximum(length, 1e-6)
        agreement = 0.5 - np.arccos(np.clip(along, -1, 1)) / np.pi
        return np.where((length > 0) & course.any(axis=1)[:, None], agreement, 0)

    def _observe(self, rows: Ints, seen: Array, before: Array) -> None:
        """Correct the tracks `(K,)` by what was seen of them, `(K, 4)` centres and sides."""
        memory = self._memory
        back = np.flatnonzero(self._table[_MISSED, rows] > 0)
        if len(back):
            self._replay(rows[back], seen[back])
        correct(memory[_STATE], rows, to_area(seen), SEEN_NOISE)
        way = seen[:, :2] - before[rows, :2]
        memory[_COURSE, rows, :2] = way / np.maximum(np.hypot(way[:, 0], way[:, 1]), 1e-6)[:, None]
        memory[_ANCHOR, rows] = memory[_STATE, rows]
        memory[_LAST, rows] = seen
        past = memory[_PAST]
        past[1:] = past[:-1].copy()
        past[0] = np.nan
        past[0, rows] = seen

    def _replay(self, rows: Ints, seen: Array) -> None:
        """Filter tracks that were hidden again, from where they were last seen to now, as if they had gone straight."""
        missed = self._table[_MISSED, rows]
        state = self._memory[_ANCHOR, rows]  # (5, K, 4)
        start = self._memory[_LAST, rows]
        for step in range(1, int(missed.max()) + 1):
            hidden = np.flatnonzero(step <= missed)
            part = state[:, hidden]
            advance(part, None)
            share = (step / (missed[hidden] + 1))[:, None]
            between = start[hidden] + share * (seen[hidden] - start[hidden])
            correct(part, np.arange(len(hidden)), to_area(between), SEEN_NOISE)
            state[:, hidden] = part
        advance(state, None)
        self._memory[_STATE, rows] = state

    def _begin(self, seen: Array, class_ids: Ints) -> None:
        memory = np.full((len(self._memory), len(seen), 4), np.nan)
        memory[_STATE] = memory[_ANCHOR] = begin(to_area(seen), VALUE_VAR, RATE_VAR)
        memory[_LAST] = memory[_PAST.start] = seen
        memory[_COURSE] = 0
        table = np.zeros((4, len(seen)), np.int64)
        table[_CLASS] = class_ids
        self._memory = np.concatenate((self._memory, memory), axis=1)
        self._table = np.concatenate((self._table, table), axis=1)
