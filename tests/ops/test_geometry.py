import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlepton.errors import ShapeError
from openlepton.ops.geometry import Frame, center_crop, letterbox, resize, stretch, to_tensor


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([32, 64, 160]), st.booleans())
def test_a_frame_undoes_what_letterbox_did(height, width, size, square):
    image = np.zeros((height, width, 3), np.uint8)
    seen, frame = letterbox(image, size, square=square)
    whole = np.array([[0, 0, width, height]], np.float32)
    assert frame.undo(frame.apply(whole)) == pytest.approx(whole, abs=1e-3)
    x1, y1, x2, y2 = frame.apply(whole)[0]
    assert max(x2 - x1, y2 - y1) == pytest.approx(size, abs=1e-3)
    assert seen.shape[0] % 32 == 0
    assert seen.shape[1] % 32 == 0
    assert 0 <= x1 < x2 <= seen.shape[1] + 1e-3
    assert 0 <= y1 < y2 <= seen.shape[0] + 1e-3


def test_letterbox_pads_both_sides_with_grey():
    seen, frame = letterbox(np.full((360, 640, 3), 200, np.uint8), 640)
    assert seen.shape == (384, 640, 3)
    assert frame.pad_xy == (0, 12)
    assert (seen[:12] == 114).all()
    assert (seen[12:372] == 200).all()
    assert (seen[372:] == 114).all()


def test_letterbox_to_a_square():
    seen, frame = letterbox(np.full((100, 200, 3), 9, np.uint8), 640, square=True)
    assert seen.shape == (640, 640, 3)
    assert frame.pad_xy == (0, 160)
    assert frame.scale_xy == (3.2, 3.2)


def test_letterbox_enlarges_only_when_told():
    image = np.zeros((50, 100, 3), np.uint8)
    assert letterbox(image, 320)[1].scale_xy == (3.2, 3.2)
    assert letterbox(image, 320, enlarge=False)[1].scale_xy == (1.0, 1.0)


def test_a_reduced_copy_gives_boxes_of_the_original():
    seen, frame = letterbox(np.zeros((360, 640, 3), np.uint8), 640, image_hw=(720, 1280))
    assert seen.shape == (384, 640, 3)
    assert frame.image_hw == (720, 1280)
    assert frame.undo(np.array([[10, 32, 110, 132]], np.float32)).tolist() == [[20, 40, 220, 240]]


def test_undo_cuts_boxes_to_the_image():
    _, frame = letterbox(np.zeros((100, 100, 3), np.uint8), 320)
    assert frame.undo(np.array([[-50, -50, 900, 160]], np.float32)).tolist() == [[0, 0, 100, 50]]


def test_letterbox_leaves_its_input_alone():
    image = np.arange(64 * 48 * 3, dtype=np.uint8).reshape(48, 64, 3)
    before = image.copy()
    image.flags.writeable = False
    letterbox(image, 320)
    assert np.array_equal(image, before)


def test_stretch_makes_each_side_fit_by_itself():
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, 150:] = 200  # the right half
    seen, frame = stretch(image, (64, 192))
    assert seen.shape == (64, 192, 3)
    assert (seen[:, :94] == 0).all()
    assert (seen[:, 98:] == 200).all()
    assert frame == Frame((100, 300), (192 / 300, 64 / 100), seen_hw=(64, 192))
    boxes = np.array([[30, 10, 240, 90]], np.float32)
    assert np.allclose(frame.apply(boxes), [[19.2, 6.4, 153.6, 57.6]])
    assert np.allclose(frame.undo(frame.apply(boxes)), boxes, atol=1e-4)


def test_stretching_a_reduced_copy_gives_boxes_of_the_original():
    _, frame = stretch(np.zeros((50, 100, 3), np.uint8), (64, 64), image_hw=(200, 400))
    assert frame == Frame((200, 400), (64 / 400, 64 / 200), seen_hw=(64, 64))


def test_center_crop_takes_the_middle():
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 50:150] = 255
    assert (center_crop(image, 32) == 255).all()
    inner = np.zeros((100, 100, 3), np.uint8)
    inner[6:94, 6:94] = 255
    assert (center_crop(inner, 32, fraction=0.875) == 255).all()


def test_to_tensor_is_channels_first_and_scaled():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert to_tensor(image) == pytest.approx(image.transpose(2, 0, 1).astype(np.float32) / 255, abs=1e-7)
    assert to_tensor(image).dtype == np.float32


def test_resize_of_the_same_size_is_the_image_itself():
    image = np.zeros((5, 7, 3), np.uint8)
    assert resize(image, (5, 7)) is image


def test_letterbox_refuses_what_is_no_image():
    with pytest.raises(ShapeError, match=r"image: expected \(H, W, 3\), got \(4, 4\)"):
        letterbox(np.zeros((4, 4), np.uint8), 32)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(1, 40))
def test_a_letterbox_of_a_given_shape_holds_the_whole_image_in_its_middle(h, w, high, wide):
    image, frame = letterbox(np.full((h, w, 3), 200, np.uint8), 1, fill=7, size_hw=(high, wide))
    assert image.shape == (high, wide, 3)
    inner_w, inner_h = round(w * frame.scale_xy[0]), round(h * frame.scale_xy[1])
    assert inner_w == wide or inner_h == high
    left, top = frame.pad_xy
    assert (left, top) == ((wide - inner_w) // 2, (high - inner_h) // 2)
    assert (image[top : top + inner_h, left : left + inner_w] == 200).all()
    assert (image == 7).sum() == 3 * (high * wide - inner_h * inner_w)
