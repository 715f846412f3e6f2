"""Outlines of masks and what joins them."""

import cv2
import numpy as np
import pytest

from openlepton.ops.masks import rle_of_mask
from openlepton.ops.polygons import joined, outline, paint, polygon_area


def blobs(seed, size_hw=(90, 130)):
    """Return a mask of smooth regions with holes, some of them a pixel large."""
    rng = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(rng.random(size_hw), (0, 0), 4) > 0.5
    return smooth ^ (rng.random(size_hw) < 0.01)


def crossings(polygon, points):
    """Return by the even-odd rule whether each point is inside."""
    a, b = polygon, np.roll(polygon, -1, axis=0)
    x, y = points[:, :1], points[:, 1:]
    spans = (a[:, 1] > y) != (b[:, 1] > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        cuts = x < (b[:, 0] - a[:, 0]) * (y - a[:, 1]) / (b[:, 1] - a[:, 1]) + a[:, 0]
    return (spans & cuts).sum(1) % 2


@pytest.mark.parametrize("seed", range(5))
def test_outlines_enclose_exactly_the_pixels_of_the_mask_but_not_its_holes(seed):
    mask = blobs(seed)
    _, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    assert (tree[0, :, 3] >= 0).any(), "no hole to test with"
    parts = outline(mask)
    assert len(parts) == (tree[0, :, 3] < 0).sum()
    centres = np.stack(np.meshgrid(np.arange(130) + 0.5, np.arange(90) + 0.5), -1).reshape(-1, 2)
    inside = sum(crossings(part, centres) for part in parts)
    assert np.array_equal(inside.reshape(90, 130), mask)
    assert sum(map(polygon_area, parts)) == mask.sum()


def test_an_outline_can_lie_elsewhere():
    (square,) = outline(np.ones((2, 3), bool), corner_xy=(10, 20))
    assert sorted(map(tuple, square.tolist())) == [(10, 20), (10, 22), (13, 20), (13, 22)]


def test_nothing_has_no_outline():
    assert outline(np.zeros((4, 5), bool)) == ()


@pytest.mark.parametrize("seed", range(5))
def test_one_joined_outline_has_the_area_and_box_of_its_parts(seed):
    parts = outline(blobs(seed))
    assert len(parts) > 1
    whole = joined(parts)
    corners = np.concatenate(parts)
    assert polygon_area(whole) == pytest.approx(sum(map(polygon_area, parts)))
    assert whole.min(0).tolist() == corners.min(0).tolist()
    assert whole.max(0).tolist() == corners.max(0).tolist()


def test_the_area_of_a_polygon_does_not_depend_on_its_direction():
    triangle = np.array([[0, 0], [4, 0], [0, 3]], float)
    assert polygon_area(triangle) == polygon_area(triangle[::-1]) == 6


@pytest.mark.parametrize("seed", range(5))
def test_painting_the_outline_of_a_mask_gives_the_mask_in_its_own_image_alone(seed):
    mask = blobs(seed, (60, 80))
    painted = paint([rle_of_mask(mask).polygons()], np.array([1]), (3, 60, 80))
    assert np.array_equal(painted[1] == 1, mask)
    assert not painted[[0, 2]].any()


def test_painting_takes_the_pixels_whose_centres_are_inside():
    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5), -1).reshape(-1, 2)
    for _ in range(50):
        star = rng.uniform(-10, 50, (7, 2))
        painted = paint([[star]], np.array([0]), (1, 30, 40))[0]
        inside = crossings(star, centres).reshape(30, 40) == 1
        assert np.array_equal(painted == 1, inside) or inside.sum() == 0


def test_painting_keeps_the_area_of_small_objects():
    # OpenCV's fillPoly paints the edges too: two and a half times the area, at this size
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    rng = np.random.default_rng(0)
    outlines = [[rng.uniform(5, 50, 2) + circle] for _ in range(400)]
    painted = paint(outlines, np.arange(400), (400, 60, 60))
    assert (painted > 0).sum() / 400 == pytest.approx(polygon_area(circle), rel=0.03)


def test_smaller_objects_are_painted_on_top_and_the_tiniest_where_they_are():
    def square(x, y, side):
        return [np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], float)]

    painted = paint([square(2, 2, 3), square(0, 0, 9), square(7.1, 7.1, 0.2)], np.zeros(3, int), (1, 10, 10))[0]
    assert (painted == 1).sum() == 9
    assert (painted[2:5, 2:5] == 1).all()
    assert painted[7, 7] == 3
    assert (painted == 2).sum() == 81 - 9 - 1


def test_nothing_is_painted_where_there_is_nothing():
    assert not paint([], np.zeros(0, int), (2, 4, 4)).any()
    assert not paint([[], []], np.array([0, 1]), (2, 4, 4)).any()
