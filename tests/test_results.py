import json

import numpy as np
import pytest

from openlepton.errors import ShapeError, UsageError
from openlepton.ops.masks import rle_of_mask
from openlepton.results import Classification, Detections, Segmentation, class_ids_of

NAMES = ("person", "car", "dog")


@pytest.fixture
def found() -> Detections:
    return Detections(
        boxes=np.array([[0, 0, 10, 20], [5, 5, 15, 25], [1, 2, 3, 4], [7, 7, 9, 9]], np.float32),
        scores=np.array([0.9, 0.8, 0.7, 0.3], np.float32),
        class_ids=np.array([1, 0, 1, 2]),
        names=NAMES,
        image_hw=(40, 60),
        track_ids=np.array([11, 12, 13, 14]),
    )


def test_detections_are_filtered_like_an_array(found):
    assert found[found.scores > 0.75].labels == ["car", "person"]
    assert found[1:3].scores.tolist() == pytest.approx([0.8, 0.7])
    assert found[[3, 0]].track_ids.tolist() == [14, 11]
    assert found[-1].labels == ["dog"]
    assert len(found[[]]) == 0
    assert len(found[np.zeros(4, bool)]) == 0
    assert len(found[:0]) == 0


def test_named_takes_one_or_more_names(found):
    assert found.named("car").track_ids.tolist() == [11, 13]
    assert found.named("dog", "person").track_ids.tolist() == [12, 14]
    with pytest.raises(UsageError, match="did you mean person"):
        found.named("persn")


def test_iteration_gives_each_detection(found):
    first, *_, last = found
    assert first.label == "car"
    assert first.box.tolist() == [0, 0, 10, 20]
    assert first.track_id == 11
    assert last.score == pytest.approx(0.3)
    assert last.mask is None


def test_to_dict_is_what_the_command_line_prints(found):
    assert found[:1].to_dict() == {
        "image": {"width": 60, "height": 40},
        "detections": [
            {
                "label": "car",
                "label_id": 1,
                "score": 0.9,
                "box": {"x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 20.0},
                "track_id": 11,
            }
        ],
    }


def test_to_pandas_has_the_columns_of_the_field(found):
    pytest.importorskip("pandas")
    frame = found.to_pandas()
    assert list(frame.columns) == ["xmin", "ymin", "xmax", "ymax", "confidence", "class", "name", "track_id"]
    assert frame["name"].tolist() == ["car", "person", "car", "dog"]
    assert frame["xmax"].tolist() == [10, 15, 3, 9]


def test_results_are_frozen_and_leave_the_callers_arrays_alone(found):
    with pytest.raises(ValueError, match="read-only"):
        found.boxes[0, 0] = 5
    with pytest.raises(AttributeError):
        found.scores = np.zeros(4)
    mine = np.zeros((1, 4), np.float32)
    Detections(mine, np.ones(1, np.float32), np.zeros(1, np.int64), NAMES, (4, 4))
    mine[0, 0] = 7
    assert mine[0, 0] == 7


def test_masks_follow_their_rows():
    empty, dot = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    dot[2, 3] = True
    masks = [rle_of_mask(empty), rle_of_mask(dot)]
    found = Detections(np.zeros((2, 4)), np.array([0.9, 0.8]), np.array([0, 1]), NAMES, (4, 5), masks=masks)
    assert [one.mask.area for one in found] == [0, 1]
    assert [one.mask.area for one in found[1:]] == [1]
    assert [one.mask.area for one in found[[1, 0, 1]]] == [1, 0, 1]
    assert len(found[[]].masks) == 0
    assert np.array_equal(found.mask(1), dot)
    assert found[1].to_dict()["detections"][0]["mask"] == {"size": [4, 5], "counts": rle_of_mask(dot).text()}
    with pytest.raises(ShapeError, match=r"masks: expected each of \(5, 5\) pixels, got one of \(4, 5\)"):
        Detections(np.zeros((2, 4)), np.array([0.9, 0.8]), np.array([0, 1]), NAMES, (5, 5), masks=masks)
    with pytest.raises(ShapeError, match="masks: expected 2, got 1"):
        Detections(np.zeros((2, 4)), np.array([0.9, 0.8]), np.array([0, 1]), NAMES, (4, 5), masks=masks[:1])


def test_detections_of_boxes_alone_have_no_mask_to_give(found):
    with pytest.raises(UsageError, match="boxes alone"):
        found.mask(0)


def test_arrays_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match=r"boxes: expected \(2, 4\), got \(1, 4\)"):
        Detections(np.zeros((1, 4)), np.zeros(2), np.zeros(2, int), NAMES, (4, 4))
    with pytest.raises(ShapeError, match=r"class_ids: expected 0\.\.2, got up to 3"):
        Detections(np.zeros((1, 4)), np.zeros(1), np.array([3]), NAMES, (4, 4))


