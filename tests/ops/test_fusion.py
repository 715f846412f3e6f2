"""Weighted-box fusion against the reference implementation's numbers, and objects that tile borders cut."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlepton.errors import ShapeError
from openlepton.ops.fusion import join_cut, tile_starts, weighted_fusion
from openlepton.ops.masks import moved, rle_of_mask

REFERENCE = np.load(Path(__file__).parent / "weighted_fusion.npz")
"""Made with `ensemble-boxes` 1.0.9 (`weighted_boxes_fusion`, iou_thr 0.55, three sets of equal weight)."""


@pytest.mark.parametrize("case", [0, 1, 2])
def test_fusion_equals_the_reference(case):
    boxes, scores, labels, fused, fused_scores, fused_labels = (
        REFERENCE[f"{case}/{name}"] for name in ("boxes", "scores", "labels", "fused", "fused_scores", "fused_labels")
    )
    found, found_scores, rows = weighted_fusion(boxes, scores, labels, sets=3)
    assert found == pytest.approx(fused, abs=1e-6)
    assert found_scores == pytest.approx(fused_scores, abs=1e-6)
    assert [int(labels[mine[0]]) for mine in rows] == fused_labels.astype(int).tolist()


def test_nothing_fuses_to_nothing():
    boxes, scores, rows = weighted_fusion(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert (boxes.shape, scores.shape, rows) == ((0, 4), (0,), [])


def test_fusion_refuses_arrays_of_different_length():
    with pytest.raises(ShapeError, match="expected"):
        weighted_fusion(np.zeros((2, 4), np.float32), np.zeros(1, np.float32), np.zeros(1, np.int64))


@given(st.integers(1, 5000), st.integers(32, 1000), st.floats(0, 0.9))
def test_tiles_cover_a_side_and_overlap_as_asked(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert max(starts[-1] + tile, length) == max(length, tile)
    steps = np.diff(starts)
    assert (steps <= max(tile * (1 - overlap), 1) + 1).all()
    assert (steps > 0).all()


def test_two_halves_of_an_object_become_one_and_its_neighbour_stays():
    boxes = np.array([[10, 10, 64, 50], [52, 11, 120, 50], [55, 200, 100, 240]], np.float32)
    cut = np.zeros((3, 4), bool)
    cut[0, 2] = cut[1, 0] = True
    whole, rows = join_cut(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int64), cut)
    assert whole.tolist() == [[10, 10, 120, 50], [55, 200, 100, 240]]
    assert [mine.tolist() for mine in rows] == [[0, 1], [2]]


def test_four_quarters_of_an_object_become_one():
    boxes = np.array([[10, 10, 64, 64], [60, 10, 110, 64], [10, 60, 64, 120], [60, 60, 110, 120]], np.float32)
    left, top, right, bottom = np.eye(4, dtype=bool)
    cut = np.stack([right | bottom, left | bottom, right | top, left | top])
    whole, rows = join_cut(boxes, np.full(4, 0.5, np.float32), np.zeros(4, np.int64), cut)
    assert whole.tolist() == [[10, 10, 110, 120]]
    assert rows[0].tolist() == [0, 1, 2, 3]


def test_a_part_of_an_object_that_another_tile_shows_whole_is_dropped():
    boxes = np.array([[10, 10, 64, 50], [12, 10, 90, 50]], np.float32)
    cut = np.array([[False, False, True, False], [False] * 4])
    whole, rows = join_cut(boxes, np.array([0.9, 0.4], np.float32), np.zeros(2, np.int64), cut)
    assert whole.tolist() == [[12, 10, 90, 50]]
    assert [mine.tolist() for mine in rows] == [[1]]


def test_halves_of_different_classes_stay_apart():
    boxes = np.array([[10, 10, 64, 50], [52, 10, 120, 50]], np.float32)
    cut = np.array([[False, False, True, False], [True, False, False, False]])
    whole, _ = join_cut(boxes, np.array([0.9, 0.8], np.float32), np.array([0, 1]), cut)
    assert len(whole) == 2


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_moved_mask_is_the_painted_one_moved(seed, mirrored):
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 9, 2)
    mask = rng.random((h, w)) < rng.random()
    y, x = rng.integers(0, 5, 2)
    size = (int(h + y + rng.integers(0, 4)), int(w + x + rng.integers(0, 4)))
    expected = np.zeros(size, bool)
    expected[y : y + h, x : x + w] = mask[:, ::-1] if mirrored else mask
    got = moved(rle_of_mask(mask), size, offset_xy=(int(x), int(y)), mirrored=mirrored)
    assert np.array_equal(got.mask(), expected)


def test_a_mask_that_would_reach_out_of_the_image_is_refused():
    with pytest.raises(ShapeError, match="reaches out"):
        moved(rle_of_mask(np.ones((3, 3), bool)), (4, 4), offset_xy=(2, 0))
