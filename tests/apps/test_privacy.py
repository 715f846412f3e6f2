import numpy as np
import pytest

from openlepton.apps.privacy import BLOCKS, HOLD_S, Veil, cover, regions
from openlepton.results import Detections

NAMES = ("person", "dog")


def found(*boxes, classes=None):
    return Detections(np.array(boxes, np.float32), [0.9] * len(boxes), classes or [0] * len(boxes), NAMES, (200, 300))


def test_what_is_covered_keeps_no_detail_and_the_rest_every_pixel():
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    covered = cover(image, np.array([[50.4, 60.2, 109.7, 179.1]]))
    outside = np.ones((200, 300), bool)
    outside[60:180, 50:110] = False
    assert (covered[outside] == image[outside]).all()
    region = covered[60:180, 50:110].astype(float)
    assert region.std() < 12 < image[60:180, 50:110].std()  # 74 before: means of 10 x 10 pixels are left
    assert image[60:180, 50:110].std() > 70


def test_what_is_left_is_a_function_of_a_few_block_means():
    """Two different people with the same means cannot be told apart afterwards: nothing can undo that."""
    rng = np.random.default_rng(1)
    one = rng.integers(0, 200, (60, 60, 3)).astype(np.uint8)
    side = 60 // BLOCKS
    blocks = one.reshape(BLOCKS, side, BLOCKS, side, 3)
    shuffled = blocks[:, rng.permutation(side)][:, :, :, rng.permutation(side)].reshape(60, 60, 3)
    box = np.array([[0, 0, 60, 60]])
    assert (one != shuffled).mean() > 0.8
    assert (cover(one, box) == cover(shuffled, box)).all()


@pytest.mark.parametrize(
    "box", [[-50, -50, 20, 20], [290, 190, 400, 400], [10, 10, 10.2, 10.2], [500, 500, 600, 600], [-9, -9, 999, 999]]
)
def test_regions_beyond_the_picture_are_no_trouble(box):
    image = np.full((200, 300, 3), 77, np.uint8)
    assert (cover(image, np.array([box], np.float32)) == 77).all()


def test_persons_are_covered_whole_with_a_margin_and_others_not_at_all():
    boxes = regions(found([100, 50, 140, 150], [10, 10, 50, 50], classes=[0, 1]), "persons", ("person",))
    assert boxes.tolist() == [[96, 40, 144, 160]]


def test_of_an_upright_person_the_head_is_covered_and_of_a_lying_one_everything():
    boxes = regions(found([100, 50, 140, 150], [100, 100, 200, 140]), "heads", ("person",))
    assert boxes[0].tolist() == pytest.approx([96, 47, 144, 83])
    assert boxes[1].tolist() == pytest.approx([90, 96, 210, 144])


def test_nothing_is_covered_where_nobody_asks():
    assert regions(found([100, 50, 140, 150]), "none", ("person",)).shape == (0, 4)


def test_who_is_lost_for_a_moment_stays_covered_where_they_were():
    veil = Veil()
    box, none = np.array([[10, 10, 50, 110]], np.float32), np.zeros((0, 4), np.float32)
    assert veil.update(box, 0.0).tolist() == box.tolist()
    assert veil.update(none, 0.2).tolist() == box.tolist()
    assert veil.update(none, HOLD_S).tolist() == box.tolist()
    assert len(veil.update(none, HOLD_S + 0.1)) == 0


def test_who_walks_on_leaves_no_trace_of_covered_places():
    veil = Veil()
    for frame in range(20):
        covered = veil.update(np.array([[10 + 5 * frame, 10, 50 + 5 * frame, 110]], np.float32), frame / 10)
        assert len(covered) == 1
    assert len(veil.update(np.array([[300, 10, 340, 110]], np.float32), 2.0)) == 2  # another one, far away