def test_empty_has_no_rows_and_all_the_shapes():
    empty = Detections.empty(NAMES, (4, 6))
    assert empty.boxes.shape == (0, 4)
    assert empty.to_dict() == {"image": {"width": 6, "height": 4}, "detections": []}
    assert repr(empty) == "<Detections: none in 6x4>"
    assert list(empty) == []


def test_a_classification_knows_its_best():
    result = Classification(np.array([0.1, 0.7, 0.2], np.float32), NAMES, (4, 6), top=2)
    assert (result.label, result.class_id) == ("car", 1)
    assert result.score == pytest.approx(0.7)
    assert [label for label, _ in result.best(3)] == ["car", "dog", "person"]
    assert result.to_dict() == {
        "image": {"width": 6, "height": 4},
        "classes": [{"label": "car", "label_id": 1, "score": 0.7}, {"label": "dog", "label_id": 2, "score": 0.2}],
    }
    with pytest.raises(ShapeError, match=r"scores: expected \(3,\)"):
        Classification(np.zeros(2), NAMES)


def test_classes_are_found_by_name_id_or_alias():
    assert class_ids_of(["dog", "person"], NAMES).tolist() == [0, 2]
    assert class_ids_of(["1", 2], NAMES).tolist() == [1, 2]
    assert class_ids_of(["car"], ("人", "车", "狗"), NAMES).tolist() == [1]
    with pytest.raises(UsageError, match="no class '3'"):
        class_ids_of(["3"], NAMES)


def blocks():
    class_map = np.zeros((4, 6), np.uint8)
    class_map[1:3, 2:5], class_map[3, 0] = 2, 1
    return Segmentation(class_map, ("nothing", "dot", "block", "absent"), background=0)


def test_a_segmentation_counts_its_pixels_and_gives_masks_that_pycocotools_reads():
    result = blocks()
    assert result.image_hw == (4, 6)
    assert result.areas.tolist() == [17, 1, 6, 0]
    assert result.present() == [0, 2, 1]
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["image"] == {"width": 6, "height": 4}
    assert [(row["label"], row["area"]) for row in plain["classes"]] == [("nothing", 17), ("block", 6), ("dot", 1)]
    assert plain["classes"][1]["share"] == 0.25
    assert "mask" not in plain["classes"][0]
    masks = pytest.importorskip("pycocotools.mask")
    for row in plain["classes"][1:]:
        np.testing.assert_array_equal(masks.decode(row["mask"]), result.mask(row["label"]))
    assert repr(result) == "<Segmentation: nothing 70.8%, block 25.0%, dot 4.2% of 6x4>"


def test_a_segmentation_is_of_one_class_at_least_and_keeps_its_pixels():
    whole = Segmentation(np.ones((2, 3), np.uint8), ("a", "b"))
    assert whole.to_dict()["classes"][0]["mask"] == {"size": [2, 3], "counts": "06"}
    with pytest.raises(ValueError, match="read-only"):
        whole.class_map[0, 0] = 0
    with pytest.raises(ShapeError, match="ids 0..1, got up to 2"):
        Segmentation(np.full((2, 2), 2), ("a", "b"))
    with pytest.raises(ShapeError, match="each at least 1"):
        Segmentation(np.zeros((0, 4)), ("a", "b"))
    with pytest.raises(UsageError, match="no class 'c'"):
        whole.mask("c")


def test_a_classification_may_have_any_number_of_classes():
    scores = np.array([0.6, 0.2, 0.9], np.float32)
    assert Classification(scores, ("a", "b", "c"), min_score=0.5).labels == ["c", "a"]
    assert Classification(scores / 2, ("a", "b", "c"), min_score=0.5).labels == []
    assert Classification(scores, ("a", "b", "c")).labels == ["c"]
