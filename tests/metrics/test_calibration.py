"""Calibration errors equal those of the authors' own code, whose numbers are written down here, and hand arithmetic."""

import math

import numpy as np
import pytest

from openlepton.errors import ShapeError, UsageError
from openlepton.metrics import Matches, detection_calibration_error, match_detections, reliability
from openlepton.results import Detections

# ECE and MCE with detection=True of netcal 1.4.0 (Apache-2.0, by the authors of D-ECE): 20 bins over confidence, then
# 5 bins for each quantity and at least 8 detections in a bin
REAL = {
    "error": 0.028404651452289074, "max_error": 0.17410000165303552,
    "both": 0.01612852711317151, "position": 0.03832387611154438, "size": 0.018868062183145407,
}  # fmt: skip
RANDOM = {
    "error": 0.3745153660723486, "max_error": 0.6117430546066978,
    "both": 0.2959277856130441, "position": 0.36871507142960375, "size": 0.3653400480696133,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["real", "random"])
def test_calibration_errors_equal_the_reference(kind, real_set, random_set):
    truth, found, names = real_set if kind == "real" else random_set(7, images=60, ignore=0.2, found=60)
    expected = REAL if kind == "real" else RANDOM
    matches = match_detections(truth, found, names)
    curve = reliability(matches)
    got = {
        "error": curve.error,
        "max_error": curve.max_error,
        "both": detection_calibration_error(matches, found),
        "position": detection_calibration_error(matches, found, size=False),
        "size": detection_calibration_error(matches, found, position=False),
    }
    assert got == pytest.approx(expected, abs=1e-9)


def flat(scores, hits, counted=None):
    count = len(scores)
    counted = np.ones(count, bool) if counted is None else np.array(counted)
    return Matches(np.float32(scores), np.zeros(count, np.int64), np.array(hits), counted, np.array([count]), 0.5)


def test_bins_hold_means_that_are_worked_out_by_hand():
    curve = reliability(flat([0.1, 0.2, 0.6, 0.8, 1.0], [False, True, True, True, False]), bins=2)
    np.testing.assert_allclose(curve.edges, [0, 0.5, 1])
    np.testing.assert_array_equal(curve.counts, [2, 3])
    np.testing.assert_allclose(curve.score, [0.15, 0.8], rtol=1e-6)
    np.testing.assert_allclose(curve.precision, [1 / 2, 2 / 3])
    assert curve.error == pytest.approx((2 * 0.35 + 3 * (0.8 - 2 / 3)) / 5)
    assert curve.max_error == pytest.approx(0.35)


def test_confidence_that_is_right_as_often_as_it_says_has_no_error():
    hits = [index < 7 for index in range(10)] + [index < 2 for index in range(10)]
    assert reliability(flat([0.7] * 10 + [0.2] * 10, hits)).error == pytest.approx(0, abs=1e-7)


def test_what_counts_neither_way_is_left_out():
    both = reliability(flat([0.9, 0.9], [True, False], counted=[True, False]))
    assert both.counts.sum() == 1
    assert both.error == pytest.approx(0.1, abs=1e-6)


def test_an_error_that_hangs_on_the_place_is_seen_only_with_the_place():
    """Left half always right, right half always wrong, all at 0.5: calibrated on average, nowhere in particular."""
    left, right = np.tile([0, 40, 20, 60], (20, 1)), np.tile([80, 40, 100, 60], (20, 1))
    found = [Detections(np.vstack([left, right]), [0.5] * 40, [0] * 40, ["a"], (100, 100))]
    matches = flat([0.5] * 40, [True] * 20 + [False] * 20)
    assert reliability(matches).error == pytest.approx(0)
    assert detection_calibration_error(matches, found, position=False) == pytest.approx(0)
    assert detection_calibration_error(matches, found, size=False) == pytest.approx(0.5)


def test_without_detections_nothing_is_said():
    curve = reliability(flat([], np.zeros(0, bool)))
    assert math.isnan(curve.error)
    assert math.isnan(curve.max_error)
    few = [Detections([[0, 0, 5, 5]] * 7, [0.5] * 7, [0] * 7, ["a"], (10, 10))]
    assert math.isnan(detection_calibration_error(flat([0.5] * 7, [True] * 7), few))


def test_other_detections_than_were_matched_are_refused(random_set):
    truth, found, names = random_set(0)
    with pytest.raises(ShapeError, match="found: expected"):
        detection_calibration_error(match_detections(truth, found, names), found[:-1])
    with pytest.raises(UsageError, match="bins: expected at least 1"):
        reliability(match_detections(truth, found, names), bins=0)
