"""How well objects were tracked: HOTA, CLEAR MOT and identities, equal to TrackEval.

J. Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", 2020; K. Bernardin and R. Stiefelhagen,
"Evaluating Multiple Object Tracking Performance: The CLEAR MOT Metrics", 2008; E. Ristani et al., "Performance Measures and a Data
Set for Multi-Target, Multi-Camera Tracking", 2016.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from openlepton.arrays import Array, Ints
from openlepton.errors import DataInvalid, UsageError, missing_extra

ALPHAS = np.arange(0.05, 0.99, 0.05)
"""The overlaps over which HOTA is a mean."""

MIN_OVERLAP = 0.5
"""The overlap from which CLEAR and the identities call a box found."""

DISTRACTORS = (2, 7, 8, 12)
"""MOTChallenge's classes that are neither right nor wrong: on a vehicle, static, distractor, reflection. MOT20 adds 6."""

_EPS = np.finfo(float).eps


class Tracks(Protocol):
    """Boxes over time, in any order, as `data.mot.read_mot` gives them."""

    @property
    def frames(self) -> Ints:
        """`(N,)` from 1."""

    @property
    def track_ids(self) -> Ints:
        """`(N,)`, each once in a frame."""

    @property
    def boxes_ltwh(self) -> Array:
        """`(N, 4)` left, top, width, height."""

    @property
    def scores(self) -> Array:
        """`(N,)`, in ground truth 0 for what does not count."""

    @property
    def class_ids(self) -> Ints:
        """`(N,)`, in ground truth 1 for what counts if any are above 0."""


@dataclass(frozen=True, eq=False)
class TrackingReport:
    """How well one sequence was tracked."""

    numbers: dict[str, float]
    """Every number under TrackEval's name, those of HOTA as means over `ALPHAS`: HOTA, DetA, AssA, MOTA, IDSW, IDF1, ..."""
    curves: dict[str, Array]
    """HOTA's numbers for each of `ALPHAS`, `(19,)`."""
    frames: int


class _Moment(NamedTuple):
    """One frame."""

    truth: Ints
    """`(G,)` the objects that are there, numbered from 0."""
    found: Ints
    """`(T,)` the tracks, numbered from 0."""
    alike: Array
    """`(G, T)` overlaps."""


@dataclass(frozen=True, eq=False)
class _Sequence:
    moments: list[_Moment]
    truth_counts: Ints
    """`(I,)` boxes of each object."""
    found_counts: Ints
    """`(J,)` boxes of each track."""


def evaluate_tracking(
    truth: Tracks, found: Tracks, *, frames: int | None = None, distractors: Sequence[int] = DISTRACTORS
) -> TrackingReport:
    """Return HOTA, CLEAR MOT and identity numbers of one sequence, as TrackEval's `MotChallenge2DBox` gives them.

    Where the truth has classes (from 2016 on), its pedestrians count, and what was found of its distractors is left out; so are
    the boxes of the truth whose score is 0.

    Args:
        truth: What is there.
        found: The tracks.
        frames: How many there are; by default, up to the last in which anything is.
        distractors: The classes of the truth that are neither right nor wrong.

    Raises:
        DataInvalid: An identity occurs twice in a frame.
        UsageError: There are boxes beyond the last frame.
        MissingExtra: SciPy is not installed.
    """
    last = max(int(side.frames.max(initial=0)) for side in (truth, found))
    if frames is not None and frames < last:
        raise UsageError(f"frames: {frames} stated, but there are boxes in frame {last}")
    sequence = _prepare(truth, found, frames or last, distractors)
    hota = _hota(sequence)
    numbers = {name: float(curve.mean()) for name, curve in hota.items()}
    numbers |= _clear(sequence) | _identity(sequence)
    numbers |= {
        "Dets": int(sequence.found_counts.sum()),
        "GT_Dets": int(sequence.truth_counts.sum()),
        "IDs": len(sequence.found_counts),
        "GT_IDs": len(sequence.truth_counts),
    }
    return TrackingReport(numbers, hota, frames or last)


