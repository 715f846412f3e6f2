"""Pictures of results: what is drawn, where, in which colour, and what is left alone."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openlepton.drawing import CROWD, MASK_OPACITY, PALETTE, draw
from openlepton.errors import ShapeError, UsageError
from openlepton.ops.masks import rle_of_mask
from openlepton.results import Classification, Detections, Segmentation

NAMES = tuple(f"class {index}" for index in range(30))
LARGE = 24  # letters whose strokes cover whole pixels
RIM = 2  # how far the shadow of a frame may reach, pixels, at the line widths used here


def noise(height=360, width=640, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def flat(height=360, width=640, level=200):
    return np.full((height, width, 3), level, np.uint8)


def found(image, boxes, ids=None, scores=None, names=NAMES, **more):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    ids = [0] * len(boxes) if ids is None else ids
    scores = [0.9] * len(boxes) if scores is None else scores
    return Detections(boxes, scores, ids, names, image.shape[:2], **more)


def ink(picture, level=0):
    """Return where letters are: black, which nothing else here is, where they are large enough to cover whole pixels."""
    return (picture == level).all(axis=2)


def letter_height(picture):
    rows = np.flatnonzero((picture < 60).all(axis=2).any(axis=1))
    return rows[-1] - rows[0] + 1


@pytest.fixture(scope="module")
def street():
    image = noise(720, 1280)
    rng = np.random.default_rng(1)
    corner = rng.uniform(-40, 1200, (20, 2)) * (1, 0.55)
    boxes = np.hstack([corner, corner + rng.uniform(30, 300, (20, 2))])
    return image, found(image, boxes, rng.integers(0, 30, 20), rng.uniform(0.3, 1, 20), track_ids=np.arange(20))


def test_the_image_is_left_alone_and_the_picture_is_new(street):
    image, result = street
    before = image.copy()
    picture = draw(image, result)
    assert np.array_equal(image, before)
    assert not np.shares_memory(picture, image)
    assert (picture.shape, picture.dtype, picture.flags.writeable) == (image.shape, np.uint8, True)
    assert not np.array_equal(picture, before)


def test_a_read_only_image_and_a_reversed_view_are_drawn_alike(street):
    image, result = street
    frozen = image.copy()
    frozen.flags.writeable = False
    view = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    assert not view.flags.c_contiguous
    expected = draw(image, result)
    assert np.array_equal(draw(frozen, result), expected)
    assert np.array_equal(draw(view, result), expected)


def test_no_detections_give_an_equal_image():
    image = noise()
    picture = draw(image, Detections.empty(NAMES, (360, 640)))
    assert np.array_equal(picture, image)
    assert not np.shares_memory(picture, image)


def test_a_frame_lies_on_exact_pixels_and_leaves_inside_and_outside_alone():
    image = noise()
    picture = draw(image, found(image, [(100, 120, 400, 300)], [3]), line_width=4)
    for line in (np.s_[150:270, 100:104], np.s_[150:270, 396:400], np.s_[296:300, 130:370]):
        assert (picture[line] == PALETTE[3]).all()
    changed = (picture != image).any(axis=2)
    inside = changed[120 + 4 + RIM : 300 - 4 - RIM, 100 + 4 + RIM : 400 - 4 - RIM]
    assert not inside[10:-10].any()
    assert not inside[:, 10:-10].any()
    assert inside[0, 0]  # corners are round
    assert not changed[:, : 100 - RIM].any()
    assert not changed[:, 400 + RIM :].any()
    assert not changed[300 + RIM :].any()
    rows = np.flatnonzero(changed.any(axis=1))
    assert 90 <= rows[0] < 110  # the tag stands on the frame


def test_a_frame_covers_every_pixel_that_its_box_touches():
    image = flat()
    picture = draw(image, found(image, [(99.6, 120.2, 400.4, 300.0)]), line_width=2)
    assert (picture[200, 99:101] == PALETTE[0]).all()
    assert (picture[200, 399:401] == PALETTE[0]).all()
    assert (picture[298:300, 200] == PALETTE[0]).all()
    assert (picture[200, 401] != PALETTE[0]).any()


@pytest.mark.parametrize("width", [1, 3, 8])
def test_the_line_width_is_the_one_asked_for(width):
    image = flat()
    picture = draw(image, found(image, [(100, 120, 400, 300)]), line_width=width)
    assert (picture[200, 100:200] == PALETTE[0]).all(axis=1).sum() == width


@pytest.mark.parametrize(
    ("height", "width", "letters", "line"), [(150, 200, 8, 1), (720, 1280, 14, 3), (2800, 4200, 37, 9)]
)
def test_letters_and_lines_follow_the_size_of_the_image(height, width, letters, line):
    image = flat(height, width)
    box = np.array((0.25, 0.4, 0.75, 0.9)) * (width, height, width, height)
    picture = draw(image, found(image, [box], names=["HHH"] * 30))
    assert letter_height(picture) == pytest.approx(letters, abs=max(1, letters * 0.1))
    middle = picture[int(height * 0.65), : width // 2]
    assert (middle == PALETTE[0]).all(axis=1).sum() == line


def test_the_font_size_is_the_one_asked_for():
    image = flat()
    result = found(image, [(100, 120, 400, 300)], names=["HHH"] * 30)
    small, large = (letter_height(draw(image, result, font_size=size)) for size in (20, 60))
    assert small == pytest.approx(20 * 0.73, abs=1)
    assert large == pytest.approx(60 * 0.73, abs=2)


def test_a_crowd_gets_smaller_letters():
    image = flat(720, 1280)
    far = [(1000, 600, 1100, 700)] * CROWD
    box = (300, 300, 500, 500)
    few, crowd = (found(image, boxes, names=["HHH"] * 30) for boxes in ([box, *far[1:]], [box, *far]))
    assert letter_height(draw(image, few)[250:310]) == pytest.approx(14, abs=1)
    assert letter_height(draw(image, crowd)[250:310]) == pytest.approx(10, abs=1)


@pytest.mark.parametrize("x", [-30, 300, 630])
@pytest.mark.parametrize("y", [-3, 150, 355])
def test_a_tag_is_whole_wherever_its_box_is(x, y):
    image = flat()
    whole = ink(draw(image, found(image, [(200, 200, 300, 300)]), font_size=LARGE)).sum()
    assert whole > 100
    assert ink(draw(image, found(image, [(x, y, x + 40, y + 20)]), font_size=LARGE)).sum() == whole


def test_tags_of_one_box_do_not_cover_each_other():
    image = flat()
    box = (200, 150, 420, 300)
    alone = [ink(draw(image, found(image, [box], [index]))).sum() for index in (0, 1, 2, 3)]
    together = draw(image, found(image, [box] * 4, [0, 1, 2, 3], [0.9, 0.85, 0.88, 0.87]))
    again = [
        ink(draw(image, found(image, [box], [index], [score]))).sum()
        for index, score in ((1, 0.85), (2, 0.88), (3, 0.87))
    ]
    assert ink(together).sum() == alone[0] + sum(again)


def test_the_best_detection_gets_the_best_place_for_its_tag():
    image = flat()
    box = (100, 120, 400, 300)
    for scores, best in (([0.9, 0.5], 3), ([0.5, 0.9], 7)):
        picture = draw(image, found(image, [box, box], [3, 7], scores))
        assert (picture[112, 101] == PALETTE[best]).all()  # just above the upper left corner


def test_the_best_detection_lies_on_top():
    image = flat()
    box = (100, 120, 400, 300)
    for scores, best in (([0.9, 0.5], 3), ([0.5, 0.9], 7)):
        picture = draw(image, found(image, [box, box], [3, 7], scores), line_width=4)
        assert (picture[220, 100:104] == PALETTE[best]).all()


def test_a_class_keeps_its_colour():
    image = flat()
    boxes = [(20, 100, 120, 200), (220, 100, 320, 200), (420, 100, 520, 200)]
    for ids in ([5, 1, 5], [5, 2, 29], [29, 7, 5]):
        picture = draw(image, found(image, boxes, ids), line_width=2)
        colors = [tuple(picture[150, int(box[0])]) for box in boxes]
        assert colors == [PALETTE[index % len(PALETTE)] for index in ids]
    assert PALETTE[29 % len(PALETTE)] == PALETTE[5]


def test_colours_are_told_apart_with_and_without_colour_blindness():
    """Distances in Oklab (Ottosson 2020) as seen normally and with Machado et al.'s protanopia and deuteranopia (2009)."""
    protanopia = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    deuteranopia = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    cones = np.array(
        [[0.41222147, 0.53633254, 0.05144599], [0.2119035, 0.6806995, 0.10739696], [0.08830246, 0.28171884, 0.6299787]]
    )
    lab = np.array(
        [
            [0.21045426, 0.7936178, -0.00407205],
            [1.9779985, -2.4285922, 0.4505937],
            [0.02590404, 0.78277177, -0.80867577],
        ]
    )
    srgb = np.array(PALETTE) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    assert len(set(PALETTE)) == len(PALETTE) >= 20
    for seen, least_of_eight, least in (
        (np.eye(3), 0.14, 0.059),
        (protanopia, 0.075, 0.058),
        (deuteranopia, 0.075, 0.058),
    ):
        points = np.cbrt(np.clip(linear @ np.transpose(seen), 0, 1) @ cones.T) @ lab.T
        apart = np.linalg.norm(points[:, None] - points[None], axis=2) + np.eye(len(points)) * 9
        assert apart[:8, :8].min() > least_of_eight
        assert apart.min() > least


