"""Pixels counted by class: equal to scikit-learn's, and to what can be counted by hand."""

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from openlepton.arrays import UNKNOWN
from openlepton.errors import ShapeError
from openlepton.metrics import SegmentationReport, pixel_confusion, segmentation_report

NAMES = ("background", "cell", "edge", "absent")


@pytest.fixture
def images():
    """Four pairs of class maps of different sizes, a tenth of the truth not known, the last class nowhere."""
    numbers = np.random.default_rng(0)
    pairs = []
    for hw in ((20, 30), (7, 5), (64, 64), (1, 9)):
        truth = numbers.integers(0, 3, hw).astype(np.uint8)
        found = np.where(numbers.random(hw) < 0.7, truth, numbers.integers(0, 3, hw)).astype(np.uint8)
        truth[numbers.random(hw) < 0.1] = UNKNOWN
        pairs.append((truth, found))
    return pairs


def report_of(pairs):
    return segmentation_report([pixel_confusion(truth, found, len(NAMES)) for truth, found in pairs], NAMES)


def test_all_numbers_equal_scikit_learn(images):
    report = report_of(images)
    truth = np.concatenate([truth.ravel() for truth, _ in images])
    found = np.concatenate([found.ravel() for _, found in images])[truth != UNKNOWN]
    truth = truth[truth != UNKNOWN]
    labels = range(3)
    np.testing.assert_array_equal(report.confusion, reference.confusion_matrix(truth, found, labels=range(4)))
    iou = reference.jaccard_score(truth, found, labels=labels, average=None)
    np.testing.assert_allclose(report.iou[:3], iou, rtol=1e-12)
    assert report.miou == pytest.approx(iou.mean(), rel=1e-12)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(truth, found, labels=labels)
    np.testing.assert_allclose(report.precision[:3], precision, rtol=1e-12)
    np.testing.assert_allclose(report.recall[:3], recall, rtol=1e-12)
    np.testing.assert_allclose(report.dice[:3], f1, rtol=1e-12)
    assert report.accuracy == pytest.approx(reference.accuracy_score(truth, found), rel=1e-12)


def test_the_numbers_of_a_table_that_can_be_counted_by_hand():
    report = SegmentationReport(np.array([[6, 2], [1, 3]]), ("a", "b"), images=1)
    assert report.iou.tolist() == [6 / 9, 3 / 6]
    assert report.miou == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert report.dice.tolist() == [12 / 15, 6 / 9]
    assert report.accuracy == 9 / 12
    assert [row[:2] for row in report.rows()] == [("a", 8 / 12), ("b", 4 / 12)]


def test_a_class_that_is_nowhere_has_no_iou_and_one_that_was_only_found_has_none_right(images):
    assert np.isnan(report_of(images).iou[3])
    truth, found = images[0]
    found = found.copy()
    found[0, 0], truth[0, 0] = 3, 0
    assert report_of([(truth, found)]).iou[3] == 0


def test_nothing_known_gives_no_numbers_and_valid_json():
    nothing = np.full((3, 4), UNKNOWN, np.uint8)
    report = report_of([(nothing, np.zeros((3, 4), np.uint8))])
    assert np.isnan(report.miou)
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["miou"] is None
    assert plain["classes"][1]["iou"] is None
    assert np.isnan(report_of([]).accuracy)


def test_ids_that_are_no_class_are_refused():
    good, bad = np.zeros((2, 2), np.uint8), np.full((2, 2), 4, np.uint8)
    for truth, found in ((bad, good), (good, bad), (good, np.full((2, 2), UNKNOWN, np.uint8))):
        with pytest.raises(ShapeError, match=r"expected 0\.\.3"):
            pixel_confusion(truth, found, 4)
    with pytest.raises(ShapeError, match=r"expected \(2, 2\), got \(2, 3\)"):
        pixel_confusion(good, np.zeros((2, 3), np.uint8), 4)
