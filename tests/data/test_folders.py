"""Data sets that are nothing but folders: classes of whole images, and masks of instance ids."""

import cv2
import numpy as np
import pytest

from openlepton.data.datasets import open_dataset
from openlepton.data.survey import survey
from openlepton.errors import DataEmpty, DataInvalid


def paint(path, pixels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((20, 40, 3), 90, np.uint8) if pixels is None else pixels
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp", ".tiff"])
def test_folders_of_splits_and_classes_give_a_class_for_each_image(tmp_path, suffix):
    for name in ("train/狗/a", "train/cat/b", "train/cat/deep/c", "val/cat/d", "val/狗 犬/e"):
        paint(tmp_path / (name + suffix))
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "classes"
    assert dataset.classes == ("cat", "狗", "狗 犬")
    found = [(split.name, sample.image.stem, sample.class_id) for split in dataset.splits.values() for sample in split]
    assert found == [("train", "b", 0), ("train", "c", 0), ("train", "a", 1), ("val", "d", 0), ("val", "e", 2)]
    assert survey(dataset["train"]).class_counts.tolist() == [2, 1, 0]


def test_class_folders_without_splits_are_one(tmp_path):
    for name in ("b/1.png", "a/2.png", "loose.png"):
        paint(tmp_path / name)
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("a", "b")
    assert [sample.class_id for sample in dataset["all"]] == [0, 1]


def test_folders_without_images_are_no_data_set(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataInvalid):
        open_dataset(tmp_path)
    with pytest.raises(DataEmpty):
        open_dataset(tmp_path, layout="classes")


@pytest.fixture
def masks(tmp_path):
    for name in ("a", "b", "c"):
        paint(tmp_path / "images" / f"{name}.png")
    ids = np.zeros((20, 40), np.uint16)
    ids[2:5, 3:9], ids[10:20, 30:40], ids[3, 8] = 300, 7, 7
    paint(tmp_path / "masks" / "a.png", ids)
    paint(tmp_path / "masks" / "b.png", np.zeros((20, 40), np.uint8))
    (tmp_path / "train.txt").write_text("images/a.png\nimages/b.png\n")
    (tmp_path / "val.txt").write_text("images/c.png\n")
    return tmp_path


def test_instance_ids_become_boxes_masks_and_areas(masks):
    dataset = open_dataset(masks)
    assert (dataset.layout, dataset.classes) == ("masks", ("object",))
    objects = dataset["train"][0].objects
    assert objects.ids.tolist() == [7, 300]
    assert objects.boxes.tolist() == [[8, 3, 40, 20], [3, 2, 9, 5]]
    assert objects.areas.tolist() == [101, 17]
    assert objects.shapes[1].mask().sum() == 17
    assert dataset["train"][0].size_hw == (20, 40)


def test_an_empty_or_missing_mask_is_a_background_and_missing_is_reported(masks):
    dataset = open_dataset(masks)
    assert len(dataset["train"][1].objects) == 0
    assert dataset["train"].annotation(1).problems == ()
    assert [problem.kind for problem in dataset["val"].annotation(0).problems] == ["label-missing"]


@pytest.mark.parametrize("bad", [b"", b"not a picture", "colour"])
def test_a_mask_that_holds_no_ids_is_reported(masks, bad):
    if bad == "colour":
        paint(masks / "masks" / "a.png")
    else:
        (masks / "masks" / "a.png").write_bytes(bad)
    found = open_dataset(masks)["train"].annotation(0)
    assert [problem.kind for problem in found.problems] == ["label-unreadable"]
    assert len(found.objects) == 0


def test_the_class_of_masks_is_what_the_list_says(masks):
    (masks / "classes.txt").write_text("核\n", "utf-8")
    assert open_dataset(masks).classes == ("核",)
    (masks / "classes.txt").write_text("a\nb\n")
    with pytest.raises(DataInvalid, match="tell one class, not 2"):
        open_dataset(masks, layout="masks")


def test_masks_without_lists_are_one_split(masks):
    (masks / "train.txt").unlink()
    (masks / "val.txt").unlink()
    assert len(open_dataset(masks)["all"]) == 3