def test_letters_stand_out_from_every_tag():
    image = flat(level=128)
    for index, color in enumerate(PALETTE):
        picture = draw(image, found(image, [(100, 120, 400, 300)], [index]), font_size=LARGE)
        levels = [level for level in (0, 255) if ink(picture, level).any()]
        assert len(levels) == 1
        part = np.array(color) / 255
        luminance = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
        low, high = sorted((luminance, float(levels[0] > 0)))
        assert (high + 0.05) / (low + 0.05) > 4.5  # WCAG 2, level AA


@pytest.mark.parametrize("name", ["车", "車", "é", "Ж", "Ω", "ー", "한", "，"])
def test_names_of_many_scripts_have_letters_and_no_missing_glyphs(name):
    image = flat()
    pictures = [
        draw(image, found(image, [(100, 120, 400, 300)], names=[text] * 30)) for text in (name, "\u0e01", "x", "人")
    ]
    for other in pictures[1:]:  # Thai is not in the font: what is drawn for it is the sign of a missing glyph
        assert not np.array_equal(pictures[0], other)


def test_other_names_change_the_tags_and_nothing_else():
    image = noise()
    result = found(image, [(100, 120, 400, 300)])
    chinese = draw(image, result, names=["人"] * 30)
    assert np.array_equal(chinese, draw(image, found(image, [(100, 120, 400, 300)], names=["人"] * 30)))
    changed = (chinese != draw(image, result)).any(axis=2)
    assert changed.any()
    assert not changed[130:].any()


