import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from openlepton.errors import ShapeError
from openlepton.ops.boxes import NMS_TOP, area, cxcywh_to_xyxy, iou, nms, xyxy_to_cxcywh

coordinates = st.floats(0, 640, width=32)


def boxes(rows):
    return arrays(np.float32, (rows, 4), elements=coordinates).map(
        lambda raw: np.concatenate([np.minimum(raw[:, :2], raw[:, 2:]), np.maximum(raw[:, :2], raw[:, 2:])], axis=1)
    )


def by_definition(rows, scores, class_ids, max_iou, top=None):
    """Greedy suppression as it is defined: one box at a time against all that were kept."""
    kept = []
    for row in np.argsort(-scores, kind="stable"):
        same = [other for other in kept if class_ids is None or class_ids[other] == class_ids[row]]
        if not same or not (_over(rows[[row]], rows[same]) > np.float64(max_iou)).any():
            kept.append(row)
    return np.array(kept[:top], np.int64)


def _over(a, b):
    """IoU in float32 in the textbook's order of operations."""
    side = np.maximum(np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2]), 0)
    shared = side[..., 0] * side[..., 1]
    union = area(a)[:, None] + area(b)[None] - shared
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(union > 0, shared / union, 0)


def test_iou_of_hand_computed_pairs():
    a = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20], [2, 2, 4, 4]], np.float32)
    expected = [[1, 50 / 150, 0, 4 / 100], [0, 0, 0, 0]]
    assert iou(a, b) == pytest.approx(np.array(expected), abs=1e-7)


@given(boxes(7), boxes(5))
def test_iou_is_symmetric_and_within_bounds(a, b):
    over = iou(a, b)
    assert np.array_equal(over, iou(b, a).T)
    assert ((over >= 0) & (over <= 1 + 1e-6)).all()


@given(boxes(9))
def test_box_forms_are_inverse(rows):
    assert cxcywh_to_xyxy(xyxy_to_cxcywh(rows)) == pytest.approx(rows, abs=1e-4)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(0, 60), st.sampled_from([0.0, 0.3, 0.45, 0.7, 1.0]), st.integers(1, 4))
def test_nms_equals_its_definition(data, count, max_iou, classes):
    rows = data.draw(boxes(count))
    scores = data.draw(arrays(np.float32, count, elements=st.floats(0, 1, width=32)))
    class_ids = data.draw(arrays(np.int64, count, elements=st.integers(0, classes - 1)))
    assert np.array_equal(
        nms(rows, scores, class_ids, max_iou=max_iou), by_definition(rows, scores, class_ids, max_iou)
    )
    assert np.array_equal(nms(rows, scores, max_iou=max_iou), by_definition(rows, scores, None, max_iou))


@pytest.mark.parametrize(("count", "centres", "classes"), [(1000, 780, 80), (3000, 300, 1), (2500, 2000, 3)])
def test_nms_equals_its_definition_across_chunks(count, centres, classes):
    rng = np.random.default_rng(count)
    which = np.concatenate([np.arange(centres), rng.integers(0, centres, count - centres)])
    centre, size = rng.uniform(0, 640, (centres, 2)), rng.uniform(8, 90, (centres, 2))
    around = np.concatenate([centre[which] - size[which] / 2, centre[which] + size[which] / 2], axis=1)
    rows = (around + rng.normal(0, 1.5, around.shape)).astype(np.float32)
    scores, class_ids = rng.random(count).astype(np.float32), rng.integers(0, classes, centres)[which]
    expected = by_definition(rows, scores, class_ids, 0.45)
    assert np.array_equal(nms(rows, scores, class_ids, max_iou=0.45), expected)
    assert np.array_equal(nms(rows, scores, class_ids, max_iou=0.45, max_detections=100), expected[:100])


def test_nms_keeps_a_box_at_exactly_the_threshold():
    rows = np.array([[0, 0, 10, 10], [0, 5, 10, 15]], np.float32)  # IoU exactly 1/3
    scores = np.array([0.9, 0.8], np.float32)
    assert nms(rows, scores, max_iou=float(np.float32(50) / np.float32(150))).tolist() == [0, 1]
    assert nms(rows, scores, max_iou=0.333).tolist() == [0]


def test_nms_gives_equal_scores_by_row():
    rows = np.array([[50, 0, 60, 10], [0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    assert nms(rows, np.full(3, 0.5, np.float32)).tolist() == [0, 1, 2]


def test_nms_looks_at_the_highest_scores_only():
    count = NMS_TOP + 10
    edge = np.arange(count, dtype=np.float32)[:, None] * 20
    rows = np.concatenate([edge, edge * 0, edge + 10, edge * 0 + 10], axis=1)
    scores = np.linspace(0.1, 0.9, count, dtype=np.float32)
    kept = nms(rows, scores)
    assert len(kept) == NMS_TOP
    assert kept[0] == count - 1
    assert kept.min() == 10


@pytest.mark.slow
def test_nms_of_thirty_thousand_equal_boxes_ends():
    rows = np.tile(np.array([[10, 10, 50, 50]], np.float32), (30_000, 1))
    assert nms(rows, np.linspace(1, 0, 30_000, dtype=np.float32)).tolist() == [0]


def test_nms_separates_classes_however_far_they_are_apart():
    rows = np.array([[0, 0, 10, 10.2]] * 2 + [[0, 0, 10, 10]] * 2, np.float32)
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    assert nms(rows, scores, np.array([0, 9999, 0, 9999]), max_iou=0.9).tolist() == [0, 1]


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"boxes: expected \(N, 4\), got \(3, 5\)"):
        iou(np.zeros((3, 5), np.float32), np.zeros((3, 4), np.float32))
    with pytest.raises(ShapeError, match=r"expected \(3,\)"):
        nms(np.zeros((3, 4), np.float32), np.zeros(2, np.float32))
