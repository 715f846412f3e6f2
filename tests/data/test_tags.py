"""Tables of images and their labels."""

import json

import numpy as np
import pytest

from openlepton.data.datasets import open_dataset
from openlepton.data.reader import Reader
from openlepton.data.survey import survey
from openlepton.errors import DataInvalid
from openlepton.images import write_image

ROWS = {"a.png": ("red", "round"), "b.png": (), "c.png": ("green",), "d.png": ("red",)}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ROWS:
        write_image(tmp_path / "images" / name, np.full((20, 30, 3), 90, np.uint8))
    return tmp_path


def write_csv(folder, name, header, rows):
    lines = [header, *rows]
    (folder / name).write_text("\n".join(lines) + "\n", "utf-8")


def tags_of(split):
    return {sample.image.name: [split.classes[tag] for tag in sample.tags] for sample in split}


def as_listed(folder):
    write_csv(folder, "labels.csv", "image,labels", [f"images/{name},{';'.join(tags)}" for name, tags in ROWS.items()])


def as_flags(folder):
    rows = [f"images/{name}," + ",".join(str(int(label in tags)) for label in LABELS) for name, tags in ROWS.items()]
    write_csv(folder, "labels.csv", "Image," + ",".join(LABELS), rows)


def as_json(folder):
    lines = [json.dumps({"image": f"./images/{name}", "labels": list(tags)}) for name, tags in ROWS.items()]
    (folder / "labels.jsonl").write_text("\n".join(lines), "utf-8")


LABELS = ("green", "red", "round")


@pytest.mark.parametrize("write", [as_listed, as_flags, as_json])
def test_three_ways_of_writing_say_the_same(folder, write):
    write(folder)
    dataset = open_dataset(folder)
    assert (dataset.layout, dataset.classes) == ("tags", LABELS)
    assert tags_of(dataset["all"]) == {name: sorted(tags) for name, tags in ROWS.items()}
    found = survey(dataset["all"])
    assert found.class_counts.tolist() == [1, 2, 1]
    assert found.backgrounds == 1


def test_splits_are_tables_or_a_column(folder):
    write_csv(folder, "labels.csv", "image,labels,split", ["images/a.png,red,train", "images/c.png,green,valid"])
    assert {name: tags_of(split) for name, split in open_dataset(folder).splits.items()} == {
        "train": {"a.png": ["red"]},
        "val": {"c.png": ["green"]},
    }
    (folder / "labels.csv").unlink()
    write_csv(folder, "train.csv", "image,labels", ["images/a.png,red"])
    write_csv(folder, "val.csv", "image,labels", ["images/c.png,green"])
    assert list(open_dataset(folder).splits) == ["train", "val"]


def test_classes_txt_gives_the_order_and_other_labels_are_reported(folder):
    as_listed(folder)
    (folder / "classes.txt").write_text("round\nred\n", "utf-8")
    dataset = open_dataset(folder)
    assert dataset.classes == ("round", "red")
    assert tags_of(dataset["all"]) == {"a.png": ["round", "red"], "b.png": [], "d.png": ["red"]}
    assert [(problem.kind, problem.line) for problem in dataset.problems] == [("class-unknown", 4)]


def test_rows_that_leave_the_folder_or_come_twice_are_reported(folder):
    write_csv(folder, "train.csv", "image,labels", ["../x.png,red", "images/a.png,red", "images/a.png,red", ",red"])
    dataset = open_dataset(folder)
    assert [(problem.kind, problem.line) for problem in dataset.problems] == [
        ("path-outside", 2),
        ("image-listed-twice", 4),
        ("row-malformed", 5),
    ]
    assert len(dataset["train"]) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.csv", "image,red\nimages/a.png,yes\n", "labels.csv:2: expected 0 or 1"),
        ("labels.csv", "image,labels\nimages/a.png,red,blue\n", "labels.csv:2: 3 cells, the header has 2"),
        ("labels.csv", "image,labels\n", "no class names"),
        ("labels.jsonl", '{"image": "a.png", "labels": "red"}', "labels.jsonl:1: expected"),
        ("labels.jsonl", '{"image": "a.png"}\n{', "labels.jsonl:2: not JSON"),
    ],
)
def test_a_table_that_breaks_its_format_is_named_with_its_line(folder, name, text, message):
    (folder / name).write_text(text, "utf-8")
    with pytest.raises(DataInvalid, match=message):
        open_dataset(folder, layout="tags")


def test_every_label_stands_for_the_whole_picture(folder):
    as_listed(folder)
    reader = Reader(open_dataset(folder)["all"], 30)
    assert reader(0).class_ids.tolist() == [1, 2]
    assert reader(0).boxes.tolist() == [[0, 0, 30, 20]] * 2
    assert len(reader(1).class_ids) == 0