def test_track_ids_are_part_of_the_tag():
    image = flat()
    box = [(100, 120, 400, 300)]
    plain, seventh, eighth = (
        draw(image, found(image, box, track_ids=ids), font_size=LARGE) for ids in (None, [7], [8])
    )
    assert not np.array_equal(seventh, eighth)
    ends = [np.flatnonzero(ink(picture).any(axis=0))[-1] for picture in (plain, seventh)]
    assert ends[1] > ends[0] + 10  # the name moved right by "#7 "


def test_a_long_name_is_cut_to_the_width_of_the_image():
    image = flat(100, 100)
    picture = draw(image, found(image, [(10, 50, 90, 90)], names=["W" * 5000] * 30), font_size=20)
    columns = np.flatnonzero(ink(picture).any(axis=0))
    assert columns[0] >= 2
    assert columns[-1] <= 97


def test_an_image_too_small_for_letters_gets_its_box_alone():
    image = flat(12, 12)
    picture = draw(image, found(image, [(2, 2, 11, 11)]))
    assert (picture[6, 2] == PALETTE[0]).all()
    assert (picture[6, 6] == 200).all()


def test_a_mask_is_blended_exactly_and_its_outline_drawn():
    image = noise()
    mask = np.zeros((360, 640), bool)
    mask[150:280, 120:380] = True
    picture = draw(image, found(image, [(100, 130, 400, 300)], [2], masks=[rle_of_mask(mask)]), line_width=2)
    expected = np.rint(image * (1 - MASK_OPACITY) + np.array(PALETTE[2]) * MASK_OPACITY)
    assert np.array_equal(picture[155:275, 125:375], expected[155:275, 125:375])
    assert (picture[150, 130:370] == PALETTE[2]).all()
    assert np.array_equal(picture[140:145, 110:390], image[140:145, 110:390])
    assert np.array_equal(picture[310:], image[310:])


