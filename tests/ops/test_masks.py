"""Masks as runs: equal to COCO's own code, and back again."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from openlepton.errors import DataInvalid, ShapeError
from openlepton.ops.masks import (
    Rle,
    iou,
    rle_of_mask,
    rle_of_polygon,
    rle_of_polygons,
    rle_of_text,
    rles_of_ids,
    union,
)

coco = pytest.importorskip("pycocotools.mask")

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
masks = sizes.flatmap(lambda size: arrays(np.bool_, size))
corners = st.one_of(
    st.integers(-10, 50).map(float),
    st.integers(-100, 500).map(lambda tenth: tenth / 10),
    st.floats(-30, 70, width=32),
)
polygons = st.lists(st.tuples(corners, corners), min_size=3, max_size=9).map(np.array)


def blobs(seed, size_hw=(90, 130)):
    """Return a mask of smooth regions, with holes."""
    noise = np.random.default_rng(seed).random(size_hw)
    return cv2.GaussianBlur(noise, (0, 0), 4) > 0.5


def theirs(mask):
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))


@given(masks)
def test_runs_are_those_of_pycocotools_and_give_the_mask_back(mask):
    encoded = theirs(mask)
    ours = rle_of_mask(mask)
    assert ours.text().encode() == encoded["counts"]
    read = rle_of_text(encoded["counts"], mask.shape)
    assert read.counts.tolist() == ours.counts.tolist()
    assert (read.mask() == mask).all()
    assert read.area == coco.area(encoded) == mask.sum()
    assert ours.to_dict() == {"size": list(mask.shape), "counts": encoded["counts"].decode()}


@given(masks)
def test_the_box_around_runs_is_that_of_pycocotools(mask):
    x, y, width, height = coco.toBbox(theirs(mask)).tolist()
    assert rle_of_mask(mask).box() == (x, y, x + width, y + height)


@given(masks)
def test_the_part_in_the_box_is_the_mask_there_and_nothing_is_outside(mask):
    part, (x, y) = rle_of_mask(mask).part()
    height, width = part.shape
    assert np.array_equal(part, mask[y : y + height, x : x + width])
    assert part.sum() == mask.sum()


@given(masks)
def test_polygons_of_a_mask_give_the_mask_back(mask):
    assert np.array_equal(rle_of_polygons(rle_of_mask(mask).polygons(), mask.shape).mask(), mask)


@pytest.mark.parametrize("seed", range(5))
def test_polygons_of_blobs_with_holes_give_them_back_in_pycocotools_too(seed):
    mask = blobs(seed)
    parts = rle_of_mask(mask).polygons()
    found = coco.merge(coco.frPyObjects([part.reshape(-1).tolist() for part in parts], *mask.shape))
    assert np.array_equal(coco.decode(found), mask)


@given(polygons, sizes)
def test_a_polygon_has_the_pixels_that_pycocotools_gives_it(polygon, size_hw):
    (found,) = coco.frPyObjects([polygon.reshape(-1).tolist()], *size_hw)
    assert rle_of_polygon(polygon, size_hw).text().encode() == found["counts"]


@pytest.mark.parametrize("seed", range(20))
def test_a_long_polygon_has_the_pixels_that_pycocotools_gives_it(seed):
    rng = np.random.default_rng(seed)
    size_hw = tuple(int(side) for side in rng.integers(200, 1500, 2))
    polygon = rng.uniform(-300, 1800, (60, 2))
    if seed % 2:
        polygon[:, 0] = rng.uniform(0, 1000) + rng.uniform(-4, 4, 60)  # steep
    (found,) = coco.frPyObjects([polygon.reshape(-1).tolist()], *size_hw)
    assert rle_of_polygon(polygon, size_hw).text().encode() == found["counts"]


@given(st.lists(polygons, min_size=1, max_size=4), sizes)
def test_several_polygons_are_merged_as_pycocotools_merges_them(parts, size_hw):
    found = coco.merge(coco.frPyObjects([part.reshape(-1).tolist() for part in parts], *size_hw))
    assert rle_of_polygons(tuple(parts), size_hw).text().encode() == found["counts"]


@given(sizes.flatmap(lambda size: st.lists(arrays(np.bool_, size), min_size=1, max_size=5)))
def test_a_union_is_that_of_the_pixels(parts):
    size_hw = parts[0].shape
    assert np.array_equal(union([rle_of_mask(part) for part in parts], size_hw).mask(), np.any(parts, axis=0))


def test_a_union_of_nothing_is_empty():
    assert union([], (3, 4)).counts.tolist() == [12]
    assert rle_of_polygons((), (3, 4)).area == 0


@given(
    sizes.flatmap(
        lambda size: st.tuples(
            st.lists(arrays(np.bool_, size), max_size=4), st.lists(arrays(np.bool_, size), min_size=1, max_size=4)
        )
    ),
    st.integers(0, 15),
)
def test_overlaps_are_those_of_pycocotools_for_crowds_too(both, bits):
    found, objects = both
    crowd = np.array([bits >> index & 1 for index in range(len(objects))], bool)
    ours = iou([rle_of_mask(mask) for mask in found], [rle_of_mask(mask) for mask in objects], crowd)
    assert ours.shape == (len(found), len(objects))
    if found:
        wanted = coco.iou([theirs(mask) for mask in found], [theirs(mask) for mask in objects], crowd.tolist())
        assert np.array_equal(ours, wanted)


@pytest.mark.parametrize("seed", range(3))
def test_overlaps_of_many_blobs_are_those_of_pycocotools(seed):
    def pieces(noise):
        _, ids = cv2.connectedComponents(blobs(noise).astype(np.uint8))
        return list(rles_of_ids(ids).values())

    found, objects = pieces(seed), pieces(seed + 100)
    assert len(found) > 5
    encoded = [[{"size": mask.size_hw, "counts": mask.text().encode()} for mask in masks] for masks in (found, objects)]
    assert np.array_equal(iou(found, objects), coco.iou(*encoded, [0] * len(objects)))


def test_no_masks_overlap_with_none():
    assert iou([], []).shape == (0, 0)
    assert iou([rle_of_mask(np.zeros((2, 2), bool))], [rle_of_mask(np.ones((2, 2), bool))]).tolist() == [[0]]


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


@pytest.mark.parametrize("corner", [np.nan, np.inf, -1e9])
def test_a_polygon_that_leads_nowhere_is_refused(corner):
    with pytest.raises(DataInvalid, match="a corner is not a number of at most 1e"):
        rle_of_polygon(np.array([[0, 0], [5, 0], [corner, 5]]), (8, 8))


def test_a_polygon_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"expected \(K, 2\), got \(6,\)"):
        rle_of_polygon(np.zeros(6), (8, 8))


def test_a_polygon_far_outside_costs_no_memory_and_covers_what_it_covers():
    far = np.array([[-9e7, -9e7], [9e7, -9e7], [9e7, 9e7], [-9e7, 9e7]])
    assert rle_of_polygon(far, (30, 40)).area == 1200
