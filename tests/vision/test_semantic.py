"""What surrounds the graph of a semantic segmenter: classes come back to the pixels that they were seen in."""

import numpy as np
import pytest

from openlepton.card import ImageInput
from openlepton.errors import UsageError
from openlepton.vision.semantic import Semantic

NAMES = ("nothing", "left", "right")


def task(size=64, multiple=32, names=NAMES):
    return Semantic(ImageInput(size=size, resize="letterbox", multiple=multiple), names, background=0)


def probabilities(class_map, classes, sharp=0.9):
    """`(C, h, w)`: every cell is nearly sure of its class."""
    scores = np.full((classes, *class_map.shape), (1 - sharp) / (classes - 1), np.float32)
    np.put_along_axis(scores, class_map[None].astype(np.int64), sharp, 0)
    return scores


def see(task, image, step=2):
    """What a graph with a cell for each `step` x `step` pixels would say of an image whose red and green are its classes."""
    tensors, frame = task.prepare(image)
    red, green, _ = tensors["images"][:, ::step, ::step]
    seen = np.where(red > 0.6, 1, np.where(green > 0.6, 2, 0))
    return {"scores": probabilities(seen, len(task.names))}, frame


@pytest.mark.parametrize("hw", [(64, 64), (48, 64), (200, 333), (31, 500), (300, 17), (7, 5)])
def test_every_pixel_gets_the_class_that_was_seen_where_it_is(hw):
    height, width = hw
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 255
    image[height // 2 :, width // 2 :, 1] = 255
    wanted = np.where(image[..., 0] > 0, 1, np.where(image[..., 1] > 0, 2, 0))
    found = task().finish(*see(task(), image))
    assert found.image_hw == hw
    cell_px = 2 * max(hw) / 64  # how much of the original one cell sees
    edge = np.abs(np.arange(width) + 0.5 - width // 2)[None] <= 1.5 * cell_px
    edge = edge | (np.abs(np.arange(height) + 0.5 - height // 2)[:, None] <= 1.5 * cell_px)
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5  # cells at the border may see the padding
    edge = edge | (np.minimum(rows, height - rows) <= cell_px)[:, None] & (height < max(hw))
    edge = edge | (np.minimum(columns, width - columns) <= cell_px)[None] & (width < max(hw))
    assert (found.class_map == wanted)[~edge].all()
    assert (~edge).any() or min(hw) < 2 * cell_px


def test_a_half_plane_ends_where_it_ends_to_a_fraction_of_a_cell():
    """Cells of four pixels, three quarters of the image bright: the border comes back to the pixel."""
    one = task(size=64)
    for border in (20, 24, 30, 36):
        tensors, frame = one.prepare(np.zeros((64, 64, 3), np.uint8))
        share = np.clip((border - np.arange(0, 64, 4)) / 4, 0, 1).astype(np.float32)  # of each cell, left of the border
        left = np.broadcast_to(share, (16, 16))
        scores = np.stack([1 - left, left, np.zeros_like(left)]).astype(np.float32)
        found = one.finish({"scores": scores}, frame)
        columns = np.flatnonzero((found.class_map == 1).all(0))
        assert abs((columns.max() + 1) - border) <= 1, border
        assert tensors["images"].shape == (3, 64, 64)


def test_padding_is_neither_counted_nor_smeared_into_the_image():
    one = task(size=64)
    tensors, frame = one.prepare(np.full((20, 64, 3), 255, np.uint8))
    _, height, width = tensors["images"].shape
    assert frame.pad_xy[1] == 6
    seen = np.zeros((height // 2, width // 2), int)
    seen[3:13] = 1  # the image alone; the padding is sure to be nothing
    found = one.finish({"scores": probabilities(seen, 3)}, frame)
    assert (found.class_map == 1).all()


def test_a_class_that_is_never_the_most_probable_is_nowhere_and_equal_classes_are_the_first():
    one = task(names=("a", "b", "c", "d"))
    _, frame = one.prepare(np.zeros((64, 64, 3), np.uint8))
    scores = np.full((4, 16, 16), 0.25, np.float32)
    assert one.finish({"scores": scores}, frame).areas.tolist() == [4096, 0, 0, 0]
    scores[3], scores[0] = 0.26, 0.24
    assert one.finish({"scores": scores}, frame).areas.tolist() == [0, 0, 0, 4096]


def test_many_classes_equal_the_plain_computation():
    """Classes that can be nowhere are passed over; the result is that of all of them together."""
    cv2 = pytest.importorskip("cv2")
    numbers = np.random.default_rng(0)
    names = tuple(map(str, range(40)))
    one = task(names=names, size=64)
    _, frame = one.prepare(np.zeros((90, 120, 3), np.uint8))
    logits = cv2.GaussianBlur(numbers.normal(size=(24, 32, 40)).astype(np.float32), (0, 0), 3) * 60
    scores = np.exp(logits - logits.max(2, keepdims=True))
    scores = np.ascontiguousarray((scores / scores.sum(2, keepdims=True)).transpose(2, 0, 1))
    planes = [
        cv2.resize(cv2.resize(plane, (64, 64))[8:56], (120, 90)) for plane in np.pad(scores, ((0, 0), (4, 4), (0, 0)))
    ]
    scores = np.pad(scores, ((0, 0), (4, 4), (0, 0)))
    found = one.finish({"scores": scores}, frame)
    np.testing.assert_array_equal(found.class_map, np.argmax(planes, 0))
    assert len(found.present()) > 5


def test_a_size_that_the_network_cannot_take_is_refused():
    with pytest.raises(UsageError, match="size: expected a multiple of 32, got 50"):
        task(size=50)
