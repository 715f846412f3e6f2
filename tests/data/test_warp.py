"""Pixels, boxes and polygons move together; the fused composition equals the canvas that it never builds."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openlepton.data.augment import AugmentConfig, random_map, tiles_around
from openlepton.data.warp import FILL, Labelled, Tile, boxes_around, clip_polygon, compose, draw_outline, warp
from openlepton.errors import ShapeError

NO_BOXES = np.zeros((0, 4), np.float32)
NO_IDS = np.zeros(0, np.int64)
AXIS_ALIGNED = AugmentConfig(translate=0.1, scale=0.5)
TURNED = AugmentConfig(degrees=30, translate=0.1, scale=0.3, shear=10)
SEEN_ASLANT = AugmentConfig(degrees=10, translate=0.1, scale=0.3, shear=5, perspective=0.001)


def bare(image):
    return Labelled(image, NO_BOXES, NO_IDS)


def scene(size, *boxes, with_outlines=False):
    """Black `size` x `size` pixels with white rectangles, labelled 0, 1, ..."""
    image = np.zeros((size, size, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 255
    outlines = tuple((np.float32([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]),) for x1, y1, x2, y2 in boxes)
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Labelled(image, array, np.arange(len(boxes)), outlines if with_outlines else None)


def edges(profile):
    """Where a profile of brightness 0..1 rises and falls, to a fraction of a pixel, given that it is one plateau."""
    above = np.flatnonzero(profile >= 0.5)
    first, last = above[0], above[-1]
    rise = (
        float(first) + 0.5
        if first == 0
        else first + 0.5 - (profile[first] - 0.5) / (profile[first] - profile[first - 1])
    )
    fall = (
        last + 0.5 + (profile[last] - 0.5) / (profile[last] - (profile[last + 1] if last + 1 < len(profile) else 0.0))
    )
    return (0.0 if first == 0 else rise), (float(len(profile)) if last + 1 == len(profile) else fall)


def white_box(image):
    """The box around what is brighter than half, from the pixels alone."""
    bright = image.max(axis=2) > 150
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    return np.float32([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def smooth_noise(rng, height, width):
    return cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 2.0)


def mosaic_on_a_canvas(items, x, y, size, matrix):
    """The naive mosaic: paste four images on a grey canvas of twice the size, then warp the canvas.

    Also returns which output pixels lie so near a seam that their interpolation mixes two tiles.
    """
    canvas = np.full((2 * size, 2 * size, 3), FILL, np.uint8)
    seams = np.zeros((2 * size, 2 * size), np.uint8)
    for place, item in enumerate(items):
        height, width = item.image.shape[:2]
        left, top = (x if place % 2 else x - width), (y if place >= 2 else y - height)
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, 2 * size), min(top + height, 2 * size)
        canvas[y1:y2, x1:x2] = item.image[y1 - top : y2 - top, x1 - left : x2 - left]
        cv2.rectangle(seams, (x1, y1), (x2, y2), (255,), 5)
    cv2.rectangle(seams, (0, 0), (2 * size - 1, 2 * size - 1), (255,), 3)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    indices = np.linalg.inv(half) @ matrix @ half
    warped = cv2.warpPerspective(canvas, indices, (size, size), flags=cv2.INTER_LINEAR, borderValue=(FILL, FILL, FILL))
    return warped, cv2.warpPerspective(seams, indices, (size, size), flags=cv2.INTER_LINEAR) > 0


@pytest.mark.parametrize("config", [AXIS_ALIGNED, TURNED, SEEN_ASLANT], ids=["upright", "turned", "aslant"])
@given(seed=st.integers(0, 2**32))
def test_a_fused_mosaic_equals_the_warped_canvas(config, seed):
    rng = np.random.default_rng(seed)
    size = 96
    items = [bare(smooth_noise(rng, *(rng.integers(40, size, 2, endpoint=True)))) for _ in range(4)]
    x, y = (int(value) for value in rng.integers(size // 2, size + size // 2, 2, endpoint=True))
    matrix = random_map(config, (2 * size, 2 * size), size, rng)
    fused = compose(tiles_around(x, y, items), (2 * size, 2 * size), matrix, (size, size)).image
    naive, near_seam = mosaic_on_a_canvas(items, x, y, size, matrix)
    difference = np.abs(fused.astype(int) - naive.astype(int)).max(axis=2)
    assert difference[~near_seam].max(initial=0) <= 3  # OpenCV interpolates in steps of 1/32 pixel
    assert near_seam.mean() < 0.5


@given(seed=st.integers(0, 2**32), flip_x=st.booleans(), flip_y=st.booleans())
def test_a_white_rectangle_and_its_box_stay_together_under_zoom_shift_and_flip(seed, flip_x, flip_y):
    rng = np.random.default_rng(seed)
    item = scene(80, (20, 24, 60, 52))
    flip = np.array([[-1, 0, 80], [0, 1, 0], [0, 0, 1.0]] if flip_x else np.eye(3)) @ (
        np.array([[1, 0, 0], [0, -1, 80], [0, 0, 1.0]]) if flip_y else np.eye(3)
    )
    moved = warp(item, flip @ random_map(AugmentConfig(translate=0.1, scale=0.3), (80, 80), 80, rng), (80, 80))
    (box,) = moved.boxes
    assert white_box(moved.image) == pytest.approx(box, abs=1.0)


@given(zoom=st.floats(1, 6), shift=st.floats(-3, 3))
def test_boxes_follow_an_enlargement_without_a_half_pixel_drift(zoom, shift):
    moved = warp(scene(40, (4, 6, 12, 11)), np.array([[zoom, 0, shift], [0, zoom, shift], [0, 0, 1]]), (80, 80))
    x1, y1, x2, y2 = moved.boxes[0]
    assert edges(moved.image[int((y1 + y2) / 2), :, 0] / 255.0) == pytest.approx((x1, x2), abs=0.1)
    assert edges(moved.image[:, int((x1 + x2) / 2), 0] / 255.0) == pytest.approx((y1, y2), abs=0.1)


@pytest.mark.parametrize("config", [TURNED, SEEN_ASLANT], ids=["turned", "aslant"])
@pytest.mark.parametrize("with_outlines", [False, True])
@given(seed=st.integers(0, 2**32))
def test_a_white_rectangle_and_its_box_stay_together_when_turned(config, with_outlines, seed):
    item = scene(96, (30, 36, 66, 60), with_outlines=with_outlines)
    moved = warp(item, random_map(config, (96, 96), 96, np.random.default_rng(seed)), (96, 96))
    (box,) = moved.boxes
    assert white_box(moved.image) == pytest.approx(box, abs=1.5)
    if with_outlines:
        assert np.array_equal(boxes_around(moved.outlines), moved.boxes)


@given(seed=st.integers(0, 2**32))
def test_a_polygon_covers_the_pixels_of_its_object(seed):
    rng = np.random.default_rng(seed)
    moved = warp(scene(96, (30, 36, 66, 60), with_outlines=True), random_map(TURNED, (96, 96), 96, rng), (96, 96))
    drawn = np.zeros((96, 96), np.uint8)
    draw_outline(drawn, moved.outlines[0], 1)
    white = (moved.image[..., 0] > 127).astype(np.uint8)
    around = np.ones((3, 3), np.uint8)
    assert (cv2.erode(white, around) <= drawn).all()  # OpenCV also fills the pixels that the outline touches
    assert (drawn <= cv2.dilate(white, around)).all()


def test_an_identity_changes_nothing():
    item = scene(40, (3, 5, 20, 30), (25, 1, 39, 9), with_outlines=True)
    same = warp(item, np.eye(3), (40, 40))
    assert np.array_equal(same.image, item.image)
    assert np.array_equal(same.boxes, item.boxes)
    assert same.class_ids.tolist() == [0, 1]
    for a, b in zip(same.outlines, item.outlines, strict=True):
        assert np.array_equal(a[0], b[0])


@pytest.mark.parametrize(
    "flip", [[[-1, 0, 41], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, -1, 30], [0, 0, 1]]], ids=["lr", "ud"]
)
def test_a_flip_is_exact_and_undoes_itself(flip):
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (30, 41, 3), np.uint8)
    item = Labelled(image, np.float32([[3, 4, 11, 20]]), np.array([5]), ((np.float32([[3, 4], [11, 4], [7, 20]]),),))
    flipped = warp(item, np.array(flip, float), (30, 41))
    mirrored = image[:, ::-1] if flip[0][0] == -1 else image[::-1]
    assert np.array_equal(flipped.image, mirrored)
    assert flipped.boxes.tolist() == [[30, 4, 38, 20] if flip[0][0] == -1 else [3, 10, 11, 26]]
    back = warp(flipped, np.array(flip, float), (30, 41))
    assert np.array_equal(back.image, image)
    assert np.array_equal(back.boxes, item.boxes)
    assert np.array_equal(back.outlines[0][0], item.outlines[0][0])


def test_what_no_image_covers_is_grey_114():
    tile = Tile(bare(np.full((10, 20, 3), 255, np.uint8)), 5, 8)
    made = compose([tile], (32, 32), np.eye(3), (32, 32)).image
    assert (made[8:18, 5:25] == 255).all()
    made[8:18, 5:25] = 114
    assert (made == 114).all()


@given(seed=st.integers(0, 2**32))
def test_tiles_that_touch_leave_no_grey_seam(seed):
    rng = np.random.default_rng(seed)
    white = bare(np.full((64, 64, 3), 255, np.uint8))
    x, y = (int(value) for value in rng.integers(32, 97, 2))
    inner = random_map(AugmentConfig(degrees=10, scale=0.2), (128, 128), 64, rng)
    for matrix in (inner, random_map(AXIS_ALIGNED, (128, 128), 64, rng)):
        made = compose(tiles_around(x, y, [white] * 4), (128, 128), matrix, (64, 64)).image[..., 0]
        centre = matrix @ [x, y, 1]
        around = made[tuple(slice(max(int(value) - 4, 0), max(int(value) + 4, 0)) for value in centre[1::-1])]
        assert (around == 255).all()


@pytest.mark.parametrize(
    ("box", "zoom", "shift", "kept"),
    [
        ((10, 10, 12, 30), 1.0, 0.0, False),  # 2 px wide is not more than 2 px
        ((10, 10, 13, 30), 1.0, 0.0, True),
        ((10, 10, 14, 30), 0.5, 0.0, False),  # 2 px after the zoom
        ((0, 10, 3, 319), 1.0, 0.0, False),  # 103 times as long as wide
        ((0, 10, 3, 309), 1.0, 0.0, True),
        ((10, 10, 60, 60), 1.0, -55.5, False),  # 9 % is left
        ((10, 10, 60, 60), 1.0, -54.5, True),  # 11 % is left
    ],
)
def test_a_box_stays_while_enough_of_it_is_seen(box, zoom, shift, kept):
    item = Labelled(np.zeros((320, 320, 3), np.uint8), np.float32([box]), np.array([0]))
    matrix = np.array([[zoom, 0, shift], [0, zoom, 0], [0, 0, 1]])
    assert len(warp(item, matrix, (320, 320)).boxes) == kept


def test_with_outlines_one_percent_is_enough():
    item = scene(320, (10, 10, 210, 210), with_outlines=True)
    for shift, kept in ((-206.0, True), (-208.5, False)):  # 2 % and 0.75 % are left
        matrix = np.array([[1, 0, shift], [0, 1, 0], [0, 0, 1]])
        left = warp(item, matrix, (320, 320))
        assert len(left.boxes) == len(left.outlines) == kept


def test_the_area_that_counts_is_the_one_after_the_zoom():
    item = scene(100, (40, 40, 60, 60))
    assert warp(item, np.diag([0.2, 0.2, 1.0]), (100, 100)).boxes.tolist() == [[8, 8, 12, 12]]


def test_a_polygon_is_cut_at_the_image():
    triangle = np.float32([[-10, 5], [10, 5], [10, 25]])
    cut = clip_polygon(triangle, (20, 30))
    assert boxes_around([(cut,)]).tolist() == [[0, 5, 10, 20]]
    assert sorted(cut.tolist()) == [[0, 5], [0, 15], [5, 20], [10, 5], [10, 20]]
    assert clip_polygon(triangle + 100, (20, 30)).shape == (0, 2)


@given(seed=st.integers(0, 2**32), corners=st.integers(3, 9))
def test_a_cut_convex_polygon_has_the_area_that_pixels_count(seed, corners):
    rng = np.random.default_rng(seed)
    polygon = cv2.convexHull(rng.uniform(-40, 100, (corners, 2)).astype(np.float32))[:, 0]
    cut = clip_polygon(polygon, (60, 60))
    y, x = np.mgrid[0:60:0.25, 0:60:0.25] + 0.125
    after = np.roll(polygon, -1, 0)
    sides = (after[:, 0, None, None] - polygon[:, 0, None, None]) * (y - polygon[:, 1, None, None]) - (
        after[:, 1, None, None] - polygon[:, 1, None, None]
    ) * (x - polygon[:, 0, None, None])
    counted = ((sides >= 0).all(0) | (sides <= 0).all(0)).sum() / 16
    area = 0.0 if len(cut) < 3 else cv2.contourArea(cut)
    assert area == pytest.approx(counted, abs=25)
    assert len(cut) == 0 or (cut.min() >= 0 and cut.max() <= 60)


def test_images_without_objects_do_not_cost_the_others_their_outlines():
    tiles = [
        Tile(scene(20, (2, 2, 12, 12), with_outlines=True), 0, 0),
        Tile(bare(np.zeros((20, 20, 3), np.uint8)), 20, 0),
    ]
    made = compose(tiles, (20, 40), np.eye(3), (20, 40))
    assert boxes_around(made.outlines).tolist() == made.boxes.tolist() == [[2, 2, 12, 12]]
    assert compose(tiles[1:], (20, 40), np.eye(3), (20, 40)).outlines is None


def test_an_object_of_two_parts_keeps_both_and_one_box():
    parts = tuple(np.float32([[x, 10], [x + 8, 10], [x + 8, 30], [x, 30]]) for x in (4, 24))
    item = Labelled(np.zeros((40, 40, 3), np.uint8), np.float32([[4, 10, 32, 30]]), np.array([0]), (parts,))
    moved = warp(item, np.array([[1, 0, -3], [0, 1, 0], [0, 0, 1.0]]), (40, 40))
    assert moved.boxes.tolist() == [[1, 10, 29, 30]]
    assert [part[:, 0].tolist() for part in moved.outlines[0]] == [[1, 9, 9, 1], [21, 29, 29, 21]]
    cut = warp(item, np.array([[1, 0, -14], [0, 1, 0], [0, 0, 1.0]]), (40, 40))  # the first part has left the picture
    assert cut.boxes.tolist() == [[10, 10, 18, 30]]
    assert len(cut.outlines[0]) == 1


def test_the_source_image_is_never_written_to():
    image = np.zeros((32, 32, 3), np.uint8)
    image.flags.writeable = False
    assert warp(bare(image), np.eye(3), (32, 32)).image.flags.writeable


def test_rows_that_do_not_match_are_refused():
    with pytest.raises(ShapeError, match=r"boxes: expected \(2, 4\), got \(1, 4\)"):
        Labelled(np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4), np.float32), np.zeros(2, np.int64))
    with pytest.raises(ShapeError, match="outlines: expected one for each of 1 boxes, got 0"):
        Labelled(np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4), np.float32), np.zeros(1, np.int64), ())
    with pytest.raises(ShapeError, match="at least one part"):
        Labelled(np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4), np.float32), np.zeros(1, np.int64), ((),))
