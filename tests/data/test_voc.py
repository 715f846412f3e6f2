"""Pascal VOC XML: its coordinates, its flags, and files that mean harm."""

import cv2
import numpy as np
import pytest

from openlepton.data.datasets import open_dataset
from openlepton.data.voc import parse_xml
from openlepton.errors import DataInvalid


def paint(path, height=20, width=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((height, width, 3), 90, np.uint8))[1].tobytes())


def xml(*objects, size="<size><width>40</width><height>20</height><depth>3</depth></size>"):
    return f"<annotation>\n<filename>other.jpg</filename>\n{size}\n" + "\n".join(objects) + "\n</annotation>"


def thing(name="cat", box=(1, 1, 10, 20), more=""):
    corners = "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


@pytest.fixture
def root(tmp_path):
    for name in ("2007_01", "v1.2", "空 白"):
        paint(tmp_path / "JPEGImages" / f"{name}.jpg")
    labels = tmp_path / "Annotations"
    labels.mkdir()
    (labels / "2007_01.xml").write_text(xml(thing(), thing("dog", (2.5, 3, 40, 20))), "utf-8")
    (labels / "v1.2.xml").write_text(xml(), "utf-8")
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_01\nv1.2\n", "utf-8")
    (lists / "val.txt").write_text("空 白\n", "utf-8")
    (lists / "cat_train.txt").write_text("2007_01 -1\n", "utf-8")
    return tmp_path


def kinds(problems):
    return [(problem.kind, problem.line) for problem in problems]


def test_the_standard_layout_has_splits_classes_and_pixels_from_one(root):
    dataset = open_dataset(root)
    assert dataset.layout == "voc"
    assert dataset.classes == ("cat", "dog")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 2, "val": 1}
    sample = dataset["train"][0]
    assert sample.image == root / "JPEGImages" / "2007_01.jpg"
    assert sample.size_hw == (20, 40)
    assert sample.objects.boxes.tolist() == [[0, 0, 10, 20], [1.5, 2, 40, 20]]
    assert dataset["train"].image(1).name == "v1.2.jpg"
    assert dataset["train"].annotation(1).problems == ()


def test_pixels_may_be_counted_from_zero(root):
    boxes = open_dataset(root, voc_first_pixel=0)["train"][0].objects.boxes
    assert boxes.tolist() == [[1, 1, 10, 20], [2.5, 3, 40, 20]]


def test_no_file_is_a_background_that_is_reported(root):
    found = open_dataset(root)["val"].annotation(0)
    assert len(found.objects) == 0
    assert kinds(found.problems) == [("label-missing", None)]
    assert open_dataset(root)["val"][0].size_hw == (20, 40)


def test_flags_are_kept_and_parts_of_objects_are_not_objects(root):
    parts = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    hard = thing(more="<difficult>1</difficult><truncated>0</truncated>" + parts)
    cut = thing(more="<pose>Left</pose><difficult>0</difficult><truncated>1</truncated>")
    (root / "Annotations" / "2007_01.xml").write_text(
        xml(hard, cut, thing(more="<truncated>Unspecified</truncated>")), "utf-8"
    )
    objects = open_dataset(root)["train"][0].objects
    assert objects.boxes.tolist() == [[0, 0, 10, 20]] * 3
    assert objects.difficult.tolist() == [True, False, False]
    assert objects.truncated.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (thing(box=("a", 1, 2, 3)), "row-malformed"),
        (thing(box=("nan", 1, 2, 3)), "row-malformed"),
        (thing(box=("1e999", 1, 2, 3)), "row-malformed"),
        (thing(box=(1, 1, 2, "")), "row-malformed"),
        ("<object><name>cat</name></object>", "row-malformed"),
        (thing(box=(10, 1, 9, 20)), "box-degenerate"),
        (thing(name="cow"), "class-unknown"),
        ("<object></object>", "class-unknown"),
    ],
)
def test_an_object_that_cannot_be_used_is_left_out_and_named_by_its_line(root, bad, kind):
    (root / "classes.txt").write_text("cat\ndog\n", "utf-8")
    (root / "Annotations" / "2007_01.xml").write_text(xml(thing(), bad, thing("dog")), "utf-8")
    found = open_dataset(root)["train"].annotation(0)
    assert found.objects.class_ids.tolist() == [0, 1]
    assert kinds(found.problems) == [(kind, 5)]


def test_a_box_outside_is_kept_and_reported_when_it_is_more_than_a_pixel(root):
    boxes = [thing(box=(0, 0, 41, 21)), thing(box=(-1, 1, 5, 5))]
    (root / "Annotations" / "2007_01.xml").write_text(xml(*boxes), "utf-8")
    found = open_dataset(root)["train"].annotation(0)
    assert found.objects.boxes.tolist() == [[-1, -1, 41, 21], [-2, 0, 5, 5]]
    assert kinds(found.problems) == [("box-outside", 5)]


@pytest.mark.parametrize(
    "size", ["", "<size><width>0</width><height>0</height></size>", "<size><width>wide</width></size>"]
)
def test_a_size_that_is_not_said_is_read_from_the_image(root, size):
    (root / "Annotations" / "2007_01.xml").write_text(xml(thing(), size=size), "utf-8")
    assert open_dataset(root)["train"][0].size_hw == (20, 40)


def test_files_may_lie_beside_their_images(tmp_path):
    for split in ("train", "valid"):
        paint(tmp_path / split / "a.png")
        (tmp_path / split / "a.xml").write_text(xml(thing(split)), "utf-8")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "voc"
    assert dataset.classes == ("train", "valid")
    assert [split[0].objects.class_ids.tolist() for split in dataset.splits.values()] == [[0], [1]]


def test_lower_case_folders_without_lists_are_one_split(tmp_path):
    paint(tmp_path / "images" / "a.png")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.xml").write_text("\ufeff" + xml(thing("交通灯")), "utf-8")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("交通灯",)
    assert dataset["all"][0].objects.boxes.tolist() == [[0, 0, 10, 20]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>',
            "DOCTYPE",
        ),
        ('<!DOCTYPE a [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>', "DOCTYPE"),
        ('<!DOCTYPE a SYSTEM "http://localhost/a.dtd"><annotation/>', "DOCTYPE"),
        ("<annotation><filename>&x;</filename></annotation>", "not XML"),
        ("<annotation>" + "<a>" * 100, "nested more than 32"),
        ("<annotation><object></annotation>", "not XML"),
        ("<html><body>404</body></html>", "not a Pascal VOC"),
        ("", "not XML"),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "not XML"),
        ("\x00" * 10, "not XML"),
    ],
)
def test_a_file_that_is_harmful_or_no_annotation_is_refused(data, message):
    with pytest.raises(DataInvalid, match=message):
        parse_xml(data.encode())


def test_a_refused_file_is_reported_and_its_image_is_no_background(root):
    (root / "classes.txt").write_text("cat\n", "utf-8")
    (root / "Annotations" / "2007_01.xml").write_text("<!DOCTYPE x><annotation/>", "utf-8")
    found = open_dataset(root)["train"].annotation(0)
    assert kinds(found.problems) == [("label-unreadable", None)]
    assert "refused" in str(found.problems[0])


def test_names_in_an_annotation_lead_nowhere(root):
    (root / "Annotations" / "2007_01.xml").write_text(xml(thing()).replace("other.jpg", "../../../etc/passwd"), "utf-8")
    assert open_dataset(root)["train"].image(0) == root / "JPEGImages" / "2007_01.jpg"
