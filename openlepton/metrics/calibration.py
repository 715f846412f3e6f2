"""Whether a confidence of 0.7 is right seven times in ten, and what to divide logits by so that it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openlepton.arrays import Array, Floats, Ints
from openlepton.errors import ShapeError, UsageError
from openlepton.metrics.matching import Matches
from openlepton.results import Detections


@dataclass(frozen=True, eq=False)
class Reliability:
    """What a reliability diagram draws: mean confidence and precision of the detections in each bin of confidence."""

    edges: Array
    """`(K + 1,)` confidences between the bins, 0 to 1; a bin holds its lower edge, the last both."""
    score: Array
    """`(K,)` mean confidence; NaN in an empty bin."""
    precision: Array
    """`(K,)` hits among the detections of the bin; NaN in an empty bin."""
    counts: Ints
    """`(K,)` detections in the bin."""
    error: float
    """D-ECE: the mean of |precision - score| over detections, 0..1; NaN without detections."""
    max_error: float
    """The largest |precision - score| of a bin; NaN without detections."""


def reliability(matches: Matches, *, bins: int = 20) -> Reliability:
    """Return the reliability diagram over confidence alone and its expected error (Küppers et al. 2020, equation 7).

    Detections that count neither way are left out. Twenty bins are the paper's.

    Raises:
        UsageError: There is no bin.
    """
    scores, hits = _counted(matches)
    rows = _binned(scores[:, None], bins)
    counts = np.bincount(rows, minlength=bins)
    score, precision = (_means(rows, values, counts) for values in (scores, hits))
    gaps = np.abs(precision - score)[counts > 0]
    weights = counts[counts > 0]
    some = weights.size > 0
    return Reliability(
        edges=np.linspace(0, 1, bins + 1),
        score=score,
        precision=precision,
        counts=counts,
        error=float(gaps @ weights / weights.sum()) if some else float("nan"),
        max_error=float(gaps.max()) if some else float("nan"),
    )


def detection_calibration_error(
    matches: Matches,
    found: Sequence[Detections],
    *,
    position: bool = True,
    size: bool = True,
    bins: int = 5,
    min_count: int = 8,
) -> float:
    """Return D-ECE over confidence, place and size of the boxes, 0..1; NaN where no bin is full (Küppers et al. 2020).

    Args:
        matches: What became of each detection.
        found: The same detections, one result for each image.
        position: Also bin by the centre of the box, relative to the image.
        size: Also bin by the width and height of the box, relative to the image.
        bins: How many for each quantity.
        min_count: Bins with fewer detections count as calibrated: too few to say, as in the authors' own code.

    Raises:
        ShapeError: `found` is not what `matches` was made from.
        UsageError: There is no bin.
    """
    if sum(len(one) for one in found) != len(matches.scores):
        raise ShapeError(f"found: expected {len(matches.scores)} detections, got {sum(len(one) for one in found)}")
    scores, hits = _counted(matches)
    where = np.concatenate([_relative(one) for one in found])[matches.counted]  # (N, 4) cx, cy, w, h
    columns = [scores[:, None], where[:, :2] if position else where[:, :0], where[:, 2:] if size else where[:, :0]]
    _, rows, counts = np.unique(_binned(np.hstack(columns), bins), return_inverse=True, return_counts=True)
    gaps = np.abs(_means(rows, hits, counts) - _means(rows, scores, counts))
    enough = counts >= min_count
    return float(gaps[enough] @ counts[enough] / counts.sum()) if enough.any() else float("nan")


def expected_calibration_error(scores: Floats, truth: Array, *, bins: int = 15) -> float:
    """Return ECE, the mean of |accuracy - confidence| over bins of confidence, 0..1 (Guo et al. 2017, equation 3).

    Args:
        scores: `(N, C)` in 0..1.
        truth: `(N,)` class ids, of which the most probable class is right or wrong; or `(N, C)` flags, where classes do not exclude
            each other: then every score is a confidence of its own.
        bins: Of equal width; 15 are the paper's.

    Raises:
        ShapeError: The arrays do not belong together.
        UsageError: There is no bin.
    """
    if len(scores) != len(truth) or (truth.ndim == 2 and truth.shape != scores.shape):
        raise ShapeError(f"scores and truth: expected the same rows, got {scores.shape} and {truth.shape}")
    if truth.ndim == 2:
        confidence, right = scores.ravel().astype(np.float64), truth.ravel().astype(np.float64)
    else:
        confidence, right = scores.max(1).astype(np.float64), (scores.argmax(1) == truth).astype(np.float64)
    rows = _binned(confidence[:, None], bins)
    counts = np.bincount(rows, minlength=bins)
    gaps = np.abs(_means(rows, right, counts) - _means(rows, confidence, counts))
    some = counts > 0
    return float(gaps[some] @ counts[some] / counts.sum()) if some.any() else float("nan")


def best_temperature(logits: Floats, truth: Array, *, low: float = 0.05, high: float = 20.0) -> float:
    """Return what to divide logits by so that the truth is most probable (Guo et al. 2017, section 4.2).

    The likelihood has one maximum; the golden section finds it, in logarithms of the temperature.

    Args:
        logits: `(N, C)`, or `(N, 1)` the logit of the second of two classes.
        truth: `(N,)` class ids, or `(N, C)` flags where classes do not exclude each other.
        low: The least temperature.
        high: The highest.
    """
    share = (5**0.5 - 1) / 2
    left, right = np.log(low), np.log(high)
    while right - left > 1e-4:
        width = share * (right - left)
        if _surprise(logits / np.exp(right - width), truth) < _surprise(logits / np.exp(left + width), truth):
            right = left + width
        else:
            left = right - width
    return float(np.exp((left + right) / 2))


def _surprise(logits: Floats, truth: Array) -> float:
    """Return the mean negative logarithm of the probability of the truth, nats."""
    values = logits.astype(np.float64)
    if truth.ndim == 2 or values.shape[1] == 1:
        signs = np.where(truth.reshape(values.shape), values, -values)
        return float(np.logaddexp(0, -signs).mean())
    raised = values - values.max(1, keepdims=True)
    return float((np.log(np.exp(raised).sum(1)) - raised[np.arange(len(truth)), truth]).mean())


def _counted(matches: Matches) -> tuple[Array, Array]:
    return matches.scores[matches.counted].astype(np.float64), matches.hit[matches.counted].astype(np.float64)


def _binned(columns: Array, bins: int) -> Ints:
    """Return `(N,)` the cell of each row of `(N, D)` values in 0..1; what lies outside goes to the border."""
    if bins < 1:
        raise UsageError(f"bins: expected at least 1, got {bins}")
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    cells = np.searchsorted(edges, columns, "right")  # (N, D)
    return np.asarray(cells @ (bins ** np.arange(columns.shape[1])))


def _means(rows: Ints, values: Array, counts: Ints) -> Array:
    """Return the mean of `(N,)` values in each cell; NaN in an empty one."""
    sums = np.bincount(rows, values, minlength=len(counts))
    means: Array = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return means


def _relative(one: Detections) -> Array:
    height, width = one.image_hw
    x1, y1, x2, y2 = one.boxes.astype(np.float64).T
    return np.column_stack([(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height])
