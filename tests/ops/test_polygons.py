"""Outlines of masks and what joins them."""

import cv2
import numpy as np
import pytest

from openlepton.ops.polygons import joined, outline, polygon_area


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
