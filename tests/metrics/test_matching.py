"""Who found what, against pycocotools' own record of it and against plain arithmetic."""

import numpy as np
import pytest

from openlepton.errors import UsageError
from openlepton.metrics import GroundTruth, match_detections
from openlepton.metrics.matching import pairs
from openlepton.metrics.truth import stack
from openlepton.ops.boxes import iou
from openlepton.results import Detections


def matched(boxes, found, scores, *, min_iou=0.5, **flags):
    truth = GroundTruth(
        np.array(boxes, float), np.zeros(len(boxes)), **{name: np.array(flag) for name, flag in flags.items()}
    )
    result = Detections(np.array(found), np.array(scores), np.zeros(len(found)), ["a"], (500, 500))
    return match_detections([truth], [result], ["a"], min_iou=min_iou)


@pytest.mark.parametrize("seed", range(8))
def test_hits_and_ignored_detections_equal_pycocotools(seed, random_set, pycocotools):
    truth, found, names = random_set(seed, crowd=0.2, ignore=0.2, levels=8 * (seed % 2), images=40)
    matches = match_detections(truth, found, names)
    theirs = {}
    for one in pycocotools(truth, found, names).images:
        if one is not None and one["aRng"] == [0, 1e10]:
            scores, hit, skipped = np.array(one["dtScores"]), one["dtMatches"][0] > 0, one["dtIgnore"][0] > 0
            theirs[one["image_id"] - 1, one["category_id"] - 1] = (scores, hit & ~skipped, ~skipped)
    start = 0
    for image, one in enumerate(found):
        rows = np.arange(start, start := start + len(one))
        for label in np.unique(one.class_ids):
            mine = rows[one.class_ids == label]
            mine = mine[np.argsort(-matches.scores[mine], kind="stable")]
            scores, hit, counted = theirs[image, int(label)]
            np.testing.assert_array_equal(matches.scores[mine], scores.astype(np.float32))
            np.testing.assert_array_equal(matches.hit[mine], hit)
            np.testing.assert_array_equal(matches.counted[mine], counted)
    assert matches.hit.sum() > 50
    assert (~matches.counted).sum() > 50


def test_the_better_score_takes_the_object_whatever_the_order():
    matches = matched([[0, 0, 100, 100]], [[0, 0, 100, 90], [0, 0, 100, 100]], [0.3, 0.2])
    assert matches.hit.tolist() == [True, False]
    assert matched([[0, 0, 100, 100]], [[0, 0, 100, 90], [0, 0, 100, 100]], [0.2, 0.3]).hit.tolist() == [False, True]


def test_a_detection_whose_best_object_is_taken_tries_the_next():
    boxes = [[0, 0, 100, 100], [0, 20, 100, 120]]
    assert matched(boxes, [[0, 0, 100, 100], [0, 5, 100, 105]], [0.9, 0.8]).hit.tolist() == [True, True]


def test_an_object_that_counts_goes_before_an_ignored_one_that_fits_better():
    boxes = [[0, 0, 100, 100], [0, 20, 100, 120]]
    matches = matched(boxes, [[0, 0, 100, 100]], [0.9], ignore=[True, False])
    assert (matches.hit.tolist(), matches.counted.tolist()) == ([True], [True])


def test_inside_a_crowd_only_the_detections_own_area_is_asked_for():
    small = [[10, 10, 20, 20], [30, 30, 40, 40]]
    assert matched([[0, 0, 100, 100]], small, [0.9, 0.8], crowd=[True]).counted.tolist() == [False, False]
    assert matched([[0, 0, 100, 100]], small, [0.9, 0.8], ignore=[True]).counted.tolist() == [True, True]


def test_an_overlap_equal_to_the_threshold_is_a_hit():
    assert matched([[0, 0, 100, 100]], [[0, 0, 100, 50]], [0.9]).hit.tolist() == [True]
    assert matched([[0, 0, 100, 100]], [[0, 0, 100, 49.9]], [0.9]).hit.tolist() == [False]
    assert matched([[0, 0, 100, 100]], [[0, 0, 100, 100]], [0.9], min_iou=1.0).hit.tolist() == [True]


def test_detections_beyond_the_limit_count_neither_way_for_each_class_and_image():
    names = ["a", "b"]
    truth = [GroundTruth([[0, 0, 10, 10]], [0])] * 2
    found = [
        Detections(np.tile([0, 0, 10, 10], (5, 1)), [0.1, 0.5, 0.4, 0.3, 0.2], [0, 0, 0, 1, 1], names, (50, 50))
    ] * 2
    matches = match_detections(truth, found, names, max_detections=2)
    assert matches.counted.tolist() == [False, True, True, True, True] * 2
    assert matches.hit.tolist() == [False, True, False, False, False] * 2
    assert matches.positives.tolist() == [2, 0]


def test_more_pairs_than_fit_at_once_are_all_compared():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 300, (2200, 2))
    boxes = np.hstack([corners, corners + rng.integers(20, 80, (2200, 2))]).astype(np.float32)
    truth = [GroundTruth(boxes[:1000], np.zeros(1000))]
    found = [Detections(boxes[1000:], rng.random(1200), np.zeros(1200), ["a"], (400, 400))]
    rows, columns, overlap = pairs(*stack(truth, found, ["a"]), 0.3, by_class=True)  # of 1.2 million
    table = iou(boxes[1000:], boxes[:1000])
    expected = np.argwhere(table >= 0.3)
    order = np.lexsort((columns, rows))
    np.testing.assert_array_equal(np.column_stack([rows, columns])[order], expected)
    np.testing.assert_allclose(overlap[order], table[expected[:, 0], expected[:, 1]], rtol=1e-6)


@pytest.mark.parametrize("min_iou", [0.0, -0.5, 1.1])
def test_an_overlap_that_is_none_is_refused(min_iou, random_set):
    with pytest.raises(UsageError, match="min_iou: expected above 0 and up to 1"):
        match_detections(*random_set(0), min_iou=min_iou)