def _prepare(truth: Tracks, found: Tracks, frames: int, distractors: Sequence[int]) -> _Sequence:
    """Return the sequence frame by frame, without what does not count, and with identities numbered from 0."""
    classes = bool((truth.class_ids > 0).any())
    moments = []
    for here, there in zip(_by_frame(truth, frames), _by_frame(found, frames), strict=True):
        alike = _overlap(truth.boxes_ltwh[here], found.boxes_ltwh[there])
        counts = truth.scores[here].astype(np.int64) != 0
        if classes:
            rows, columns = _best(np.where(alike < MIN_OVERLAP - _EPS, 0, alike), _EPS)
            stray = columns[np.isin(truth.class_ids[here][rows], distractors)]
            there, alike = np.delete(there, stray), np.delete(alike, stray, axis=1)
            counts &= truth.class_ids[here] == 1
        moments.append(_Moment(truth.track_ids[here[counts]], found.track_ids[there], alike[counts]))
    truth_names, truth_counts = _numbered([moment.truth for moment in moments])
    found_names, found_counts = _numbered([moment.found for moment in moments])
    return _Sequence(
        [
            _Moment(np.searchsorted(truth_names, one.truth), np.searchsorted(found_names, one.found), one.alike)
            for one in moments
        ],
        truth_counts,
        found_counts,
    )


def _by_frame(side: Tracks, frames: int) -> list[Ints]:
    order = np.argsort(side.frames, kind="stable")
    bounds = np.searchsorted(side.frames[order], np.arange(1, frames + 2))
    parts = [order[start:end] for start, end in pairwise(bounds)]
    for number, rows in enumerate(parts, 1):
        ids, counts = np.unique(side.track_ids[rows], return_counts=True)
        if (counts > 1).any():
            raise DataInvalid(f"frame {number}: identity {ids[counts.argmax()]} occurs {counts.max()} times")
    return parts


def _numbered(parts: list[Ints]) -> tuple[Ints, Ints]:
    """Return the identities that occur, in order, and how often."""
    names, counts = np.unique(np.concatenate([*parts, np.zeros(0, np.int64)]), return_counts=True)
    return names, counts


def _overlap(a: Array, b: Array) -> Array:
    """Return intersection over union, `(G, 4)` and `(T, 4)` left, top, width, height to `(G, T)`."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None])
    sides = np.maximum(high - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    union = (a[:, 2] * a[:, 3])[:, None] + b[:, 2] * b[:, 3] - shared
    over: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > _EPS)
    return over


def _best(gain: Array, least: float) -> tuple[Ints, Ints]:
    """Return the pairs, `(K,)` rows and `(K,)` columns, whose sum is greatest, less those that do not exceed `least`."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise missing_extra("scipy", "video") from error
    rows, columns = linear_sum_assignment(-gain)
    good = gain[rows, columns] > least
    return rows[good], columns[good]


