"""Anchors against hand-computed figures, and against clusters that are plain to see."""

import numpy as np
import pytest

from openlepton.arrays import Floats
from openlepton.errors import ShapeError
from openlepton.nets.anchors import closeness, recall, suit_anchors
from openlepton.nets.yolov5 import ANCHORS_P5, Anchors


def array(*sizes: tuple[float, float]) -> Floats:
    return np.array(sizes, np.float32)


def flat(anchors: Anchors) -> Floats:
    return np.array(anchors, np.float32).reshape(-1, 2)


@pytest.fixture(scope="module")
def flat_boxes() -> Floats:
    """Wide, flat boxes (signs above a road, say) of nine kinds that the usual anchors are far from."""
    numbers = np.random.default_rng(7)
    kinds = array(*((w, w / 12) for w in (40, 60, 90, 130, 180, 240, 320, 420, 560)))
    return (kinds[numbers.integers(0, 9, 900)] * numbers.normal(1, 0.03, (900, 2))).astype(np.float32)


def test_closeness_is_the_worse_side_of_the_better_anchor() -> None:
    anchors = array((10, 20), (40, 40))
    assert closeness(array((10, 20)), anchors) == pytest.approx([1])
    assert closeness(array((20, 20)), anchors) == pytest.approx([0.5])
    assert closeness(array((5, 80)), anchors) == pytest.approx([0.25])  # 4 times as high as the first
    assert closeness(array((30, 80)), anchors) == pytest.approx([0.5])  # half as high as needed for the second


def test_recall_counts_boxes_within_the_ratio() -> None:
    sizes = array((10, 10), (39, 39), (41, 10), (2.4, 10))  # the third and the fourth are beyond four times
    assert recall(sizes, array((10, 10))) == 0.5
    assert recall(sizes, array((10, 10)), max_ratio=5) == 1.0


def test_anchors_that_suit_are_kept() -> None:
    assert suit_anchors(flat(ANCHORS_P5), ANCHORS_P5) is ANCHORS_P5


def test_anchors_of_the_usual_kind_suit_boxes_of_the_usual_kind() -> None:
    sizes = np.random.default_rng(0).uniform(10, 300, (500, 2)).astype(np.float32)
    sizes[:, 1] = sizes[:, 0] * np.random.default_rng(1).uniform(0.5, 2, 500)
    assert suit_anchors(sizes, ANCHORS_P5) is ANCHORS_P5


def test_flat_boxes_get_flat_anchors(flat_boxes: Floats) -> None:
    assert recall(flat_boxes, flat(ANCHORS_P5)) < 0.7
    found = suit_anchors(flat_boxes, ANCHORS_P5)
    assert recall(flat_boxes, flat(found)) == 1.0
    assert closeness(flat_boxes, flat(found)).mean() > 0.9
    assert [len(level) for level in found] == [3, 3, 3]
    areas = flat(found).prod(1)
    assert (np.diff(areas) >= 0).all()


@pytest.fixture(scope="module")
def any_flat_boxes() -> Floats:
    """Flat boxes of no kinds at all."""
    numbers = np.random.default_rng(8)
    widths = numbers.uniform(40, 600, 400)
    return np.stack((widths, widths * numbers.uniform(0.03, 0.2, 400)), 1).astype(np.float32)


def test_mutation_improves_on_clusters(any_flat_boxes: Floats) -> None:
    some, more = (suit_anchors(any_flat_boxes, ANCHORS_P5, generations=count) for count in (0, 300))
    assert closeness(any_flat_boxes, flat(more)).mean() > closeness(any_flat_boxes, flat(some)).mean() + 0.002


def test_the_same_seed_gives_the_same_anchors(any_flat_boxes: Floats) -> None:
    first, again, other = (suit_anchors(any_flat_boxes, ANCHORS_P5, generations=50, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_too_few_kinds_of_boxes_change_nothing() -> None:
    sizes = np.repeat(array((400, 10), (500, 10)), 50, axis=0)
    assert suit_anchors(sizes, ANCHORS_P5) is ANCHORS_P5


def test_specks_do_not_shape_anchors(flat_boxes: Floats) -> None:
    specks = np.full((100, 2), 1, np.float32)
    found = suit_anchors(np.concatenate((flat_boxes, specks)), ANCHORS_P5, generations=0)
    assert found == suit_anchors(flat_boxes, ANCHORS_P5, generations=0)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_million_boxes_take_seconds(any_flat_boxes: Floats) -> None:
    found = suit_anchors(np.repeat(any_flat_boxes, 2500, axis=0), ANCHORS_P5, generations=100)
    assert recall(any_flat_boxes, flat(found)) > 0.98


@pytest.mark.parametrize("sizes", [np.zeros((3, 2)), np.ones((3, 4)), np.ones(3), np.full((2, 2), np.nan)])
def test_sizes_that_cannot_be_are_refused(sizes: Floats) -> None:
    with pytest.raises(ShapeError, match=r"sizes: expected \(N, 2\) above zero"):
        suit_anchors(sizes, ANCHORS_P5)
