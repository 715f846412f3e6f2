"""Curves equal what counting gives at each confidence; the area under precision equals pycocotools' AP."""

import numpy as np
import pytest

from openlepton.metrics import (
    GroundTruth,
    Matches,
    confusion_matrix,
    evaluate_detections,
    match_detections,
    precision_at_recall,
    score_curves,
)
from openlepton.results import Detections

NAMES = ["cat", "dog", "cow"]


def result(boxes, scores, ids):
    return Detections(np.array(boxes, float).reshape(-1, 4), np.array(scores), np.array(ids), NAMES, (500, 500))


@pytest.mark.parametrize("seed", range(4))
def test_precision_at_recall_equals_pycocotools_at_every_point(seed, random_set, pycocotools):
    data = random_set(seed, crowd=0.2, ignore=0.2, levels=20 * (seed % 2), found=60)
    mine = precision_at_recall(match_detections(*data))
    np.testing.assert_allclose(np.nan_to_num(mine, nan=-1), pycocotools(*data).precision[0, :, :, 0, 2].T, atol=1e-9)


def test_precision_at_recall_of_the_real_set_averages_to_its_ap50(real_set):
    report = evaluate_detections(*real_set)
    by_class = precision_at_recall(report.matches).mean(axis=1)
    np.testing.assert_allclose(by_class, [one.ap50 for one in report.classes], atol=1e-9)
    assert np.nanmean(by_class) == pytest.approx(report.ap50, abs=1e-9)


def test_score_curves_are_counts_at_every_confidence(random_set):
    matches = match_detections(*random_set(2, crowd=0.2, levels=10, images=20))
    curves = score_curves(matches)
    for step in range(0, 1001, 50):
        keep = matches.counted & (matches.scores >= np.float32(curves.thresholds[step]))
        for label, objects in enumerate(matches.positives):
            kept = int((keep & (matches.class_ids == label)).sum())
            hits = int((keep & matches.hit & (matches.class_ids == label)).sum())
            expected = [hits / kept if kept else np.nan] + (
                [hits / objects, 2 * hits / (kept + objects)] if objects else [np.nan] * 2
            )
            got = [curves.precision[label, step], curves.recall[label, step], curves.f1[label, step]]
            np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_a_threshold_keeps_what_filtering_detections_keeps():
    scores = np.arange(1001) / 1000
    found = result(np.tile([0, 0, 9, 9], (1001, 1)), scores, [0] * 1001)
    curves = score_curves(
        Matches(found.scores, found.class_ids, np.ones(1001, bool), np.ones(1001, bool), np.array([1001]), 0.5)
    )
    kept = [len(found[found.scores >= round(step / 1000, 3)]) for step in range(1001)]
    np.testing.assert_array_equal(np.round(curves.recall[0] * 1001), kept)


def test_the_best_confidence_is_where_the_mean_f1_of_classes_with_objects_is_highest():
    hit = np.array([True, False, True, True])
    matches = Matches(
        np.float32([0.9, 0.7, 0.5, 0.3]), np.array([0, 0, 1, 1]), hit, np.ones(4, bool), np.array([1, 2, 0]), 0.5
    )
    curves = score_curves(matches)
    # at 0.3: F1 2/3 and 1, mean 5/6; between 0.7 and 0.9 the cat's is 1 but both dogs are lost
    assert curves.best_score == 0.0
    assert curves.mean_f1[[0, 400, 600, 800, 1000]] == pytest.approx([5 / 6, 2 / 3, 1 / 3, 1 / 2, 0.0])
    assert np.isnan(curves.f1[2]).all()


def test_the_confusion_matrix_of_a_small_scene_is_this_one():
    truth = [GroundTruth([[0, 0, 50, 50], [100, 0, 150, 50], [200, 0, 250, 50]], [0, 1, 2])]
    found = [
        result(
            [[0, 0, 50, 50], [100, 0, 150, 48], [400, 400, 450, 450], [200, 0, 250, 50], [0, 2, 50, 50]],
            [0.9, 0.8, 0.7, 0.25, 0.6],  # the cow's is not above the confidence; the last is a second cat, a dog
            [0, 0, 2, 2, 1],
        )
    ]
    expected = [
        [1, 0, 0, 0],  # the cat is found
        [1, 0, 0, 0],  # the dog is taken for a cat
        [0, 0, 0, 1],  # the cow is missed
        [0, 1, 1, 0],  # a dog and a cow where nothing is
    ]
    assert confusion_matrix(truth, found, NAMES).tolist() == expected


def test_the_highest_overlap_decides_who_is_taken_for_whom_not_the_score():
    truth = [GroundTruth([[0, 0, 100, 100]], [0])]
    found = [result([[0, 0, 100, 100], [0, 0, 100, 90]], [0.4, 0.95], [0, 1])]
    assert confusion_matrix(truth, found, NAMES)[0].tolist() == [1, 0, 0, 0]
    assert confusion_matrix(truth, found, NAMES)[3].tolist() == [0, 1, 0, 0]


def test_an_overlap_equal_to_the_threshold_confuses_nobody():
    truth = [GroundTruth([[0, 0, 100, 100]], [0])]
    half = [result([[0, 0, 100, 50]], [0.9], [0])]
    assert confusion_matrix(truth, half, NAMES, min_iou=0.5)[0].tolist() == [0, 0, 0, 1]
    assert confusion_matrix(truth, half, NAMES, min_iou=0.49)[0].tolist() == [1, 0, 0, 0]


def test_ignored_objects_and_what_lies_on_them_are_in_no_cell():
    truth = [GroundTruth([[0, 0, 100, 100], [200, 200, 300, 300]], [0, 0], crowd=[True, False], ignore=[False, True])]
    found = [result([[10, 10, 30, 30], [200, 200, 300, 300], [200, 200, 300, 299]], [0.9, 0.9, 0.9], [0, 0, 1])]
    table = confusion_matrix(truth, found, NAMES)
    assert table.sum() == 1
    assert table[3, 1] == 1  # of another class: a false alarm


def test_rows_of_the_confusion_matrix_count_every_object_and_columns_every_detection(random_set):
    truth, found, names = random_set(4, images=30)
    table = confusion_matrix(truth, found, names, min_score=0.3)
    objects = np.bincount(np.concatenate([one.class_ids for one in truth]), minlength=len(names))
    sure = np.bincount(np.concatenate([one.class_ids[one.scores > 0.3] for one in found]), minlength=len(names))
    np.testing.assert_array_equal(table[:-1].sum(axis=1), objects)
    np.testing.assert_array_equal(table[:, :-1].sum(axis=0), sure)
    assert table.trace() > 20