def _hota(sequence: _Sequence) -> dict[str, Array]:
    """Return HOTA's numbers for each of `ALPHAS` (section 5 of the paper)."""
    truth_counts, found_counts = sequence.truth_counts[:, None], sequence.found_counts[None]
    could = np.zeros((len(sequence.truth_counts), len(sequence.found_counts)))
    for truth, found, alike in sequence.moments:
        rivals = alike.sum(axis=0)[None] + alike.sum(axis=1)[:, None] - alike
        could[truth[:, None], found] += np.divide(alike, rivals, out=np.zeros_like(alike), where=rivals > _EPS)
    union = truth_counts + found_counts - could
    aligned = np.divide(could, union, out=np.zeros_like(could), where=union > 0)
    paired = np.zeros((len(ALPHAS), *could.shape))
    hits, placed = np.zeros(len(ALPHAS)), np.zeros(len(ALPHAS))
    for truth, found, alike in sequence.moments:
        rows, columns = _best(aligned[truth[:, None], found] * alike, -1)
        shared = alike[rows, columns]
        good = shared >= ALPHAS[:, None] - _EPS  # (19, K)
        hits += good.sum(axis=1)
        placed += (good * shared).sum(axis=1)
        paired[:, truth[rows], found[columns]] += good
    misses, extras = sequence.truth_counts.sum() - hits, sequence.found_counts.sum() - hits
    some = np.maximum(1, hits)

    def association(of: Array) -> Array:
        share: Array = (paired * (paired / np.maximum(1, of))).sum(axis=(1, 2)) / some
        return share

    numbers = {
        "DetA": hits / np.maximum(1, hits + misses + extras),
        "AssA": association(truth_counts + found_counts - paired),
        "DetRe": hits / np.maximum(1, hits + misses),
        "DetPr": hits / np.maximum(1, hits + extras),
        "AssRe": association(truth_counts),
        "AssPr": association(found_counts),
        "LocA": np.maximum(1e-10, placed) / np.maximum(1e-10, hits),
    }
    return {"HOTA": np.sqrt(numbers["DetA"] * numbers["AssA"])} | numbers


def _clear(sequence: _Sequence) -> dict[str, float]:
    """Return the CLEAR MOT numbers: who was found stays with its track for as long as they overlap enough."""
    objects = len(sequence.truth_counts)
    present, tracked, begun = (np.zeros(objects, np.int64) for _ in range(3))
    ever, just = np.full(objects, -1), np.full(objects, -1)  # the track of each object, last and in the frame before
    hits = switches = 0
    placed = 0.0
    for truth, found, alike in sequence.moments:
        present[truth] += 1
        if not len(truth) or not len(found):
            continue
        kept = just[truth][:, None] == found
        rows, columns = _best(np.where(alike < MIN_OVERLAP - _EPS, 0, 1000 * kept + alike), _EPS)
        matched, tracks = truth[rows], found[columns]
        switches += int(((ever[matched] >= 0) & (ever[matched] != tracks)).sum())
        tracked[matched] += 1
        begun[matched[just[matched] < 0]] += 1
        ever[matched] = tracks
        just[:] = -1
        just[matched] = tracks
        hits += len(rows)
        placed += float(alike[rows, columns].sum())
    total = int(sequence.truth_counts.sum())
    misses, extras = total - hits, int(sequence.found_counts.sum()) - hits
    share = tracked / np.maximum(1, present)
    mostly, partly = int((share > 0.8).sum()), int((share >= 0.2).sum())
    return {
        "MOTA": (hits - extras - switches) / max(1, total),
        "MOTP": placed / max(1, hits),
        "MODA": (hits - extras) / max(1, total),
        "sMOTA": (placed - extras - switches) / max(1, total),
        "CLR_Re": hits / max(1, total),
        "CLR_Pr": hits / max(1, hits + extras),
        "IDSW": switches,
        "MT": mostly,
        "PT": partly - mostly,
        "ML": objects - partly,
        "Frag": int((begun[begun > 0] - 1).sum()),
        "CLR_TP": hits,
        "CLR_FN": misses,
        "CLR_FP": extras,
    }


def _identity(sequence: _Sequence) -> dict[str, float]:
    """Return how far one track stands for one object over the whole sequence, when they are paired as well as can be."""
    shared = np.zeros((len(sequence.truth_counts), len(sequence.found_counts)))
    for truth, found, alike in sequence.moments:
        shared[truth[:, None], found] += alike >= MIN_OVERLAP
    rows, columns = _best(shared, 0)
    hits = int(shared[rows, columns].sum())
    total, claimed = int(sequence.truth_counts.sum()), int(sequence.found_counts.sum())
    return {
        "IDF1": hits / max(1, (total + claimed) / 2),
        "IDR": hits / max(1, total),
        "IDP": hits / max(1, claimed),
        "IDTP": hits,
        "IDFN": total - hits,
        "IDFP": claimed - hits,
    }