def test_in_a_crowd_an_object_smaller_than_its_tag_goes_without_one():
    image = flat()
    small = [
        (10 + 20 * (k % 30), 10 + 30 * (k // 30), 18 + 20 * (k % 30), 20 + 30 * (k // 30)) for k in range(CROWD + 1)
    ]
    tagged, alone, large = (
        (draw(image, found(image, boxes)) != 200).any(axis=2)
        for boxes in (small[:CROWD], small, [*small, (50, 100, 500, 300)])
    )
    assert not alone[60:].any()
    assert tagged.sum() > 2 * alone.sum()
    assert large[60:].sum() > 2 * (450 + 200) * 3  # its frame, and a tag


def test_in_a_crowd_the_mask_of_a_small_object_needs_no_frame():
    image = flat()
    small = [(10 + 20 * k, 10, 18 + 20 * k, 20) for k in range(CROWD + 1)]
    empty = [rle_of_mask(np.zeros(image.shape[:2], bool))] * len(small)
    assert (draw(image, found(image, small, masks=empty)) == image).all()


def test_an_empty_mask_changes_nothing():
    image = noise()
    box = [(100, 130, 400, 300)]
    with_mask = draw(image, found(image, box, masks=[rle_of_mask(np.zeros((360, 640), bool))]))
    assert np.array_equal(with_mask, draw(image, found(image, box)))


@pytest.mark.parametrize(
    "box",
    [
        (700, 10, 800, 90), (-50, -50, -1, -1), (10, 400, 60, 500), (np.nan, 0, 9, 9), (0, 0, 9, np.inf * 0),
        (300, 200, 100, 250), (640, 0, 640, 50), (-5, 0, 0, 20),
    ],
)  # fmt: skip
def test_a_box_outside_the_image_inverted_or_not_a_number_is_not_drawn(box):
    image = noise()
    assert np.array_equal(draw(image, found(image, [box])), image)


def test_a_box_without_area_is_one_pixel_with_a_tag():
    image = flat()
    picture = draw(image, found(image, [(300, 200, 300, 200)]), font_size=LARGE)
    assert ink(picture).sum() > 100
    assert (picture[230:] == 200).all()


def test_a_box_beyond_the_image_on_all_sides_frames_the_image():
    image = flat()
    picture = draw(image, found(image, [(-1e30, -np.inf, 1e30, np.inf)]), line_width=2)
    for line in (picture[100:300, :2], picture[100:300, -2:], picture[-2:, 100:500]):
        assert (line == PALETTE[0]).all()


numbers = st.floats(-1e6, 1e6, width=32) | st.floats(-50, 150, width=32) | st.just(np.float32("nan"))


@given(
    boxes=st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=6),
    height=st.integers(1, 90),
    width=st.integers(1, 120),
)
def test_no_box_is_too_odd_to_draw(boxes, height, width):
    image = flat(height, width)
    picture = draw(image, found(image, boxes, list(range(len(boxes)))))
    assert picture.shape == image.shape
    seen = [(x1, y1, x2, y2) for x1, y1, x2, y2 in boxes if x1 <= x2 and y1 <= y2]
    if not any(floor(x1) < width and floor(y1) < height and ceil(x2) > 0 and ceil(y2) > 0 for x1, y1, x2, y2 in seen):
        assert np.array_equal(picture, image)


def test_drawing_is_the_same_every_time_and_in_every_thread(street):
    image, result = street
    expected = draw(image, result)
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda size: draw(image, result, font_size=size), [None, 15, 31] * 8))
    assert all(np.array_equal(picture, expected) for picture in pictures[::3])
    assert all(np.array_equal(picture, pictures[1]) for picture in pictures[1::3])


def bar_length(picture, color=(0, 114, 178)):
    return (picture == color).all(axis=2).sum(axis=1).max()


def test_the_bars_of_a_classification_are_as_long_as_its_probabilities():
    image = flat(720, 1280, level=90)
    full = bar_length(draw(image, Classification([1.0, 0.0], ["", ""])))
    assert full > 300
    for score in (0.75, 0.5, 0.25):
        picture = draw(image, Classification([1 - score, score] if score > 0.5 else [score, 0.0], ["", ""]))
        assert bar_length(picture) == pytest.approx(full * score, abs=1)


