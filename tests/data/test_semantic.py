"""Class maps: as they lie on the disk, made of instances, and moved along with their images."""

import numpy as np
import pytest
from PIL import Image as Pillow

from openlepton.arrays import UNKNOWN
from openlepton.data.augment import AugmentConfig
from openlepton.data.datasets import open_dataset
from openlepton.data.loader import training_batches
from openlepton.data.reader import Reader
from openlepton.data.semantic import as_semantic, with_boundaries
from openlepton.data.survey import survey
from openlepton.data.warp import Labelled, Tile, compose
from openlepton.errors import DataInvalid
from openlepton.images import write_image

GREYS = np.array([40, 120, 200], np.uint8)
"""How the pictures of these tests show class 0, 1 and 2."""


def picture(class_map):
    """An image in which every pixel says its class."""
    return np.repeat(GREYS[np.minimum(class_map, 2)][..., None], 3, axis=2)


@pytest.fixture
def folder(tmp_path):
    """Three images of blocks, with class ids in grey, with a palette, and with a class that there is none."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    (tmp_path / "classes.txt").write_text("road\ncar\nsky\n", "utf-8")
    rng = np.random.default_rng(0)
    for name in "abc":
        ids = np.kron(rng.integers(0, 3, (6, 8)), np.ones((10, 10))).astype(np.uint8)
        write_image(tmp_path / "images" / f"{name}.png", picture(ids))
        ids[:5] = UNKNOWN
        if name == "c":
            ids[-1] = 7
        mask = Pillow.fromarray(ids, "P" if name == "b" else "L")
        if name == "b":
            mask.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
        mask.save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "train.txt").write_text("images/a.png\nimages/b.png\nimages/c.png\n", "utf-8")
    return tmp_path


def test_class_ids_are_read_from_grey_and_from_palettes_alike(folder):
    dataset = open_dataset(folder)
    assert (dataset.layout, dataset.classes) == ("semantic", ("road", "car", "sky"))
    for sample in dataset["train"]:
        shown = np.asarray(Pillow.open(sample.image))[..., 0]
        known = sample.class_map != UNKNOWN
        assert sample.class_map.dtype == np.uint8
        assert not known[:5].any()
        assert known[5:-1].all()
        np.testing.assert_array_equal(GREYS[sample.class_map[known]], shown[known])


def test_values_of_no_class_are_reported_and_not_known(folder):
    found = open_dataset(folder)["train"].annotation(2)
    assert [problem.kind for problem in found.problems] == ["class-unknown"]
    assert "80 pixels of class 7, there are 3 classes" in found.problems[0].message
    assert (found.class_map[-1] == UNKNOWN).all()


def test_an_image_without_a_class_map_is_left_out_and_said_so(folder):
    (folder / "masks" / "a.png").unlink()
    found = survey(open_dataset(folder)["train"])
    assert found.usable.tolist() == [1, 2]
    assert found.class_counts.tolist() == [2, 2, 2]
    assert next((problem.kind, problem.file.name) for problem in found.problems) == ("label-unreadable", "a.png")


def test_a_data_set_of_boxes_is_not_taken_for_one_of_pixels(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    (tmp_path / "classes.txt").write_text("a\n")
    write_image(tmp_path / "images" / "a.png", np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(DataInvalid, match="yolo layout does not say a class for each pixel"):
        as_semantic(open_dataset(tmp_path))


def test_instances_become_background_object_and_boundary(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    (tmp_path / "classes.txt").write_text("nucleus\n", "utf-8")
    ids = np.zeros((20, 30), np.uint16)
    ids[5:15, 5:15], ids[5:15, 15:25] = 300, 7
    Pillow.fromarray(ids).save(tmp_path / "masks" / "a.png")
    write_image(tmp_path / "images" / "a.png", picture(ids > 0))
    dataset = as_semantic(open_dataset(tmp_path))
    assert dataset.classes == ("background", "nucleus", "boundary")
    wanted = np.zeros((20, 30), np.uint8)
    wanted[5:15, 5:25] = 2
    wanted[6:14, 6:14] = wanted[6:14, 16:24] = 1
    np.testing.assert_array_equal(dataset["all"][0].class_map, wanted)


@pytest.mark.parametrize(("side", "width"), [(100, 1), (256, 2), (383, 3), (1024, 8)])
def test_boundaries_are_as_wide_as_the_image_is_large(side, width):
    ids = np.zeros((side, side), np.int32)
    ids[:, side // 2 :] = 70_000
    row = with_boundaries(ids)[side // 2]
    assert (row == 2).sum() == width
    assert row[side // 2 - 1] == 0
    assert row[-1] == 1  # the image's border is no edge


def test_class_maps_stay_with_their_pixels_through_mosaic_flips_and_rotation(folder):
    """Every pixel of the picture says its class; after any map it still does, but where two classes were blended."""
    reader = Reader(open_dataset(folder)["train"], 64)
    wild = AugmentConfig(degrees=30, scale=0.3, translate=0.2, fliplr=0.5, flipud=0.5, mosaic=0.5, perspective=0.0005)
    for epoch in range(4):
        batch = next(training_batches(reader, epoch, batch_size=3, config=wild, workers=0))
        assert batch.class_maps.shape == (3, 64, 64)
        for image, class_map in zip(batch.images, batch.class_maps, strict=True):
            known = class_map != UNKNOWN
            away = np.abs(image[0].astype(int) - GREYS[np.minimum(class_map, 2)].astype(int))
            assert known.mean() > 0.3
            assert (away[known] < 45).mean() > 0.95  # one pixel off would be 0.85


def test_where_no_tile_is_the_class_is_not_known():
    item = Labelled(np.zeros((10, 10, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    with_map = Labelled(item.image, item.boxes, item.class_ids, class_map=np.ones((10, 10), np.uint8))
    made = compose([Tile(with_map, 0, 0), Tile(item, 10, 0)], (20, 20), np.eye(3), (20, 20))
    wanted = np.full((20, 20), UNKNOWN)
    wanted[:10, :10] = 1
    np.testing.assert_array_equal(made.class_map, wanted)


def test_a_class_map_of_another_size_sets_its_image_aside(folder):
    Pillow.fromarray(np.zeros((60, 40), np.uint8)).save(folder / "masks" / "a.png")
    told = []
    reader = Reader(open_dataset(folder)["train"], 64, report=told.append)
    reader(0)
    assert str(told[0]).endswith("a.png: has 80x60 pixels, its class map 40x60")


def test_a_letterboxed_class_map_is_not_known_in_the_padding(folder):
    seen, frame = Reader(open_dataset(folder)["train"], 64).letterboxed(0, multiple=32, square=True)
    assert seen.class_map.shape == (64, 64)
    assert (seen.class_map[:8] == UNKNOWN).all()
    assert (seen.class_map[-8:] == UNKNOWN).all()
    known = seen.class_map != UNKNOWN
    assert frame.pad_xy == (0, 8)
    assert (np.abs(seen.image[..., 0][known].astype(int) - GREYS[seen.class_map[known]]) < 45).mean() > 0.95
