"""Precision, recall and F1 against confidence, precision against recall, and who is taken for whom: as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openlepton.arrays import Array, Bools, Floats, Ints
from openlepton.metrics.matching import Matches, pairs
from openlepton.metrics.truth import GroundTruth, Stack, stack
from openlepton.results import Detections

THRESHOLDS: Floats = np.linspace(0, 1, 1001, dtype=np.float32)
THRESHOLDS.setflags(write=False)
"""The confidences of every score curve: float32 as scores are, so that 0.7 keeps what `found.scores >= 0.7` keeps."""

RECALLS: Array = np.linspace(0, 1, 101)
RECALLS.setflags(write=False)
"""The recalls at which COCO samples precision."""


@dataclass(frozen=True, eq=False)
class ScoreCurves:
    """What keeping the detections of at least a confidence gives, by class; NaN where nothing defines a number."""

    thresholds: Floats
    """`(T,)` confidences, ascending."""
    precision: Array
    """`(C, T)` hits among the detections that are kept; NaN where none is."""
    recall: Array
    """`(C, T)` hits among the objects; NaN for a class without objects."""
    f1: Array
    """`(C, T)` harmonic mean of the two; NaN for a class without objects."""

    @property
    def mean_f1(self) -> Array:
        """`(T,)` mean over the classes that have objects; 0 where no class has any."""
        present = ~np.isnan(self.f1[:, 0])
        return np.asarray(self.f1[present].mean(axis=0)) if present.any() else np.zeros(len(self.thresholds))

    @property
    def best_score(self) -> float:
        """The least confidence at which the mean F1 is highest, to three digits."""
        return round(float(self.thresholds[self.mean_f1.argmax()]), 3)


def score_curves(matches: Matches) -> ScoreCurves:
    """Return precision, recall and F1 of each class at every confidence of `THRESHOLDS`, exact, not interpolated."""
    hits = _kept(matches, matches.hit & matches.counted)
    kept = _kept(matches, matches.counted)
    positives = matches.positives[:, None].astype(np.float64)
    some = np.where(positives > 0, positives, np.nan)
    return ScoreCurves(
        thresholds=THRESHOLDS,
        precision=np.divide(hits, kept, out=np.full(hits.shape, np.nan), where=kept > 0),
        recall=hits / some,
        f1=2 * hits / (kept + some),
    )


def precision_at_recall(matches: Matches) -> Array:
    """Return `(C, 101)` the best precision at each recall of `RECALLS` or more, 0 beyond the last; NaN without objects.

    The mean of a row is COCO's AP of that class at the overlap of `matches` (Lin et al. 2014).
    """
    table = np.full((len(matches.positives), len(RECALLS)), np.nan)
    order = np.argsort(-matches.scores, kind="stable")
    order = order[matches.counted[order]]
    labels, hits = matches.class_ids[order], matches.hit[order]
    for index in np.flatnonzero(matches.positives):
        hit = hits[labels == index]
        found = np.cumsum(hit)
        precision = found / np.arange(1, len(hit) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        place = np.searchsorted(found / matches.positives[index], RECALLS, "left")
        table[index] = np.append(precision, 0.0)[place]
    return table


def confusion_matrix(
    truth: Sequence[GroundTruth],
    found: Sequence[Detections],
    names: Sequence[str],
    *,
    min_score: float = 0.25,
    min_iou: float = 0.45,
) -> Ints:
    """Return `(C + 1, C + 1)` counts: rows are what it was, columns what it was taken for, last is background.

    Detections above `min_score` and objects of any class are paired one to one, highest overlap first, above
    `min_iou`: the convention and the two values that detectors are commonly shown with. An object left over was taken
    for background; a detection left over took background for its class, unless it lies on a crowd or an ignored object
    of that class, which count neither way.

    Raises:
        UsageError: The sets or their class names do not belong together.
    """
    objects, detections = stack(truth, found, names)
    least = np.nextafter(min_iou, 1)  # above, not at
    rows, columns, overlap = pairs(objects, detections, least, by_class=False)
    sure = detections.scores > np.float32(min_score)
    real = sure[rows] & ~objects.ignored[columns]
    order = np.lexsort((-detections.scores[rows[real]], -overlap[real]))
    taken_for, alone = _one_to_one(rows[real][order], columns[real][order], objects, detections, len(names))
    on_ignored = objects.ignored[columns] & (objects.class_ids[columns] == detections.class_ids[rows])
    alone[rows[on_ignored]] = False
    extra = detections.class_ids[alone & sure]
    was = np.concatenate([objects.class_ids[~objects.ignored], np.full(len(extra), len(names))])
    seen = np.concatenate([taken_for[~objects.ignored], extra])
    size = len(names) + 1
    return np.bincount(was * size + seen, minlength=size * size).reshape(size, size)


def _one_to_one(rows: Ints, columns: Ints, objects: Stack, detections: Stack, background: int) -> tuple[Ints, Bools]:
    """Return the class each object is taken for and which detections are left over, pairs in the given order."""
    labels = detections.class_ids.tolist()
    taken_for, alone = [background] * len(objects), [True] * len(labels)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if alone[row] and taken_for[column] == background:
            alone[row] = False
            taken_for[column] = labels[row]
    return np.array(taken_for, np.int64), np.array(alone, np.bool_)


def _kept(matches: Matches, chosen: Array) -> Array:
    """Return `(C, T)` how many `chosen` detections of each class have at least each confidence."""
    C, T = len(matches.positives), len(THRESHOLDS)
    bins = np.searchsorted(THRESHOLDS, matches.scores[chosen], "right") - 1
    flat = matches.class_ids[chosen][bins >= 0] * T + bins[bins >= 0]
    counts = np.bincount(flat, minlength=C * T).reshape(C, T)
    return np.asarray(counts[:, ::-1].cumsum(axis=1)[:, ::-1])
