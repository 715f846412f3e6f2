"""Masks at the size of the original image: equal to painting, enlarging and thresholding them, and inside their boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlepton.arrays import Boxes, Floats
from openlepton.card import ImageInput
from openlepton.errors import ShapeError
from openlepton.ops.geometry import Frame, letterbox
from openlepton.vision.detect import Detect
from openlepton.vision.segment import Segment, masks_in_boxes

INPUT = ImageInput(size=320, resize="letterbox", multiple=32)
NAMES = ("cell", "dirt")


def enlarged(samples: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Return samples interpolated linearly along an axis, which go on beyond the first and last."""
    count = samples.shape[axis]
    places = np.clip(places, 0, count - 1)
    low = np.minimum(places.astype(int), max(count - 2, 0))
    share = np.expand_dims(places - low, tuple(range(1, samples.ndim - axis)))
    high = np.minimum(low + 1, count - 1)
    return np.take(samples, low, axis) * (1 - share) + np.take(samples, high, axis) * share


def painted(coeffs: Floats, protos: Floats, boxes: Boxes, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return masks `(K, H, W)` by the definition, and how probable each pixel is."""
    (H, W), (h, w), seen_hw = frame.image_hw, protos.shape[1:], frame.seen_hw
    assert seen_hw is not None
    across = ((np.arange(W) + 0.5) * frame.scale_xy[0] + frame.pad_xy[0]) * w / seen_hw[1] - 0.5
    down = ((np.arange(H) + 0.5) * frame.scale_xy[1] + frame.pad_xy[1]) * h / seen_hw[0] - 0.5
    mixed = np.tensordot(coeffs.astype(float), protos.astype(float), 1)  # (K, h, w)
    share = enlarged(enlarged(1 / (1 + np.exp(-mixed)), down, 1), across, 2)  # (K, H, W)
    x, y = np.arange(W) + 0.5, np.arange(H) + 0.5
    x1, y1, x2, y2 = boxes.T[..., None]
    inside = ((y >= y1) & (y < y2))[:, :, None] & ((x >= x1) & (x < x2))[:, None, :]
    return (share > 0.5) & inside, share


def scene(seed: int, objects: int = 6) -> tuple[Floats, Floats, Boxes, Frame]:
    rng = np.random.default_rng(seed)
    H, W = (int(side) for side in rng.integers(1, 400, 2))
    _, frame = letterbox(np.zeros((H, W, 3), np.uint8), int(rng.choice([64, 128, 320])))
    assert frame.seen_hw is not None
    rough = rng.normal(size=(32, frame.seen_hw[0] // 4, frame.seen_hw[1] // 4))
    protos = (rough + np.roll(rough, 1, 1) + np.roll(rough, 1, 2)).astype(np.float32)
    corners = rng.uniform(-0.2, 1, (objects, 2)) * (W, H)
    ends = corners + rng.uniform(0, 0.9, (objects, 2)) * (W, H)
    boxes = np.clip(np.concatenate([corners, ends], 1), 0, (W, H, W, H)).astype(np.float32)
    return rng.normal(size=(objects, 32)).astype(np.float32), protos, boxes, frame


@pytest.mark.parametrize("seed", range(40))
def test_masks_are_those_that_painting_gives(seed: int) -> None:
    coeffs, protos, boxes, frame = scene(seed)
    found = masks_in_boxes(coeffs, protos, boxes, frame)
    wanted, share = painted(coeffs, protos, boxes, frame)
    assert len(found) == len(wanted)
    for mask, exact, near in zip(found, wanted, share, strict=True):
        differs = mask.mask() != exact
        assert (np.abs(near[differs] - 0.5) < 1e-5).all()  # single precision may fall on either side
        assert differs.mean() < 1e-3


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_masks_lie_inside_the_image_and_their_box(seed: int) -> None:
    coeffs, protos, boxes, frame = scene(seed, objects=3)
    for mask, (x1, y1, x2, y2) in zip(masks_in_boxes(coeffs, protos, boxes, frame), boxes.tolist(), strict=True):
        assert mask.size_hw == frame.image_hw
        if mask.area:
            left, top, right, bottom = mask.box()
            assert left >= 0
            assert top >= 0
            assert right <= frame.image_hw[1]
            assert bottom <= frame.image_hw[0]
            # No pixel's centre is outside.
            assert left + 0.5 >= x1
            assert top + 0.5 >= y1
            assert right - 0.5 <= x2
            assert bottom - 0.5 <= y2


def test_a_mask_that_is_everywhere_fills_its_box() -> None:
    _, frame = letterbox(np.zeros((100, 200, 3), np.uint8), 64)
    protos = np.full((32, 8, 16), 1, np.float32)
    coeffs = np.array([[1.0] * 32, [-1.0] * 32, [1.0] * 32], np.float32)
    boxes = np.array([[10, 20, 50, 40], [10, 20, 50, 40], [0, 0, 200, 100]], np.float32)
    full, empty, whole = masks_in_boxes(coeffs, protos, boxes, frame)
    assert full.box() == (10, 20, 50, 40)
    assert full.area == 800
    assert empty.area == 0
    assert whole.counts.tolist() == [0, 20_000]


def test_boxes_without_area_have_empty_masks() -> None:
    _, frame = letterbox(np.zeros((100, 200, 3), np.uint8), 64)
    protos = np.ones((32, 8, 16), np.float32)
    boxes = np.array([[200, 100, 200, 100], [5, 5, 5, 5], [7.6, 3, 7.9, 90]], np.float32)
    assert [mask.area for mask in masks_in_boxes(np.ones((3, 32), np.float32), protos, boxes, frame)] == [0, 0, 0]


def test_no_objects_have_no_masks() -> None:
    _, frame = letterbox(np.zeros((10, 20, 3), np.uint8), 64)
    protos = np.ones((32, 8, 16), np.float32)
    assert masks_in_boxes(np.zeros((0, 32), np.float32), protos, np.zeros((0, 4), np.float32), frame) == []


def test_a_frame_must_say_what_the_network_sees() -> None:
    with pytest.raises(ShapeError, match="how large the image is that the network sees"):
        masks_in_boxes(np.ones((1, 32), np.float32), np.ones((32, 2, 2), np.float32), np.zeros((1, 4)), Frame((9, 9)))


def test_a_segmenter_finds_what_a_detector_finds_and_its_masks() -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 255, (240, 500, 3)).astype(np.uint8)
    task = Segment(INPUT, NAMES, min_score=0.6)
    inputs, frame = task.prepare(image)
    h, w = (side // 4 for side in inputs["images"].shape[1:])
    corners = rng.uniform(0, 150, (50, 2))
    outputs = {
        "boxes": np.concatenate([corners, corners + rng.uniform(5, 100, (50, 2))], 1).astype(np.float32),
        "scores": rng.random((50, 2)).astype(np.float32),
        "coeffs": rng.normal(size=(50, 32)).astype(np.float32),
        "protos": rng.normal(size=(32, h, w)).astype(np.float32),
    }
    found = task.finish(outputs, frame)
    boxes = Detect(INPUT, NAMES, min_score=0.6).finish(outputs, frame)
    assert len(found) > 5
    assert np.array_equal(found.boxes, boxes.boxes)
    assert np.array_equal(found.scores, boxes.scores)
    assert found.masks is not None
    rows, _ = task.select(outputs["boxes"], outputs["scores"])
    wanted, _ = painted(outputs["coeffs"][rows], outputs["protos"], found.boxes, frame)
    for row in range(len(found)):
        assert (found.mask(row) != wanted[row]).mean() < 1e-3


def test_nothing_found_is_an_empty_result_with_masks() -> None:
    task = Segment(INPUT, NAMES)
    inputs, frame = task.prepare(np.zeros((30, 40, 3), np.uint8))
    h, w = (side // 4 for side in inputs["images"].shape[1:])
    outputs = {
        "boxes": np.zeros((5, 4), np.float32),
        "scores": np.zeros((5, 2), np.float32),
        "coeffs": np.zeros((5, 32), np.float32),
        "protos": np.zeros((32, h, w), np.float32),
    }
    found = task.finish(outputs, frame)
    assert found.masks == ()
    assert found.to_dict() == {"image": {"width": 40, "height": 30}, "detections": []}