def test_a_classification_shows_its_five_best_in_the_lower_half():
    image = noise(720, 1280)
    scores = np.array([0.02, 0.4, 0.05, 0.3, 0.1, 0.08, 0.01])
    picture = draw(image, Classification(scores, NAMES[:7]))
    same = draw(image, Classification(scores, ["other", *NAMES[1:6], "another"]))
    assert np.array_equal(picture, same)
    assert not np.array_equal(picture, draw(image, Classification(scores, [*NAMES[:2], "other", *NAMES[3:7]])))
    assert np.array_equal(picture[:360], image[:360])
    assert np.array_equal(picture[:, 640:], image[:, 640:])


def test_a_classification_of_a_thumbnail_shows_fewer_classes_and_of_a_stamp_none():
    result = Classification([0.6, 0.3, 0.1], ["a", "b", "c"])
    small, stamp = noise(112, 112), noise(32, 32)
    assert np.array_equal(draw(small, result), draw(small, Classification([0.6, 0.3, 0.1], ["a", "b", "other"])))
    assert not np.array_equal(draw(small, result), draw(small, Classification([0.6, 0.3, 0.1], ["a", "other", "c"])))
    assert np.array_equal(draw(stamp, result), stamp)


def test_scores_that_are_no_probabilities_still_give_a_picture():
    image = flat()
    for scores in ([np.nan, 0.5], [-1.0, -2.0], [3.0, np.inf]):
        assert draw(image, Classification(scores, ["a", "b"])).shape == image.shape


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((360, 640), np.uint8), r"image: expected \(H, W, 3\) RGB uint8, got uint8 \(360, 640\)"),
        (np.zeros((360, 640, 4), np.uint8), r"got uint8 \(360, 640, 4\)"),
        (np.zeros((360, 640, 3), np.float32), r"got float32 \(360, 640, 3\)"),
        (None, "got NoneType"),
        (np.zeros((640, 360, 3), np.uint8), "the result is about 640x360 pixels, this image has 360x640"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(image, message):
    with pytest.raises(ShapeError, match=message):
        draw(image, Detections.empty(NAMES, (360, 640)))


def test_a_call_that_makes_no_sense_is_refused():
    image = flat()
    result = found(image, [(100, 120, 400, 300)])
    with pytest.raises(UsageError, match="result: expected Detections, Classification or Segmentation, got list"):
        draw(image, [result])
    with pytest.raises(UsageError, match="names: expected 30, one for each class, got 1"):
        draw(image, result, names=["person"])
    for size in (0, -3, 1.5):
        with pytest.raises(UsageError, match=f"line_width: expected a whole number of pixels above zero, got {size}"):
            draw(image, result, line_width=size)
        with pytest.raises(UsageError, match=f"font_size: expected a whole number of pixels above zero, got {size}"):
            draw(image, result, font_size=size)


def test_importing_the_module_does_not_import_pillow():
    code = "import sys, openlepton.drawing; print(any(name.split('.')[0] == 'PIL' for name in sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )


def test_classes_are_tinted_but_for_the_background_and_named_in_a_legend():
    image = flat()
    class_map = np.zeros(image.shape[:2], np.uint8)
    class_map[20:100, 40:600] = 1
    class_map[120:160, 40:600] = 2
    result = Segmentation(class_map, ("nothing", "road", "天空"), background=0)
    drawn = draw(image, result)
    for index, row in ((1, 60), (2, 140)):
        wanted = image[row, 300] * 0.55 + np.array(PALETTE[index]) * 0.45
        np.testing.assert_allclose(drawn[row, 300], wanted, atol=1)
    assert (drawn[:20] == image[:20]).all()  # the background
    legend = drawn[180:, :320]
    for index in (1, 2):
        assert (legend == PALETTE[index]).all(-1).sum() > 40, "its colour, unmixed"
    assert (legend.min(-1) > 230).sum() > 20, "letters"
    assert (drawn[180:, 420:] == image[180:, 420:]).all()
    assert not (draw(image, result, names=("nothing", "Strasse", "Himmel")) == drawn).all()


def test_a_segmentation_of_nothing_but_background_leaves_the_image_as_it_is():
    image = flat()
    result = Segmentation(np.zeros(image.shape[:2], np.uint8), ("nothing", "road"), background=0)
    assert (draw(image, result) == image).all()
    tiny = np.full((5, 4, 3), 200, np.uint8)
    assert (draw(tiny, Segmentation(np.ones((5, 4), np.uint8), ("a", "b"))) != tiny).all()
    with pytest.raises(ShapeError, match="the result is about 640x360 pixels, this image has 4x5"):
        draw(tiny, result)
