"""Classifiers counted: equal to scikit-learn's, with and without one class for each image."""

import json
import warnings

import numpy as np
import pytest
from sklearn import metrics as reference

from openlepton.errors import ShapeError
from openlepton.metrics import classification_report, tag_report
from openlepton.metrics.classification import average_precision

NAMES = tuple("abcdefgh")


@pytest.fixture
def scored():
    """300 images of eight classes, the last of which is never true; scores in steps of 0.05, so that many are equal."""
    numbers = np.random.default_rng(0)
    truth = numbers.integers(0, 7, 300)
    scores = numbers.random((300, 8)) + np.eye(8)[truth] * 0.6
    return (np.round(scores * 20) / 20).astype(np.float32), truth


def test_one_class_for_each_image_equals_scikit_learn(scored):
    scores, truth = scored
    report = classification_report(scores, truth, NAMES)
    best = scores.argmax(1)
    np.testing.assert_array_equal(report.confusion, reference.confusion_matrix(truth, best, labels=range(8)))
    assert report.top1 == pytest.approx(reference.accuracy_score(truth, best), rel=1e-12)
    distinct = scores + np.linspace(0.01, 0, 8)  # equal scores fall to the first class here, to the last there
    top5 = reference.top_k_accuracy_score(truth, distinct, k=5, labels=range(8))
    assert report.top5 == pytest.approx(top5, rel=1e-12)
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        truth, best, labels=range(8), zero_division=np.nan
    )
    np.testing.assert_allclose(report.precision, precision, rtol=1e-12)
    np.testing.assert_allclose(report.recall, recall, rtol=1e-12)
    np.testing.assert_allclose(report.f1[:7], f1[:7], rtol=1e-12)
    assert [row[1] for row in report.rows()] == support.tolist()


def test_any_number_of_labels_equals_scikit_learn(scored):
    scores, truth = scored
    numbers = np.random.default_rng(1)
    tags = (np.eye(8, dtype=bool)[truth] | (numbers.random((300, 8)) < 0.2)) & (np.arange(8) < 7)
    tags[:5] = False
    report = tag_report(scores, tags, NAMES, min_score=0.7)
    wanted = [reference.average_precision_score(tags[:, index], scores[:, index]) for index in range(7)]
    np.testing.assert_allclose(report.ap[:7], wanted, rtol=1e-9)
    assert np.isnan(report.ap[7])
    assert report.map == pytest.approx(np.mean(wanted))
    found = scores > 0.7
    precision, recall, f1, support = reference.precision_recall_fscore_support(tags, found, zero_division=np.nan)
    np.testing.assert_allclose(report.precision, precision, rtol=1e-12)
    np.testing.assert_allclose(report.recall, recall, rtol=1e-12)
    np.testing.assert_allclose(report.f1[:7], f1[:7], rtol=1e-12)
    assert report.micro_f1 == pytest.approx(reference.f1_score(tags, found, average="micro"))
    assert report.exact == pytest.approx(reference.accuracy_score(tags, found))
    assert [row[1] for row in report.rows()] == support.tolist()


@pytest.mark.parametrize(
    ("scores", "truth", "wanted"),
    [
        ([3, 2, 1], [1, 0, 0], 1),
        ([3, 2, 1], [0, 0, 1], 1 / 3),
        ([1, 1, 1, 1], [0, 1, 0, 0], 1 / 4),
        ([2, 1], [0, 0], np.nan),
    ],
)
def test_average_precision_of_what_can_be_counted_by_hand(scores, truth, wanted):
    found = average_precision(np.array(scores, np.float32), np.array(truth, bool))
    assert found == pytest.approx(wanted, nan_ok=True)


def test_no_image_gives_no_numbers_and_valid_json():
    nothing = np.zeros((0, 3), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = classification_report(nothing, np.zeros(0, np.int64), "abc")
        many = tag_report(nothing, np.zeros((0, 3), bool), "abc")
        for report in (one, many):
            plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
            assert plain["images"] == 0
            assert plain["classes"][0]["f1"] is None
    assert np.isnan(one.top5)
    assert np.isnan(many.exact)


def test_fewer_than_five_classes_are_always_among_the_five():
    scores = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    assert classification_report(scores, np.arange(20) % 3, "abc").top5 == 1


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(ShapeError, match=r"expected \(2, 3\), got \(2, 4\)"):
        classification_report(np.zeros((2, 4), np.float32), np.zeros(2, np.int64), "abc")
    with pytest.raises(ShapeError, match=r"truth: expected 0\.\.2, got up to 3"):
        classification_report(np.zeros((2, 3), np.float32), np.array([0, 3]), "abc")
    with pytest.raises(ShapeError, match=r"expected \(2, 3\), got \(2, 2\)"):
        tag_report(np.zeros((2, 3), np.float32), np.zeros((2, 2), bool), "abc")
