"""VOC's average precision equals the reference's, whose numbers are written down here, and hand arithmetic."""

from dataclasses import replace

import numpy as np
import pytest

from openlepton.errors import UsageError
from openlepton.metrics import GroundTruth, evaluate_detections, voc_ap
from openlepton.results import Detections

N = float("nan")

# `eval_detection_voc` of chainercv 0.13.1 (MIT) on the same arrays; its boxes are inclusive pixels, so 1 was taken off x2 and y2
REAL = {
    11: [N, N, N, N, 0.58677686, 0.696969697, 0.454545455, 0.656818182, 0.491746411, N, 0.560606061, 0.925619835,
         0.965909091, 1.0, 0.641621764, 1.0, 0.545454545, N, N, 0.5],
    None: [N, N, N, N, 0.545454545, 0.666666667, 0.416666667, 0.653125, 0.489912281, N, 0.55952381, 0.931818182,
           0.964285714, 1.0, 0.649791102, 1.0, 0.5, N, N, 0.5],
}  # fmt: skip
RANDOM = {
    11: [0.577825878, 0.457695072, 0.406775247, 0.299414311, N],
    None: [0.584963989, 0.456484724, 0.409159387, 0.284038107, N],
}


@pytest.mark.parametrize("points", [11, None])
def test_real_detections_give_the_reference_numbers(points, real_set):
    truth, found, names = real_set
    rng = np.random.default_rng(1)
    truth = [replace(one, ignore=rng.random(len(one)) < 0.2) for one in truth]
    rows = np.split(np.arange(sum(map(len, found))), np.cumsum([len(one) for one in found])[:-1])
    # the reference breaks ties in no order of its own: none are left
    found = [replace(one, scores=one.scores.astype(float) - 1e-6 * row) for one, row in zip(found, rows, strict=True)]
    np.testing.assert_allclose(voc_ap(truth, found, names, points=points), REAL[points], atol=1e-8)


@pytest.mark.parametrize("points", [11, None])
def test_a_random_set_with_difficult_objects_gives_the_reference_numbers(points, random_set):
    ap = voc_ap(*random_set(7, images=20, ignore=0.2), points=points)
    np.testing.assert_allclose(ap, RANDOM[points], atol=1e-8)


def scene(boxes, found, scores, ignore=None):
    truth = GroundTruth(boxes, [0] * len(boxes), ignore=ignore)
    return [truth], [Detections(np.array(found, float), scores, [0] * len(found), ["a"], (500, 500))], ["a"]


def test_hits_and_misses_in_turn_give_the_areas_worked_out_by_hand():
    boxes = [[0, 0, 50, 50], [100, 0, 150, 50]]
    data = scene(boxes, [boxes[0], [300, 300, 350, 350], boxes[1]], [0.9, 0.8, 0.7])
    # recall 1/2 at precision 1, recall 1 at precision 2/3
    assert voc_ap(*data)[0] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert voc_ap(*data, points=11)[0] == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_only_the_nearest_object_is_tried_where_coco_tries_the_next():
    data = scene([[0, 0, 100, 100], [0, 20, 100, 120]], [[0, 0, 100, 100], [0, 5, 100, 105]], [0.9, 0.8])
    assert voc_ap(*data)[0] == pytest.approx(0.5)
    assert evaluate_detections(*data).ap50 == pytest.approx(1.0)


def test_every_detection_of_a_difficult_object_counts_neither_way():
    boxes = [[0, 0, 50, 50], [100, 0, 150, 50]]
    data = scene(boxes, [boxes[1], boxes[1], boxes[0]], [0.9, 0.8, 0.7], ignore=[False, True])
    assert voc_ap(*data)[0] == pytest.approx(1.0)


def test_inclusive_pixels_are_edges_after_taking_one_off():
    # 1-based inclusive 1..10 by 1..10 is ten pixels wide; against 1..10 by 1..5 it shares half, which is a hit
    data = scene([[1 - 1, 1 - 1, 10, 10]], [[1 - 1, 1 - 1, 10, 5]], [0.9])
    assert voc_ap(*data)[0] == pytest.approx(1.0)


def test_nothing_found_is_zero_and_nothing_there_is_undefined(random_set):
    truth, found, names = random_set(0)
    none = [Detections.empty(names, one.image_hw) for one in found]
    np.testing.assert_array_equal(voc_ap(truth, none, names), [0, 0, 0, 0, N])
    empty = [GroundTruth(np.zeros((0, 4)), [])] * len(found)
    assert np.isnan(voc_ap(empty, found, names)).all()


def test_one_point_is_refused(random_set):
    with pytest.raises(UsageError, match="points: expected None or at least 2, got 1"):
        voc_ap(*random_set(0), points=1)
