"""Random crops for classifiers."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openlepton.data.crops import CROPS, CropConfig, blend, classified_image, random_crop
from openlepton.data.folders import open_classes
from openlepton.data.loader import training_batches
from openlepton.data.reader import Reader
from openlepton.data.warp import Labelled
from openlepton.errors import UsageError
from openlepton.images import write_image

PLAIN = {"hsv_s": 0, "hsv_v": 0}


def whole(image, class_id=3):
    height, width = image.shape[:2]
    return lambda index: Labelled(image, np.float32([[0, 0, width, height]]), np.array([class_id]))


@given(seed=st.integers(0, 2**32), width=st.integers(1, 300), height=st.integers(1, 300))
def test_a_crop_lies_in_the_image(seed, width, height):
    x1, y1, x2, y2 = random_crop(width, height, CropConfig(), np.random.default_rng(seed))
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height


def test_crops_cover_the_areas_and_shapes_they_say():
    rng = np.random.default_rng(0)
    made = np.array([random_crop(400, 400, CropConfig(min_area=0.25), rng) for _ in range(4000)])
    width, height = made[:, 2] - made[:, 0], made[:, 3] - made[:, 1]
    area, aspect = width * height / 160_000, width / height
    assert (area.min(), aspect.min(), aspect.max()) == pytest.approx((0.25, 3 / 4, 4 / 3), abs=0.01)
    assert np.log(aspect).mean() == pytest.approx(0, abs=0.01)
    middle = (made[:, :2] + made[:, 2:]).mean(0) / 2
    assert middle == pytest.approx([200, 200], abs=4)


def test_a_very_long_image_gives_its_middle():
    crop = random_crop(1000, 10, CropConfig(min_area=0.9), np.random.default_rng(0))
    assert crop == (493, 0, 506, 10)


def test_a_crop_of_everything_is_the_resized_image():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    config = CropConfig(size=32, min_area=1, max_aspect=1, fliplr=0, **PLAIN)
    made = classified_image(whole(image), 0, config, np.random.default_rng(0))
    assert np.array_equal(made.image, cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA))
    assert (made.boxes.tolist(), made.class_ids.tolist()) == ([[0, 0, 32, 32]], [3])
    flipped = classified_image(
        whole(image), 0, CropConfig(size=32, min_area=1, max_aspect=1, fliplr=1, **PLAIN), np.random.default_rng(0)
    )
    assert np.array_equal(flipped.image, made.image[:, ::-1])


def test_class_folders_become_batches_with_one_class_an_image(tmp_path):
    for label, grey in (("cat", 40), ("dog", 200)):
        folder = tmp_path / "train" / label
        folder.mkdir(parents=True)
        for row in range(3):
            image = np.full((50 + row, 70, 3), grey, np.uint8)
            (folder / f"{row}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    split = open_classes(tmp_path)["train"]
    runs = [
        list(
            training_batches(Reader(split, 64), 0, batch_size=4, config=CropConfig(size=32, hsv_v=0.1), workers=workers)
        )
        for workers in (1, 2)
    ]
    assert [batch.images.shape for batch in runs[0]] == [(4, 3, 32, 32), (2, 3, 32, 32)]
    for one, two in zip(*runs, strict=True):
        assert np.array_equal(one.images, two.images)
        assert one.rows.tolist() == list(range(len(one.images)))
        assert (one.images.mean((1, 2, 3)) > 100).tolist() == [split.classes[row] == "dog" for row in one.class_ids]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_area": 0}, "min_area"),
        ({"max_aspect": 0.5}, "max_aspect"),
        ({"size": 0}, "size"),
        ({"hsv_s": 2}, "hsv_s"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        CropConfig(**wrong)


def test_none_shows_the_central_square_every_time_and_the_others_do_not():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    none = replace(CROPS["none"], size=40)
    assert none.fixed
    for seed in range(3):
        made = classified_image(whole(image), 0, none, np.random.default_rng(seed))
        np.testing.assert_array_equal(made.image, image[:, 10:50])
    assert not any(CROPS[name].fixed for name in ("low", "medium", "high"))
    assert CROPS["high"].closing() == CROPS["medium"]


def test_every_label_of_an_image_comes_along():
    item = Labelled(np.zeros((20, 20, 3), np.uint8), np.zeros((2, 4), np.float32), np.array([1, 5]))
    made = classified_image(lambda _: item, 0, CropConfig(16), np.random.default_rng(0))
    assert made.class_ids.tolist() == [1, 5]
    assert made.boxes.tolist() == [[0, 0, 16, 16]] * 2


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_blended_images_show_both_by_their_shares(kind):
    levels = np.array([0, 100, 200], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (3, 3, 40, 30)).copy()
    shares = []
    for seed in range(200):
        made, share = blend(images, CropConfig(**{kind: 1.0}), np.random.default_rng(seed))
        shares.append(share)
        assert made.shape == images.shape
        assert made.dtype == np.uint8
        mean = made.reshape(3, -1).mean(1)
        np.testing.assert_allclose(mean, share * levels + (1 - share) * levels[::-1].astype(float), atol=0.6)
        if kind == "cutmix":
            assert np.isin(made[0], (0, 200)).all()
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
    assert (images == levels[:, None, None, None]).all(), "what was given is left alone"


def test_with_both_each_is_taken_half_the_time():
    images = np.stack([np.zeros((3, 20, 20), np.uint8), np.full((3, 20, 20), 200, np.uint8)])
    cut = sum(
        np.isin(blend(images, CropConfig(mixup=1.0, cutmix=1.0), np.random.default_rng(seed))[0], (0, 200)).all()
        for seed in range(300)
    )
    assert 120 < cut < 180


def test_batches_of_blended_images_have_the_labels_of_both_for_any_number_of_workers(tmp_path):
    for name in "abc":
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(3):
            write_image(tmp_path / "train" / name / f"{number}.png", np.full((30, 30, 3), 60, np.uint8))
    reader = Reader(open_classes(tmp_path)["train"], 32)
    config = CropConfig(16, mixup=0.4, cutmix=1.0)
    runs = [list(training_batches(reader, 0, batch_size=4, config=config, workers=workers)) for workers in (0, 2)]
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.shares, other.shares)
        count = len(one.images)
        own, partner = one.class_ids[:count], one.class_ids[count:]
        np.testing.assert_array_equal(one.rows, [*range(count), *reversed(range(count))])
        np.testing.assert_array_equal(own, partner)  # in the order in which they came
        sums = np.zeros(count)
        np.add.at(sums, one.rows, one.shares)
        np.testing.assert_allclose(sums, 1, rtol=1e-6)
    later = next(training_batches(reader, 0, batch_size=4, config=config, workers=0, first=1))
    np.testing.assert_array_equal(later.images, runs[0][1].images)


def test_a_blend_that_makes_no_sense_is_refused():
    with pytest.raises(UsageError, match="mixup, cutmix: expected 0 or more, got -1"):
        CropConfig(mixup=-1)
    with pytest.raises(UsageError, match="mixup, cutmix: expected 0 or more, got 0.0 and nan"):
        CropConfig(cutmix=float("nan"))
