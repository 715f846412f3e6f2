"""YOLO text as people write it: every row that can be read is, every other one is named by file and line."""

import json
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openlepton.data.datasets import open_dataset
from openlepton.data.yolo import label_name, parse_rows
from openlepton.errors import DataEmpty, DataInvalid, DataNotFound, MissingExtra


def paint(path, height=20, width=40):
    """Write an image of one colour, whatever letters its path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((height, width, 3), 90, np.uint8))[1].tobytes())


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.fixture
def root(tmp_path):
    """Two images in train, one in val, with lists; the folder has a space and Chinese letters in its name."""
    root = tmp_path / "数据 集"
    for name in ("a", "b", "c d"):
        paint(root / "images" / f"{name}.png")
    write(root / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5\n1 0.25 0.5 0.5 1\n")
    write(root / "labels" / "b.txt", "")
    write(root / "labels" / "c d.txt", "1 0 0 1 0 1 1\n")
    write(root / "classes.txt", "猫\ndog\n")
    write(root / "train.txt", "images/a.png\nimages/b.png\n")
    write(root / "val.txt", "images/c d.png\n")
    return root


def kinds(problems):
    return [(problem.kind, problem.line) for problem in problems]


def parsed(text, classes=3):
    return parse_rows(text, "a.txt", classes)


def test_lists_make_splits_and_labels_become_pixels(root):
    dataset = open_dataset(root)
    assert dataset.layout == "yolo"
    assert dataset.classes == ("猫", "dog")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 2, "val": 1}
    sample = dataset["train"][0]
    assert sample.image == root / "images" / "a.png"
    assert sample.size_hw == (20, 40)
    assert sample.objects.class_ids.tolist() == [0, 1]
    assert sample.objects.boxes.tolist() == [[10, 5, 30, 15], [0, 0, 20, 20]]


def test_an_empty_label_is_a_background_and_a_missing_one_is_reported_too(root):
    (root / "labels" / "a.txt").unlink()
    missing, empty = (open_dataset(root)["train"].annotation(index) for index in (0, 1))
    assert len(missing.objects) == len(empty.objects) == 0
    assert kinds(missing.problems) == [("label-missing", None)]
    assert missing.problems[0].file == root / "labels" / "a.txt"
    assert empty.problems == ()


def test_an_outline_gives_box_polygon_and_area(root):
    objects = open_dataset(root)["val"][0].objects
    assert objects.boxes.tolist() == [[0, 0, 40, 20]]
    assert objects.shapes[0][0].tolist() == [[0, 0], [40, 0], [40, 20]]
    assert objects.areas.tolist() == [400]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("0 0.5 0.5 0.5", "row-malformed"),
        ("0 0.5 0.5 0.5 0.5 0.9", "row-malformed"),
        ("0 0 0 1 0 1 1 0", "row-malformed"),
        ("cat 0.5 0.5 0.5 0.5", "row-malformed"),
        ("0 nan 0.5 0.5 0.5", "row-malformed"),
        ("0 0.5 0.5 inf 0.5", "row-malformed"),
        ("0 0.5 1e999 0.5 0.5", "row-malformed"),
        ("0 317 240 64 80", "row-malformed"),
        ("0 0.5 -0.2 0.5 0.5", "row-malformed"),
        ("0,0.5,0.5,0.5,0.5", "row-malformed"),
        ("3 0.5 0.5 0.5 0.5", "class-unknown"),
        ("-1 0.5 0.5 0.5 0.5", "class-unknown"),
        ("0.5 0.5 0.5 0.5 0.5", "class-unknown"),
        ("0 0.5 0.5 0 0.5", "box-degenerate"),
        ("0 0.5 0.5 0.5 -0.005", "box-degenerate"),
        ("0 0.1 0.1 0.9 0.1 0.5 0.1", "box-degenerate"),
        ("1 0.5 0.5 0.25 0.25", "row-duplicate"),
        ("1.0 0.50 .5 2.5e-1 0.25", "row-duplicate"),
    ],
)
def test_a_row_that_cannot_be_used_is_left_out_and_named_by_its_line(row, kind):
    objects, problems = parsed(f"1 0.5 0.5 0.25 0.25\n\n{row}\n2 0.5 0.5 0.25 0.25\n")
    assert objects.class_ids.tolist() == [1, 2]
    assert kinds(problems) == [(kind, 3)]


def test_a_box_that_reaches_outside_is_kept_as_it_is_and_reported():
    objects, problems = parsed("0 0.1 0.5 0.4 0.2\n0 0.5 0.5 1.002 0.2")
    assert objects.boxes[0].tolist() == pytest.approx([-0.1, 0.4, 0.3, 0.6])
    assert kinds(problems) == [("box-outside", 1)]


@pytest.mark.parametrize(
    "encoded",
    [
        "1 0.5 0.5 0.25 0.25 \t\r\n0 0.5 0.5 0.5 0.5\r\n".encode("utf-8-sig"),
        "1 0.5 0.5 0.25 0.25\n0 0.5 0.5 0.5 0.5".encode("utf-16"),
        b"  1\t0.5  0.5 0.25 0.25\r0 0.5 0.5 0.5 0.5",
    ],
    ids=["BOM and CRLF", "UTF-16 of a Windows shell", "tabs and old line ends"],
)
def test_files_of_any_system_say_the_same(root, encoded):
    (root / "labels" / "a.txt").write_bytes(encoded)
    found = open_dataset(root)["train"].annotation(0)
    assert found.objects.class_ids.tolist() == [1, 0]
    assert found.problems == ()


@pytest.mark.parametrize("data", [b"\xff\xff\x00\x01", b"0 0.5 0.5\x00 0.5 0.5", "中文".encode("gbk")])
def test_a_label_that_is_not_text_is_reported_and_its_image_is_no_background(root, data):
    (root / "labels" / "a.txt").write_bytes(data)
    found = open_dataset(root)["train"].annotation(0)
    assert kinds(found.problems) == [("label-unreadable", None)]


def test_lists_of_any_system_are_read_and_say_what_is_wrong_with_them(root, tmp_path):
    paint(tmp_path / "far.png")
    lines = [
        r".\images\a.png",
        "",
        "images/a.png",
        "../far.png",
        f"{tmp_path}/far.png",
        "images/../images/b.png  ",
        "../../x",
    ]
    write(root / "train.txt", "\r\n".join(lines))
    dataset = open_dataset(root)
    assert [dataset["train"].image(index).name for index in range(3)] == ["a.png", "far.png", "b.png"]
    assert dataset["train"].image(1) == tmp_path / "far.png"
    assert kinds(dataset.problems) == [("image-listed-twice", 3), ("path-outside", 4), ("path-outside", 7)]
    assert {problem.file for problem in dataset.problems} == {root / "train.txt"}


def test_a_list_of_paths_from_another_system_names_images_that_are_missing(root):
    write(root / "train.txt", "C:\\data\\images\\a.png\n")
    assert not open_dataset(root)["train"].image(0).exists()


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.b.jpg", "labels/train/a.b.txt"),
        ("train/images/a.jpg", "train/labels/a.txt"),
        ("images/images/a.jpg", "images/labels/a.txt"),
        ("/data/images/a.jpg", "/data/labels/a.txt"),
        ("C:/images/a.jpg", "C:/labels/a.txt"),
        ("myimages/a.jpg", "myimages/a.txt"),
    ],
)
def test_the_last_folder_of_images_has_its_labels_in_labels(image, label):
    assert label_name(image) == label


def test_a_label_beside_its_image_is_found_too(root):
    (root / "labels" / "a.txt").rename(root / "images" / "a.txt")
    assert len(open_dataset(root)["train"].annotation(0).objects) == 2


@pytest.mark.parametrize("form", ["images/{}/a.png", "{}/images/a.png"])
def test_folders_make_splits_where_there_are_no_lists(tmp_path, form):
    for folder in ("train", "valid"):
        paint(tmp_path / form.format(folder))
        write((tmp_path / form.format(folder).replace("images", "labels")).with_suffix(".txt"), "0 0.5 0.5 1 1")
    write(tmp_path / "classes.txt", "x")
    dataset = open_dataset(tmp_path)
    assert [(name, len(split), len(split[0].objects)) for name, split in dataset.splits.items()] == [
        ("train", 1, 1),
        ("val", 1, 1),
    ]


def test_hidden_files_are_no_images(tmp_path):
    paint(tmp_path / "images" / "a.png")
    write(tmp_path / "images" / "._a.png", "resource fork")
    write(tmp_path / "classes.txt", "x")
    dataset = open_dataset(tmp_path)
    assert [len(split) for split in dataset.splits.values()] == [1]
    assert list(dataset.splits) == ["all"]


@pytest.mark.parametrize("names", ["[猫, no, 007]", "{0: 猫, 1: no, 2: 007}", "\n- 猫\n- no\n- '007'"])
@pytest.mark.parametrize("place", ["images/train", "train.txt", "[images/train]", "../images/train", "images\\train"])
def test_a_yaml_names_classes_and_places(tmp_path, names, place):
    paint(tmp_path / "set" / "images" / "train" / "a.png")
    write(tmp_path / "set" / "labels" / "train" / "a.txt", "2 0.5 0.5 1 1")
    write(tmp_path / "set" / "train.txt", "./images/train/a.png\n")
    write(tmp_path / "set" / "data.yaml", f"train: {place}\nval:\nnc: 3\ndownload: print(1)\nnames: {names}\n")
    dataset = open_dataset(tmp_path / "set")
    assert dataset.classes == ("猫", "no", "007")
    assert list(dataset.splits) == ["train"]
    assert dataset["train"][0].objects.class_ids.tolist() == [2]


def test_a_yaml_may_say_where_the_data_is(tmp_path):
    paint(tmp_path / "data" / "images" / "a.png")
    for path in ("../data", str(tmp_path / "data")):
        write(tmp_path / "conf" / "my.yaml", f"path: {path}\ntrain: images\nnames: [x]\n")
        dataset = open_dataset(tmp_path / "conf" / "my.yaml")
        assert dataset["train"].image(0).samefile(tmp_path / "data" / "images" / "a.png")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("names: [a", DataInvalid, "not YAML"),
        ("- a", DataInvalid, "expected `names:`"),
        ("train: images", DataInvalid, "names: expected"),
        ("names: {1: a}\ntrain: images", DataInvalid, "names by the ids 0, 1, 2"),
        ("names: [a]", DataInvalid, "expected train, val or test"),
        ("names: [a, a]\ntrain: images", DataInvalid, "'a' occurs twice"),
        ("names: [a]\ntrain: elsewhere", DataNotFound, "elsewhere: no such list"),
    ],
)
def test_a_yaml_that_says_no_data_set_is_refused(tmp_path, text, error, message):
    paint(tmp_path / "images" / "a.png")
    write(tmp_path / "data.yaml", text)
    with pytest.raises(error, match=message):
        open_dataset(tmp_path)


def test_a_yaml_runs_nothing(tmp_path):
    paint(tmp_path / "images" / "a.png")
    write(tmp_path / "data.yaml", f"names: !!python/object/apply:os.mkdir [{tmp_path}/made]\ntrain: images\n")
    assert open_dataset(tmp_path).classes == (f"{tmp_path}/made",)
    assert not (tmp_path / "made").exists()


def test_a_yaml_without_pyyaml_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    write(tmp_path / "data.yaml", "names: [a]\ntrain: images\n")
    with pytest.raises(MissingExtra, match=r"openlepton\[train\]"):
        open_dataset(tmp_path)


def test_labels_without_class_names_are_refused_with_what_to_do(tmp_path):
    paint(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.txt", "0 0.5 0.5 1 1")
    with pytest.raises(DataInvalid, match=r"write them to classes\.txt"):
        open_dataset(tmp_path)


def test_a_data_set_without_images_is_empty(tmp_path):
    write(tmp_path / "classes.txt", "x")
    with pytest.raises(DataEmpty, match="no images"):
        open_dataset(tmp_path)


def test_a_folder_that_is_nothing_lists_what_is_read(tmp_path):
    with pytest.raises(DataNotFound, match="no such data set"):
        open_dataset(tmp_path / "nothing")
    with pytest.raises(DataInvalid, match="YOLO.*COCO.*VOC"):
        open_dataset(tmp_path)


@given(
    st.lists(
        st.lists(st.one_of(st.floats(), st.integers(), st.sampled_from(["x", "1_0", "0x1"])), max_size=9), max_size=5
    )
)
def test_any_text_gives_rows_that_can_be_used_or_problems(rows):
    text = "\n".join(" ".join(map(str, row)) for row in rows)
    objects, problems = parsed(text)
    assert np.isfinite(objects.boxes).all()
    assert ((objects.boxes[:, 2:] - objects.boxes[:, :2]) > 0).all()
    assert ((objects.class_ids >= 0) & (objects.class_ids < 3)).all()
    refused = [problem for problem in problems if problem.kind != "box-outside"]
    assert len(objects) + len(refused) == sum(1 for row in rows if row)
    json.dumps([str(problem) for problem in problems])
