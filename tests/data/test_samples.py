"""Labelled objects and splits as values."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from openlepton.data.samples import Annotation, Dataset, Objects, Problem, Split, no_objects
from openlepton.data.yolo import YoloSource
from openlepton.errors import DataNotFound, ImageNotFound, ShapeError


@pytest.fixture
def three():
    boxes = np.array([[0, 0, 10, 20], [5, 5, 6, 6], [1, 2, 3, 4]])
    shapes = ((np.array([[0, 0], [10, 0], [10, 20.0]]),), (), ())
    return Objects(boxes, np.array([2, 0, 1]), shapes, crowd=np.array([False, True, False]), ids=np.array([7, 8, 9]))


def test_objects_are_picked_by_slice_mask_or_integers(three):
    assert three[1:].ids.tolist() == [8, 9]
    assert three[[2, 0]].class_ids.tolist() == [1, 2]
    picked = three[~three.crowd]
    assert picked.boxes.tolist() == [[0, 0, 10, 20], [1, 2, 3, 4]]
    assert [len(shape) for shape in picked.shapes] == [1, 0]
    assert len(three[[]]) == 0


def test_areas_are_those_of_the_boxes_unless_said(three):
    assert three.areas.tolist() == [200, 1, 4]
    assert Objects(three.boxes, three.class_ids, areas=np.array([1, 2, 3.5])).areas.tolist() == [1, 2, 3.5]


def test_scaling_moves_boxes_outlines_and_areas(three):
    big = three.scaled(2, 10)
    assert big.boxes[0].tolist() == [0, 0, 20, 200]
    assert big.shapes[0][0].tolist() == [[0, 0], [20, 0], [20, 200]]
    assert big.areas.tolist() == [4000, 20, 80]
    assert big.ids.tolist() == [7, 8, 9]


def test_crowds_and_difficult_objects_are_ignored_in_evaluation():
    rows = Objects(np.zeros((3, 4)), np.zeros(3, int), crowd=np.array([1, 0, 0]), difficult=np.array([0, 1, 0]))
    assert rows.ignored.tolist() == [True, True, False]


def test_columns_of_different_length_are_refused():
    with pytest.raises(ShapeError, match="crowd: expected 2 rows, got 1"):
        Objects(np.zeros((2, 4)), np.zeros(2, int), crowd=np.array([True]))


def test_fractions_become_pixels_of_the_size_the_image_has(tmp_path):
    rows = Objects(np.array([[0.25, 0.5, 0.75, 1.0]]), np.array([0]))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 40, 3), np.uint8))
    found = Annotation(tmp_path / "a.png", "a", rows, relative=True)
    assert found.located().size_hw == (20, 40)
    assert found.located().objects.boxes.tolist() == [[10, 10, 30, 20]]
    assert found.located((100, 100)).objects.boxes.tolist() == [[25, 50, 75, 100]]
    with pytest.raises(ImageNotFound):
        Annotation(tmp_path / "b.png", "b", rows, relative=True).located()


def test_a_split_is_a_sequence_that_pickles_small():
    names = tuple(f"images/{number:012}.jpg" for number in range(100_000))
    split = Split("train", ("a", "b"), YoloSource(Path("/data"), names, 2, "train"))
    stored = pickle.dumps(split)
    assert len(stored) < 35 * len(names)
    again = pickle.loads(stored)
    assert len(again) == 100_000
    assert again.image(-1) == Path("/data/images/000000099999.jpg")
    with pytest.raises(IndexError, match="there is no 100000"):
        again.image(100_000)


def test_some_of_a_split_are_a_split():
    names = ("images/a.jpg", "images/b.jpg", "images/c.jpg")
    some = Split("train", ("x",), YoloSource(Path("/data"), names, 1, "train")).take([2, 0])
    assert [some.image(index).name for index in range(len(some))] == ["c.jpg", "a.jpg"]
    assert some.annotation(1).image.name == "a.jpg"


def test_a_split_that_is_not_there_is_named_beside_those_that_are():
    dataset = Dataset(
        "d", Path("/d"), "yolo", ("x",), {"all": Split("all", ("x",), YoloSource(Path("/d"), (), 1, "all"))}
    )
    assert dataset["all"].name == "all"
    with pytest.raises(DataNotFound, match="no split 'val': there is all"):
        _ = dataset["val"]


def test_a_problem_says_file_line_and_kind():
    problem = Problem("row-malformed", "not numbers: left out", Path("labels/a.txt"), 3)
    assert str(problem) == f"{Path('labels/a.txt')}:3: not numbers: left out [row-malformed]"
    assert no_objects().boxes.shape == (0, 4)
