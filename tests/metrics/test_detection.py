"""COCO's numbers equal pycocotools', on sets that press on every rule and on a real one."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlepton.errors import MissingExtra, ShapeError, UsageError
from openlepton.metrics import GroundTruth, Timing, evaluate_detections
from openlepton.metrics.detection import HEADER
from openlepton.results import Detections

KINDS = {
    "plain": {},
    "crowds": {"crowd": 0.3},
    "ignored": {"ignore": 0.3},
    "crowds and ignored": {"crowd": 0.2, "ignore": 0.2},
    "equal scores": {"levels": 4},
    "everything at once": {"crowd": 0.2, "ignore": 0.2, "levels": 10},
    "more than a hundred": {"classes": 3, "found": 700, "images": 6, "crowd": 0.1},
    "many images, few objects": {"images": 60, "objects": 1, "found": 3},
    "nothing found": {"found": 0},
    "nothing there": {"objects": 0},
    "one class": {"classes": 2, "crowd": 0.2, "levels": 6},
}


def one_image(boxes, ids, found, scores, found_ids, names=("a", "b"), **flags):
    truth = GroundTruth(np.array(boxes, float), np.array(ids), **flags)
    return [truth], [Detections(np.array(found), np.array(scores), np.array(found_ids), names, (500, 500))], names


def agree(data, reference):
    report = evaluate_detections(*data)
    twelve = np.nan_to_num(list(report.summary().values())[:12], nan=-1.0)
    assert twelve == pytest.approx(reference.stats, abs=1e-6)
    for index, one in enumerate(report.classes):
        for value, theirs in (
            (one.ap, reference.precision[:, :, index, 0, 2]),
            (one.ap50, reference.precision[0, :, index, 0, 2]),
        ):
            assert np.nan_to_num(value, nan=-1.0) == pytest.approx(theirs.mean(), abs=1e-6)
    return report


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_all_twelve_numbers_and_every_class_equal_pycocotools(kind, seed, random_set, pycocotools):
    data = random_set(seed, **KINDS[kind])
    agree(data, pycocotools(*data))


def test_real_detections_of_a_network_give_what_pycocotools_gives(real_set, pycocotools):
    report = agree(real_set, pycocotools(*real_set))
    assert report.images == 48
    assert sum(one.objects for one in report.classes) == 148
    assert 0.3 < report.ap < 0.6


def test_stated_areas_decide_the_size_as_in_pycocotools(random_set, pycocotools):
    truth, found, names = random_set(3)
    truth = [replace(one, areas=(one.boxes[:, 2:] - one.boxes[:, :2]).prod(axis=1) * 0.4) for one in truth]
    plain = evaluate_detections(random_set(3)[0], found, names)
    assert agree((truth, found, names), pycocotools(truth, found, names)).ap_medium != pytest.approx(plain.ap_medium)


@pytest.mark.parametrize("limits", [(1, 10, 300), (5,), (2, 3)])
def test_other_limits_on_detections_equal_pycocotools(limits, random_set, pycocotools):
    data = random_set(1, classes=3, found=900, images=5)
    reference = pycocotools(*data, max_detections=limits)
    report = evaluate_detections(*data, max_detections=limits)
    defined = reference.precision[..., 0, -1]
    assert report.ap == pytest.approx(defined[defined > -1].mean(), abs=1e-6)
    for place, limit in enumerate(limits):
        recall = reference.recall[..., 0, place]
        assert report.ar[limit] == pytest.approx(recall[recall > -1].mean(), abs=1e-6)


def test_a_missed_ignored_object_costs_nothing_and_a_found_one_gains_nothing():
    boxes, ids = [[0, 0, 50, 50], [100, 100, 150, 150]], [0, 0]
    both = one_image(boxes, ids, boxes, [0.5, 0.9], ids, ignore=np.array([False, True]))
    first = one_image(boxes, ids, boxes[:1], [0.5], [0], ignore=np.array([False, True]))
    assert evaluate_detections(*both).ap == pytest.approx(1.0)
    assert evaluate_detections(*first).ap == pytest.approx(1.0)
    assert evaluate_detections(*both).classes[0].objects == 1


def test_a_crowd_takes_any_number_of_detections_and_an_ignored_object_one():
    boxes, ids = [[0, 0, 50, 50], [100, 100, 200, 200]], [0, 0]
    found = [[100, 100, 200, 200], [101, 101, 200, 200], [0, 0, 50, 50]]
    flag = np.array([False, True])
    assert evaluate_detections(*one_image(boxes, ids, found, [0.9, 0.8, 0.7], [0] * 3, crowd=flag)).ap == pytest.approx(
        1.0
    )
    assert evaluate_detections(
        *one_image(boxes, ids, found, [0.9, 0.8, 0.7], [0] * 3, ignore=flag)
    ).ap == pytest.approx(0.5)


def test_an_object_on_the_border_of_two_sizes_counts_in_both():
    box = [[0, 0, 32, 32]]
    report = evaluate_detections(*one_image(box, [0], box, [0.9], [0]))
    assert (report.ap_small, report.ap_medium) == pytest.approx((1.0, 1.0))
    assert math.isnan(report.ap_large)


def test_the_table_is_what_the_best_confidence_gives():
    boxes = [[0, 0, 50, 50], [100, 0, 150, 50], [0, 100, 50, 150], [100, 100, 150, 150]]
    found = [*boxes[:3], [300, 300, 350, 350]]
    report = evaluate_detections(*one_image(boxes, [0] * 4, found, [0.9, 0.8, 0.6, 0.4], [0] * 4))
    row = report.classes[0]
    assert (row.objects, row.found, row.precision, row.recall) == (4, 4, 1.0, 0.75)
    assert row.f1 == pytest.approx(6 / 7)
    assert report.best_score == row.best_score == 0.401  # the least that leaves the false alarm out
    table = [dict(zip(HEADER, values, strict=True)) for values in report.rows()]
    assert [line["class"] for line in table] == ["all", "a", "b"]
    assert table[0] == pytest.approx(table[1] | {"class": "all"}, nan_ok=True)


def test_json_holds_the_report_with_null_for_what_is_not_defined(real_set):
    report = evaluate_detections(*real_set, timing=Timing(1.0, 20.0, 2.0))
    table = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert table["ap"] == report.ap
    assert table["classes"][0]["ap"] is None
    assert table["classes"][14] == pytest.approx(
        {
            "name": "class 14",
            "objects": 79,
            "found": 311,
            "ap": report.classes[14].ap,
            "ap50": report.classes[14].ap50,
            "precision": 0.45535714,
            "recall": 0.64556962,
            "f1": 0.53403141,
            "best_score": 0.411,
        }
    )
    assert table["timing"]["total_ms"] == 23.0


def test_nothing_to_find_leaves_every_number_undefined():
    empty = [GroundTruth(np.zeros((0, 4)), np.zeros(0))]
    report = evaluate_detections(empty, [Detections.empty(["a"], (10, 10))], ["a"])
    assert all(math.isnan(value) for name, value in report.summary().items() if name != "best_score")
    assert next(report.rows())[1] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, f, n: (t[:-1], f, n), "expected one result for each annotated image, got 12 for 11"),
        (lambda t, f, n: ([], [], n), "got 0 for 0"),
        (lambda t, f, n: (t, f, [*n, "more"]), "image 0: the detections have other class names"),
    ],
)
def test_sets_that_do_not_belong_together_are_refused(change, message, random_set):
    with pytest.raises(UsageError, match=message):
        evaluate_detections(*change(*random_set(0)))


@pytest.mark.parametrize("limits", [(), (0, 1), (10, 1), (5, 5)])
def test_limits_that_do_not_ascend_are_refused(limits, random_set):
    with pytest.raises(UsageError, match="max_detections: expected ascending"):
        evaluate_detections(*random_set(0), max_detections=limits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boxes": np.zeros((2, 3)), "class_ids": [0, 0]}, r"boxes: expected \(2, 4\), got \(2, 3\)"),
        ({"boxes": [[0, 0, 1, 1]], "class_ids": [0], "crowd": [True, False]}, r"crowd: expected \(1,\), got \(2,\)"),
        ({"boxes": [[0, 0, 1, 1], [5, 0, 4, 1]], "class_ids": [0, 0]}, "boxes: row 1 is not x1 <= x2"),
        ({"boxes": [[0, 0, 1, math.nan]], "class_ids": [0]}, "boxes: row 0 is not x1 <= x2"),
    ],
)
def test_annotations_that_are_no_boxes_are_refused(arguments, message):
    with pytest.raises(ShapeError, match=message):
        GroundTruth(**arguments)


def test_values_that_cannot_be_evaluated_are_refused():
    with pytest.raises(ShapeError, match=r"class_ids: expected 0\.\.1, got 2\.\.2"):
        evaluate_detections(*one_image([[0, 0, 1, 1]], [2], [[0, 0, 1, 1]], [0.5], [0]))
    with pytest.raises(ShapeError, match="detections: row 0 is not finite"):
        evaluate_detections(*one_image([[0, 0, 1, 1]], [0], [[0, 0, math.inf, 1]], [0.5], [0]))


def test_without_the_extra_the_error_names_it(random_set, monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)  # what Python itself does for a module that must not be found
    with pytest.raises(MissingExtra, match=r"hotcoco is not installed: pip install 'openlepton\[train\]'"):
        evaluate_detections(*random_set(0))


def test_importing_metrics_loads_nothing_heavy():
    heavy = "hotcoco", "matplotlib", "onnxruntime", "torch"
    code = f"import openlepton.metrics, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@st.composite
def annotated(draw):
    """Return images with up to six objects of two classes, none smaller than a pixel."""
    images = []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(
            st.lists(st.tuples(*[st.integers(0, 200)] * 2, *[st.integers(1, 120)] * 2, st.integers(0, 1)), max_size=6)
        )
        table = np.array(rows, float).reshape(-1, 5)
        images.append(GroundTruth(np.hstack([table[:, :2], table[:, :2] + table[:, 2:4]]), table[:, 4]))
    return images


@settings(max_examples=60, deadline=None)
@given(truth=annotated(), seed=st.integers(0, 2**16))
def test_perfect_detections_score_one(truth, seed):
    rng = np.random.default_rng(seed)
    found = [Detections(one.boxes, rng.random(len(one)), one.class_ids, ("a", "b"), (400, 400)) for one in truth]
    report = evaluate_detections(truth, found, ("a", "b"))
    if sum(len(one) for one in truth):
        assert (report.ap, report.ap50, report.ar[100]) == pytest.approx((1.0, 1.0, 1.0))
    else:
        assert math.isnan(report.ap)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_the_order_of_images_and_of_detections_changes_nothing(seed, random_set):
    truth, found, names = random_set(seed, crowd=0.1)
    rng = np.random.default_rng(seed)
    images = rng.permutation(len(truth))
    mixed = [found[index][rng.permutation(len(found[index]))] for index in images]
    a = evaluate_detections(truth, found, names)
    b = evaluate_detections([truth[index] for index in images], mixed, names)
    assert list(a.summary().values()) == pytest.approx(list(b.summary().values()), nan_ok=True)
    assert list(a.rows())[1:] == [pytest.approx(row, nan_ok=True) for row in list(b.rows())[1:]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_only_the_order_of_scores_matters_to_average_precision(seed, random_set):
    truth, found, names = random_set(seed, levels=50)
    squashed = [replace(one, scores=one.scores**2 / 2) for one in found]
    a, b = evaluate_detections(truth, found, names), evaluate_detections(truth, squashed, names)
    assert list(a.summary().values())[:12] == pytest.approx(list(b.summary().values())[:12], nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), score=st.floats(0, 1))
def test_a_false_alarm_never_raises_average_precision(seed, score, random_set):
    truth, found, names = random_set(seed, found=20)
    alarm = Detections(np.array([[900, 900, 950, 950]]), np.array([score]), np.array([0]), names, (400, 500))
    worse = [
        replace(
            found[0],
            **{f: np.concatenate([getattr(found[0], f), getattr(alarm, f)]) for f in ("boxes", "scores", "class_ids")},
        )
    ]
    a, b = evaluate_detections(truth, found, names), evaluate_detections(truth, [*worse, *found[1:]], names)
    assert math.isnan(a.ap) or b.ap <= a.ap + 1e-12
