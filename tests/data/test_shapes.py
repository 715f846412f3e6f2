"""Masks as runs, and outlines: equal to COCO's own code, and back again."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from openlepton.data.shapes import Rle, joined, outline, polygon_area, rle_of_mask, rle_of_text, rles_of_ids
from openlepton.errors import DataInvalid

coco = pytest.importorskip("pycocotools.mask")

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
masks = sizes.flatmap(lambda size: arrays(np.bool_, size))


def blobs(seed, size_hw=(90, 130)):
    """Return a mask of smooth regions, with holes."""
    noise = np.random.default_rng(seed).random(size_hw)
    return cv2.GaussianBlur(noise, (0, 0), 4) > 0.5


@given(masks)
def test_runs_are_those_of_pycocotools_and_give_the_mask_back(mask):
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = rle_of_mask(mask)
    assert ours.text().encode() == theirs["counts"]
    read = rle_of_text(theirs["counts"], mask.shape)
    assert read.counts.tolist() == ours.counts.tolist()
    assert (read.mask() == mask).all()
    assert read.area == coco.area(theirs) == mask.sum()


@given(masks)
def test_the_box_around_runs_is_that_of_pycocotools(mask):
    x, y, width, height = coco.toBbox(coco.encode(np.asfortranarray(mask.astype(np.uint8)))).tolist()
    assert rle_of_mask(mask).box() == (x, y, x + width, y + height)


@given(sizes.flatmap(lambda size: arrays(np.uint16, size, elements=st.integers(0, 5))))
def test_every_instance_id_becomes_its_own_mask(ids):
    found = rles_of_ids(ids)
    assert sorted(found) == sorted(set(ids[ids > 0].tolist()))
    for value, runs in found.items():
        assert (runs.mask() == (ids == value)).all()


def test_a_large_mask_survives_the_text():
    mask = np.zeros((5000, 7000), np.bool_)
    mask[2000:4000, 1000:6000] = True
    runs = rle_of_text(rle_of_mask(mask).text(), mask.shape)
    assert runs.area == 10_000_000
    assert runs.box() == (1000, 2000, 6000, 4000)


@pytest.mark.parametrize(
    ("text", "size_hw", "message"),
    [
        ("", (2, 2), "not COCO's"),
        ("4", (0, 2), "expected 1 to"),
        ("4", (1 << 20, 1 << 20), "expected 1 to"),
        ("3", (2, 2), "add up to 3"),
        ("oooooooooooo", (2, 2), "not COCO's"),
        ("oooooooooo0", (2, 2), "longer than any image"),
        ("~~", (2, 2), "not COCO's"),
        ("é", (2, 2), "ASCII"),
        ("O5", (2, 2), "negative or longer"),
    ],
)
def test_text_that_is_no_mask_is_refused(text, size_hw, message):
    with pytest.raises(DataInvalid, match=message):
        rle_of_text(text, size_hw)


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12), sizes)
def test_any_text_is_a_mask_or_refused(text, size_hw):
    try:
        mask = rle_of_text(text, size_hw).mask()
    except DataInvalid:
        return
    assert mask.shape == size_hw


def test_runs_that_would_overflow_their_sum_are_refused():
    with pytest.raises(DataInvalid, match="longer than the image"):
        Rle((2, 2), np.array([1 << 62, 1 << 62, 1 << 62, (1 << 62) + 4]))  # 4, in 64 bits


@pytest.mark.parametrize("seed", range(5))
def test_outlines_enclose_exactly_the_pixels_of_the_mask_without_its_holes(seed):
    mask = blobs(seed)
    centres = np.stack(np.meshgrid(np.arange(130) + 0.5, np.arange(90) + 0.5), -1).reshape(-1, 2)
    inside = sum(crossings(part, centres) for part in outline(mask)) > 0
    filled = mask.astype(np.uint8)
    contours, _ = cv2.findContours(filled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    assert (inside.reshape(90, 130) == filled).all()


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


def crossings(polygon, points):
    """Return by the even-odd rule whether each point is inside."""
    a, b = polygon, np.roll(polygon, -1, axis=0)
    x, y = points[:, :1], points[:, 1:]
    spans = (a[:, 1] > y) != (b[:, 1] > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        cuts = x < (b[:, 0] - a[:, 0]) * (y - a[:, 1]) / (b[:, 1] - a[:, 1]) + a[:, 0]
    return (spans & cuts).sum(1) % 2
