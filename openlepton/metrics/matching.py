"""Which detection found which object: the greedy rule of COCO, over a whole set at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openlepton.arrays import Array, Bools, Floats, Ints
from openlepton.errors import UsageError
from openlepton.metrics.truth import GroundTruth, Stack, stack
from openlepton.ops.masks import iou
from openlepton.results import Detections

_PAIRS = 1_000_000
"""How many pairs are compared at once: bounds memory at about 100 MB."""


@dataclass(frozen=True, eq=False)
class Matches:
    """What became of every detection of a set, in the order of the images and of their detections."""

    scores: Floats
    """`(N,)` float32 in 0..1."""
    class_ids: Ints
    """`(N,)`"""
    hit: Bools
    """`(N,)` found an object of its class that no better detection had found."""
    counted: Bools
    """`(N,)` False for what counts neither way: inside a crowd, on an ignored object, beyond `max_detections`."""
    positives: Ints
    """`(C,)` how many objects of each class there are to find."""
    min_iou: float
    """The overlap from which a detection can find an object."""


def match_detections(
    truth: Sequence[GroundTruth],
    found: Sequence[Detections],
    names: Sequence[str],
    *,
    min_iou: float = 0.5,
    max_detections: int = 100,
) -> Matches:
    """Return which detections are hits: best score first, each takes the free object of its class it overlaps most.

    The rule is pycocotools' `COCOeval.evaluateImg` (Lin et al. 2014): an object that counts goes before one that is
    ignored, an object is taken once, a crowd any number of times, and of equal overlaps the later annotation wins.

    Args:
        truth: One for each image.
        found: One for each image.
        names: The class names, all of them, by class id.
        min_iou: The least overlap, above 0 and up to 1; for a crowd the part of the detection that lies in it.
        max_detections: How many detections of each class count in one image, highest scores first.

    Raises:
        UsageError: The sets or their class names do not belong together.
    """
    if not 0 < min_iou <= 1:
        raise UsageError(f"min_iou: expected above 0 and up to 1, got {min_iou}")
    objects, detections = stack(truth, found, names)
    return match_stacks(objects, detections, len(names), min_iou=min_iou, max_detections=max_detections)


def match_stacks(objects: Stack, detections: Stack, classes: int, *, min_iou: float, max_detections: int) -> Matches:
    """Return `match_detections` of sets that are parallel arrays already."""
    rows, columns, overlap = pairs(objects, detections, min(min_iou, 1 - 1e-10), by_class=True)
    turn = np.empty(len(detections), np.int64)
    turn[np.argsort(-detections.scores, kind="stable")] = np.arange(len(detections))
    within = _within(detections, max_detections)
    order = np.lexsort((-columns, -overlap, objects.ignored[columns], turn[rows]))
    order = order[within[rows[order]]]
    matched = _greedy(rows[order], columns[order], len(detections), objects.crowd)
    taken = matched >= 0
    on_ignored = np.zeros(len(detections), np.bool_)
    on_ignored[taken] = objects.ignored[matched[taken]]
    return Matches(
        scores=detections.scores,
        class_ids=detections.class_ids,
        hit=taken & ~on_ignored,
        counted=within & ~on_ignored,
        positives=np.bincount(objects.class_ids[~objects.ignored], minlength=classes),
        min_iou=min_iou,
    )


def pairs(objects: Stack, detections: Stack, min_iou: float, *, by_class: bool) -> tuple[Ints, Ints, Array]:
    """Return `(P,)` detections, objects and overlaps: all that share an image (and class) and overlap enough."""
    if objects.masks is not None and detections.masks is not None:
        return _pairs_of_masks(objects, detections, min_iou, by_class=by_class)
    classes = 1 + max(objects.class_ids.max(initial=0), detections.class_ids.max(initial=0)) if by_class else 1
    keys = objects.image_ids * classes + (objects.class_ids if by_class else 0)
    wanted = detections.image_ids * classes + (detections.class_ids if by_class else 0)
    order = np.argsort(keys, kind="stable")
    first = np.searchsorted(keys[order], wanted, "left")
    counts = np.searchsorted(keys[order], wanted, "right") - first
    total = int(counts.sum())
    cuts = np.searchsorted(np.cumsum(counts), np.arange(0, max(total, 1), _PAIRS))
    parts = [
        _overlapping(objects, detections, order, np.arange(start, stop), first[start:stop], counts[start:stop], min_iou)
        for start, stop in zip(cuts, [*cuts[1:], len(detections)], strict=True)
    ]
    rows, columns, overlap = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, columns, overlap


def _pairs_of_masks(objects: Stack, detections: Stack, min_iou: float, *, by_class: bool) -> tuple[Ints, Ints, Array]:
    """Return what `pairs` does, image by image: the overlaps of masks are found for a whole image at once."""
    assert objects.masks is not None
    assert detections.masks is not None
    found: list[tuple[Ints, Ints, Array]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for image in np.unique(detections.image_ids):
        mine, theirs = (np.flatnonzero(each.image_ids == image) for each in (detections, objects))
        a, b = [detections.masks[row] for row in mine], [objects.masks[row] for row in theirs]
        overlap = iou(a, b, objects.crowd[theirs])
        alike = detections.class_ids[mine][:, None] == objects.class_ids[theirs][None]
        rows, columns = np.nonzero((overlap >= min_iou) & (alike if by_class else True))
        found.append((mine[rows], theirs[columns], overlap[rows, columns]))
    rows, columns, overlaps = (np.concatenate(part) for part in zip(*found, strict=True))
    return rows, columns, overlaps


def _overlapping(
    objects: Stack, detections: Stack, order: Ints, chosen: Ints, first: Ints, counts: Ints, min_iou: float
) -> tuple[Ints, Ints, Array]:
    """Return the pairs of the `chosen` detections; the objects of each are `counts` of `order` from `first` on."""
    rows = np.repeat(chosen, counts)  # (P,)
    steps = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = order[np.repeat(first, counts) + steps]  # (P,)
    a, b = detections.boxes[rows], objects.boxes[columns]
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    own = (a[:, 2:] - a[:, :2]).prod(axis=1)
    union = np.where(objects.crowd[columns], own, own + (b[:, 2:] - b[:, :2]).prod(axis=1) - shared)
    overlap = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    enough = overlap >= min_iou
    return rows[enough], columns[enough], overlap[enough]


def _greedy(rows: Ints, columns: Ints, count: int, crowd: Bools) -> Ints:
    """Return `(count,)` the object that each detection takes, -1 for none, pairs in the given order."""
    matched = [-1] * count
    many = crowd.tolist()
    taken = [False] * len(many)
    last = -1
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if row != last and not taken[column]:
            last = row
            taken[column] = not many[column]
            matched[row] = column
    return np.array(matched, np.int64)


def _within(detections: Stack, max_detections: int) -> Bools:
    """Return `(N,)` whether a detection is among the best `max_detections` of its class in its image."""
    order = np.lexsort((-detections.scores, detections.class_ids, detections.image_ids))
    images, labels = detections.image_ids[order], detections.class_ids[order]
    starts = np.flatnonzero(np.diff(images, prepend=-1) | np.diff(labels, prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    within = np.empty(len(order), np.bool_)
    within[order] = place < max_detections
    return within
