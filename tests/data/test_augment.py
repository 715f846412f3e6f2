"""The published presets, and training images that depend on their seed alone."""

import colorsys
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from openlepton.data.augment import (
    PRESETS,
    AugmentConfig,
    copy_paste,
    flips,
    hsv,
    hsv_gains,
    mixup,
    mosaic,
    random_map,
    single,
    training_image,
)
from openlepton.data.warp import Labelled, boxes_around
from openlepton.errors import UsageError

NEVER = np.eye(3)


def disc_scene(rng, size, *, count=1, with_outlines=False):
    """Dark noise with white rectangles that do not touch, and their labels."""
    height, width = (int(side) for side in rng.integers(size // 2, size, 2, endpoint=True))
    image = rng.integers(0, 60, (height, width, 3), np.uint8)
    boxes = np.zeros((count, 4), np.float32)
    for row in range(count):
        low, high = width * row // count + 2, width * (row + 1) // count - 2
        x1, y1 = int(rng.integers(low, (low + high) // 2 - 3)), int(rng.integers(2, height // 2 - 4))
        x2, y2 = int(rng.integers((low + high) // 2 + 3, high)), int(rng.integers(height // 2 + 4, height - 2))
        image[y1:y2, x1:x2] = 255
        boxes[row] = x1, y1, x2, y2
    outlines = tuple((np.float32([[a, b], [c, b], [c, d], [a, d]]),) for a, b, c, d in boxes)
    return Labelled(image, boxes, np.arange(count), outlines if with_outlines else None)


def reader(images, size, **options):
    return [disc_scene(np.random.default_rng(row), size, **options) for row in range(images)].__getitem__


def same(a, b):
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.boxes, b.boxes)
    assert np.array_equal(a.class_ids, b.class_ids)
    assert (a.outlines is None) == (b.outlines is None)
    return True


def test_presets_are_the_published_ones():
    low = {"hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4, "degrees": 0, "translate": 0.1, "scale": 0.5, "shear": 0}
    low |= {"perspective": 0, "flipud": 0, "fliplr": 0.5, "mosaic": 1, "mixup": 0, "copy_paste": 0}
    assert asdict(PRESETS["low"]) == low
    assert asdict(PRESETS["medium"]) == low | {"scale": 0.9, "mixup": 0.1}
    assert asdict(PRESETS["high"]) == low | {"scale": 0.9, "mixup": 0.1, "copy_paste": 0.1}
    assert not any(asdict(PRESETS["none"]).values())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mosaic": 1.5}, "mosaic: expected 0 to 1, got 1.5"),
        ({"hsv_s": -0.1}, "hsv_s: expected 0 to 1, got -0.1"),
        ({"perspective": 0.1}, "perspective: expected 0 to 0.002, got 0.1"),
        ({"scale": 1.0}, "scale: expected less than 1"),
        ({"fliplr": float("nan")}, "fliplr: expected 0 to 1, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        AugmentConfig(**wrong)


@pytest.mark.parametrize("preset", PRESETS)
def test_one_seed_gives_one_image(preset):
    read = reader(6, 64, count=2, with_outlines=True)
    made = [training_image(read, 6, 2, 64, PRESETS[preset], np.random.default_rng(5)) for _ in range(2)]
    assert same(*made)
    other = training_image(read, 6, 2, 64, PRESETS[preset], np.random.default_rng(6))
    assert np.array_equal(made[0].image, other.image) == (preset == "none")


def test_without_augmentation_the_image_is_centred_on_grey_and_nothing_else():
    item = disc_scene(np.random.default_rng(1), 64)
    height, width = item.image.shape[:2]
    made = training_image(lambda _: item, 1, 0, 64, PRESETS["none"], np.random.default_rng(0))
    left, top = (64 - width) // 2, (64 - height) // 2
    assert np.array_equal(made.image[top : top + height, left : left + width], item.image)
    assert (np.delete(made.image[:, left : left + width], np.s_[top : top + height], 0) == 114).all()
    assert made.boxes.tolist() == (item.boxes + np.array([left, top, left, top])).tolist()


@given(seed=st.integers(0, 2**32), with_outlines=st.booleans())
def test_in_a_mosaic_every_box_is_full_of_its_object_and_no_object_lacks_one(seed, with_outlines):
    rng = np.random.default_rng(seed)
    config = replace(PRESETS["low"], hsv_h=0, hsv_s=0, hsv_v=0, scale=0.2)
    items = [disc_scene(rng, 96, with_outlines=with_outlines) for _ in range(4)]
    made = mosaic(items, 96, config, rng, flips(config, 96, rng))
    white = made.image.min(axis=2) > 160
    for box in made.boxes:
        x1, y1, x2, y2 = np.rint(box).astype(int)
        assert white[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].all()
        rows, columns = np.nonzero(white[max(y1 - 2, 0) : y2 + 2, max(x1 - 2, 0) : x2 + 2])
        around = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(around + np.tile([max(x1 - 2, 0), max(y1 - 2, 0)], 2) - box).max() <= 1.0
        white[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1] = False
    # What is left are slivers that were dropped: less than 10 % of an object.
    assert white.sum() < 4 * 0.1 * 96 * 96 * 1.2**2


def test_a_mosaic_of_four_colours_puts_each_in_its_quarter():
    flat = [
        Labelled(np.full((32, 32, 3), value, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
        for value in (10, 60, 160, 210)
    ]
    seen = set()
    for seed in range(40):
        image = mosaic(flat, 32, AugmentConfig(), np.random.default_rng(seed), NEVER).image[..., 0]
        assert set(np.unique(image)) <= {10, 60, 160, 210, 114}
        seen.add(tuple(int(image[y, x]) for y in (0, -1) for x in (0, -1)))
    assert len(seen) > 12  # every order of the four comes up
    full = [corners for corners in seen if 114 not in corners]
    assert all(len(set(corners)) in (1, 2, 4) for corners in full)


def test_the_meeting_point_covers_the_middle_half():
    """Without a zoom the middle of the canvas shows, so the meeting point is anywhere in the picture, ends included."""
    white, black = (
        Labelled(np.full((16, 16, 3), v, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
        for v in (255, 0)
    )
    shares = [
        (
            mosaic([white, black, black, black], 16, AugmentConfig(), np.random.default_rng(seed), NEVER).image == 255
        ).mean()
        for seed in range(400)
    ]
    assert min(shares) == 0.0
    assert max(shares) > 0.9
    assert np.mean(shares) == pytest.approx(0.25, abs=0.04)


def test_the_random_map_keeps_to_its_ranges_and_fills_them():
    config = AugmentConfig(scale=0.5, translate=0.1)
    maps = [random_map(config, (128, 128), 64, np.random.default_rng(seed)) for seed in range(2000)]
    zooms = np.array([matrix[0, 0] for matrix in maps])
    middles = np.array([(matrix @ [64, 64, 1])[:2] for matrix in maps]) / 64
    assert all(matrix[0, 1] == matrix[1, 0] == 0 for matrix in maps)
    assert (zooms.min(), zooms.max()) == pytest.approx((0.5, 1.5), abs=0.01)
    assert zooms.mean() == pytest.approx(1.0, abs=0.03)
    assert (middles.min(), middles.max()) == pytest.approx((0.4, 0.6), abs=0.002)
    assert np.corrcoef(middles.T)[0, 1] == pytest.approx(0, abs=0.07)


def test_rotation_and_shear_have_the_angles_they_say():
    turned = [random_map(AugmentConfig(degrees=20), (64, 64), 64, np.random.default_rng(seed)) for seed in range(500)]
    angles = [np.rad2deg(np.arctan2(matrix[0, 1], matrix[0, 0])) for matrix in turned]
    assert (min(angles), max(angles)) == pytest.approx((-20, 20), abs=0.3)
    sheared = [random_map(AugmentConfig(shear=15), (64, 64), 64, np.random.default_rng(seed)) for seed in range(500)]
    angles = [np.rad2deg(np.arctan(matrix[0, 1])) for matrix in sheared]
    assert (min(angles), max(angles)) == pytest.approx((-15, 15), abs=0.3)


def test_flips_come_as_often_as_asked():
    rng = np.random.default_rng(0)
    made = [flips(AugmentConfig(flipud=0.2, fliplr=0.5), 64, rng) for _ in range(4000)]
    assert np.mean([matrix[0, 0] < 0 for matrix in made]) == pytest.approx(0.5, abs=0.025)
    assert np.mean([matrix[1, 1] < 0 for matrix in made]) == pytest.approx(0.2, abs=0.02)


def test_a_mirrored_training_image_is_the_mirror_of_the_plain_one():
    item = disc_scene(np.random.default_rng(4), 48)
    config, mirror = AugmentConfig(), np.array([[-1, 0, 48], [0, 1, 0], [0, 0, 1.0]])
    plain = single(item, 48, config, np.random.default_rng(1), NEVER)
    mirrored = single(item, 48, config, np.random.default_rng(1), mirror)
    assert np.array_equal(mirrored.image, plain.image[:, ::-1])
    assert mirrored.boxes.tolist() == [[48 - x2, y1, 48 - x1, y2] for x1, y1, x2, y2 in plain.boxes.tolist()]


def test_colour_gains_are_uniform_about_one():
    config = PRESETS["low"]
    gains = np.array([hsv_gains(config, np.random.default_rng(seed)) for seed in range(4000)])
    reach = np.array([0.015, 0.7, 0.4])
    assert gains.min(0) == pytest.approx(1 - reach, abs=0.002)
    assert gains.max(0) == pytest.approx(1 + reach, abs=0.002)
    assert gains.mean(0) == pytest.approx([1, 1, 1], abs=0.02)
    assert gains.std(0) == pytest.approx(reach / np.sqrt(3), rel=0.05)


@given(seed=st.integers(0, 2**32))
def test_colour_follows_the_definition_of_hsv(seed):
    rng = np.random.default_rng(seed)
    pixel = rng.integers(30, 226, 3, np.uint8)
    gains = hsv_gains(AugmentConfig(hsv_h=0.3, hsv_s=0.7, hsv_v=0.4), rng)
    hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
    assume(0.005 < hue < 0.995)  # where hue goes round, a factor tears it apart
    expected = colorsys.hsv_to_rgb(hue * gains[0] % 1.0, min(saturation * gains[1], 1.0), min(value * gains[2], 1.0))
    got = hsv(np.tile(pixel, (4, 4, 1)), *gains)[0, 0] / 255
    assert got == pytest.approx(expected, abs=0.04)  # hue has 180 steps, of which 1.2 may be lost


def test_no_colour_gain_gives_back_the_same_pixels():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert np.array_equal(hsv(image, 1.0, 1.0, 1.0), image)


def test_mixup_blends_pixels_and_keeps_both_sets_of_labels():
    a, b = (disc_scene(np.random.default_rng(seed), 40, count=2) for seed in (1, 2))
    a, b = (single(item, 40, AugmentConfig(), np.random.default_rng(0), NEVER) for item in (a, b))
    made = mixup(a, b, 0.25)
    assert np.abs(made.image - (0.25 * a.image + 0.75 * b.image)).max() <= 0.5
    assert made.boxes.tolist() == a.boxes.tolist() + b.boxes.tolist()
    assert made.class_ids.tolist() == [0, 1, 0, 1]


def test_mixup_comes_as_often_as_asked_and_only_with_a_mosaic():
    read = reader(5, 32)
    plain = replace(PRESETS["none"], mosaic=1.0)
    reads = []

    def counted(row):
        reads.append(row)
        return read(row)

    for config, expected in ((replace(plain, mixup=0.3), 4 * 1.3), (replace(plain, mosaic=0.0, mixup=0.3), 1.0)):
        reads.clear()
        for seed in range(400):
            training_image(counted, 5, 0, 32, config, np.random.default_rng(seed))
        assert len(reads) / 400 == pytest.approx(expected, abs=0.3 * config.mosaic)


def pasted_scene():
    image = np.zeros((40, 100, 3), np.uint8)
    image[10:30, 10:30] = 200
    outline = (np.float32([[10, 10], [30, 10], [30, 30], [10, 30]]),)
    return Labelled(image, np.float32([[10, 10, 30, 30]]), np.array([7]), (outline,))


def test_copy_paste_puts_the_mirrored_object_on_the_other_side():
    item = pasted_scene()
    made = copy_paste(item, 1.0, np.random.default_rng(0))
    assert made.boxes.tolist() == [[10, 10, 30, 30], [70, 10, 90, 30]]
    assert made.class_ids.tolist() == [7, 7]
    assert np.array_equal(boxes_around(made.outlines), made.boxes)
    expected = item.image | item.image[:, ::-1]
    assert np.abs(made.image.astype(int) - expected).max() == 0
    assert item.image[20, 80, 0] == 0


@pytest.mark.parametrize(("x1", "pasted"), [(55.8, True), (56.2, False), (62.0, False)])
def test_copy_paste_hides_less_than_thirty_percent_of_another(x1, pasted):
    """The object's mirror spans 70..90; of another, 20 wide from `x1`, it would hide 29 %, 31 % and 60 %."""
    item = pasted_scene()
    boxes = np.float32([[10, 10, 30, 30], [x1, 10, x1 + 20, 30]])
    outlines = (*item.outlines, (np.float32([[x1, 10], [x1 + 20, 10], [x1 + 20, 30], [x1, 30]]),))
    made = copy_paste(Labelled(item.image, boxes, np.array([7, 8]), outlines), 1.0, np.random.default_rng(0))
    assert (made.class_ids.tolist().count(7) == 2) == pasted


def test_copy_paste_without_outlines_changes_nothing():
    item = replace(pasted_scene(), outlines=None)
    assert copy_paste(item, 1.0, np.random.default_rng(0)) is item


def test_closing_leaves_whole_images_and_keeps_the_rest():
    assert PRESETS["high"].closing() == replace(PRESETS["high"], mosaic=0.0, mixup=0.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_one_image_without_any_object_is_enough(preset):
    empty = Labelled(np.full((20, 64, 3), 9, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), ())
    made = training_image(lambda _: empty, 1, 0, 64, PRESETS[preset], np.random.default_rng(0))
    assert made.image.shape == (64, 64, 3)
    assert made.boxes.shape == (0, 4)
    assert made.outlines == ()
