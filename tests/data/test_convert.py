"""Converting: labels come back within the stated tolerance, losses are counted, and nothing is ever overwritten."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlepton.data.convert import convert_dataset
from openlepton.data.datasets import open_dataset
from openlepton.errors import DataEmpty, OutputError, UsageError

TOLERANCE_PX = {"yolo": 0.001, "coco": 0.0001, "voc": 0.001}
"""What one conversion may move a corner, in images up to 1,000 pixels: the last decimal of each layout."""


def paint(path, height=20, width=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((height, width, 3), 90, np.uint8))[1].tobytes())


def files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


fractions = st.floats(0, 1)
boxes = st.tuples(fractions, fractions, fractions, fractions).map(
    lambda f: (min(f[0], f[2]), min(f[1], f[3]), max(f[0], f[2]), max(f[1], f[3]))
)
rows = st.tuples(st.integers(0, 2), boxes.filter(lambda box: box[2] - box[0] > 0.001 and box[3] - box[1] > 0.001))
images = st.tuples(st.integers(10, 1000), st.integers(10, 1000), st.lists(rows, max_size=5))


def write_yolo(root, pictures):
    shutil.rmtree(root, ignore_errors=True)
    for number, (height, width, labels) in enumerate(pictures):
        split = "train" if number % 2 == 0 else "val"
        paint(root / "images" / split / f"图 {number}.png", height, width)
        (root / "labels" / split).mkdir(parents=True, exist_ok=True)
        lines = (
            f"{row} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}"
            for row, (x1, y1, x2, y2) in labels
        )
        (root / "labels" / split / f"图 {number}.txt").write_text("\n".join(lines))
    (root / "classes.txt").write_text("b\na\n中 文\n", "utf-8")


def content(dataset):
    """Return by split and image: size, class ids and boxes."""
    return {
        (split.name, sample.image.stem): (sample.size_hw, sample.objects.class_ids.tolist(), sample.objects.boxes)
        for split in dataset.splits.values()
        for sample in split
    }


@settings(max_examples=25)
@given(st.lists(images, min_size=1, max_size=4), st.permutations(["coco", "voc", "yolo"]), st.sampled_from([0, 1]))
def test_any_way_around_comes_back_within_the_tolerance(tmp_path_factory, pictures, way, first):
    root = tmp_path_factory.mktemp("set")
    write_yolo(root / "start", pictures)
    at = root / "start"
    before = content(open_dataset(at))
    for number, to in enumerate([*way, "yolo"]):
        report = convert_dataset(open_dataset(at, voc_first_pixel=first), root / str(number), to, voc_first_pixel=first)
        assert report.images_left_out == report.boxes_left_out == report.flagged_left_out == report.images_renamed == 0
        at = root / str(number)
        after = open_dataset(at, voc_first_pixel=first)
        assert after.layout == to
        assert after.classes == ("b", "a", "中 文")
    tolerance = sum(TOLERANCE_PX[to] for to in [*way, "yolo"])
    assert content(after).keys() == before.keys()
    for key, (size_hw, class_ids, found) in content(after).items():
        assert size_hw == before[key][0]
        assert class_ids == before[key][1]
        height, width = size_hw
        assert found == pytest.approx(np.clip(before[key][2], 0, [width, height, width, height]), abs=tolerance)


@pytest.fixture
def rich(tmp_path):
    """A COCO data set with everything that other layouts cannot say."""
    root = tmp_path / "rich"
    for name in ("train/a.png", "train/sub/a.png", "train/A.jpg"):
        paint(root / name)
    names = ("a.png", "sub/a.png", "A.jpg")
    crowd = {"bbox": [0, 0, 10, 10], "iscrowd": 1, "segmentation": {"size": [20, 40], "counts": [0, 10, 790]}}
    ignored = {"bbox": [0, 0, 10, 10], "ignore": 1}
    reaching = {"bbox": [30, 10, 20, 5], "segmentation": [[30, 10, 50, 10, 50, 15]]}
    outside = {"bbox": [50, 10, 20, 5]}
    parts = {"bbox": [2, 2, 8, 9], "segmentation": [[2, 2, 5, 2, 5, 11, 2, 11], [7, 2, 10, 2, 10, 11, 7, 11]]}
    owners = {1: (crowd, ignored), 2: (reaching, outside), 3: (parts,)}
    each = [{"image_id": owner, "category_id": 1, **one} for owner, several in owners.items() for one in several]
    facts = {
        "images": [
            {"id": number, "file_name": name, "width": 40, "height": 20} for number, name in enumerate(names, 1)
        ],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"id": number, **one} for number, one in enumerate(each, 1)],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_text(json.dumps(facts))
    return root


def test_what_yolo_text_cannot_say_is_left_out_and_counted(rich, tmp_path):
    report = convert_dataset(open_dataset(rich), tmp_path / "out", "yolo")
    assert (report.flagged_left_out, report.outlines_left_out) == (2, 2)
    assert (report.boxes_clipped, report.boxes_left_out, report.objects) == (1, 1, 2)
    assert report.images == {"train": 3}
    train = open_dataset(tmp_path / "out")["train"]
    assert [sample.objects.boxes.round(3).tolist() for sample in train] == [[], [[30, 10, 40, 15]], [[2, 2, 10, 11]]]


def test_flagged_objects_are_kept_when_asked(rich, tmp_path):
    report = convert_dataset(open_dataset(rich), tmp_path / "out", "yolo", keep_flagged=True)
    assert (report.flagged_left_out, report.objects) == (0, 4)
    assert open_dataset(tmp_path / "out")["train"].annotation(0).problems[0].kind == "row-duplicate"


def test_outlines_are_written_when_asked_and_parts_are_joined(rich, tmp_path):
    report = convert_dataset(open_dataset(rich), tmp_path / "out", "yolo", outlines=True)
    assert report.outlines_left_out == 0
    objects = open_dataset(tmp_path / "out")["train"][2].objects
    assert objects.areas == pytest.approx([54], abs=0.01)
    assert objects.boxes[0] == pytest.approx([2, 2, 10, 11], abs=0.001)
    assert len(objects.shapes[0]) == 1


def test_voc_says_crowds_are_difficult_and_coco_says_difficult_is_ignored(rich, tmp_path):
    report = convert_dataset(open_dataset(rich), tmp_path / "voc", "voc")
    assert (report.outlines_left_out, report.objects) == (3, 5)
    voc = open_dataset(tmp_path / "voc")
    assert voc["train"][0].objects.difficult.tolist() == [True, True]
    convert_dataset(voc, tmp_path / "coco", "coco")
    assert open_dataset(tmp_path / "coco")["train"][0].objects.difficult.tolist() == [True, True]


def test_images_keep_their_bytes_and_get_names_of_their_own(rich, tmp_path):
    report = convert_dataset(open_dataset(rich), tmp_path / "out", "voc")
    written = {path.name: path.read_bytes() for path in (tmp_path / "out" / "JPEGImages").iterdir()}
    assert sorted(written) == ["A_3.jpg", "a.png", "a_2.png"]
    assert report.images_renamed == 2
    assert written["A_3.jpg"] == (rich / "train" / "A.jpg").read_bytes()


def test_linked_images_are_the_same_file(rich, tmp_path):
    convert_dataset(open_dataset(rich), tmp_path / "out", "yolo", images="link")
    assert (tmp_path / "out" / "images" / "train" / "a.png").samefile(rich / "train" / "a.png")


@pytest.mark.parametrize("to", ["yolo", "coco", "voc"])
def test_converting_leaves_the_source_as_it_was(rich, tmp_path, to):
    before = files(rich)
    convert_dataset(open_dataset(rich), tmp_path / "out", to)
    assert files(rich) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rich"]


def test_nothing_is_overwritten(rich, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="something already"):
        convert_dataset(open_dataset(rich), tmp_path / "out", "yolo")
    with pytest.raises(OutputError, match="something already"):
        convert_dataset(open_dataset(rich), tmp_path / "out" / "mine.txt", "yolo")
    assert files(tmp_path / "out") == {"mine.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    assert convert_dataset(open_dataset(rich), tmp_path / "empty", "yolo").objects == 2


def test_a_failure_leaves_nothing_behind(rich, tmp_path):
    def fail(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_dataset(open_dataset(rich), tmp_path / "out", "coco", progress=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["rich"]


def test_images_that_cannot_be_used_are_left_out_and_said(rich, tmp_path):
    (rich / "train" / "a.png").write_bytes(b"no image")
    (rich / "train" / "A.jpg").unlink()
    report = convert_dataset(open_dataset(rich), tmp_path / "out", "coco")
    assert (report.images, report.images_left_out) == ({"train": 1}, 2)
    assert [problem.kind for problem in report.problems if problem.kind.startswith("image")] == [
        "image-unreadable",
        "image-missing",
    ]
    (rich / "train" / "sub" / "a.png").unlink()
    with pytest.raises(DataEmpty, match="no image can be used"):
        convert_dataset(open_dataset(rich), tmp_path / "none", "coco")
    assert not (tmp_path / "none").exists()


def test_the_size_is_that_of_the_image_not_of_the_label(rich, tmp_path):
    paint(rich / "train" / "sub" / "a.png", 40, 80)
    convert_dataset(open_dataset(rich), tmp_path / "out", "yolo")
    assert (tmp_path / "out" / "labels" / "train" / "a_2.txt").read_text() == (
        "0 0.500000 0.312500 0.250000 0.125000\n0 0.750000 0.312500 0.250000 0.125000\n"
    )


def test_a_yolo_set_also_describes_itself_in_yaml(rich, tmp_path):
    dataset = replace(open_dataset(rich), classes=('say "no": 中',))
    convert_dataset(dataset, tmp_path / "out", "yolo")
    again = open_dataset(tmp_path / "out" / "data.yaml")
    assert again.classes == ('say "no": 中',)
    assert len(again["train"]) == 3


def test_masks_become_runs_in_coco_and_outlines_in_yolo(tmp_path):
    root = tmp_path / "cells"
    paint(root / "images" / "a.png")
    ids = np.zeros((20, 40), np.uint8)
    ids[2:5, 3:9] = 1
    (root / "masks").mkdir()
    cv2.imwrite(str(root / "masks" / "a.png"), ids)
    dataset = open_dataset(root)
    convert_dataset(dataset, tmp_path / "coco", "coco")
    assert (open_dataset(tmp_path / "coco")["all"][0].objects.shapes[0].mask() == ids).all()
    convert_dataset(dataset, tmp_path / "yolo", "yolo", outlines=True)
    objects = open_dataset(tmp_path / "yolo")["all"][0].objects
    assert objects.boxes[0] == pytest.approx([3, 2, 9, 5], abs=1e-4)
    assert objects.areas == pytest.approx([18], abs=1e-3)


def test_class_folders_and_unknown_layouts_are_refused(rich, tmp_path):
    paint(tmp_path / "classes" / "cat" / "a.png")
    with pytest.raises(UsageError, match="no boxes"):
        convert_dataset(open_dataset(tmp_path / "classes"), tmp_path / "out", "yolo")
    with pytest.raises(UsageError, match="expected yolo, coco or voc"):
        convert_dataset(open_dataset(rich), tmp_path / "out", "tfrecord")
    with pytest.raises(UsageError, match="copy or link"):
        convert_dataset(open_dataset(rich), tmp_path / "out", "yolo", images="move")
    assert not (tmp_path / "out").exists()
