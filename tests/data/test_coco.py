"""COCO JSON: what is read is what pycocotools reads, and what is wrong is named by its id."""

import json
import pickle

import cv2
import numpy as np
import pytest

from openlepton.data.coco import _raw_split
from openlepton.data.convert import convert_dataset
from openlepton.data.datasets import open_dataset
from openlepton.errors import DataEmpty, DataInvalid
from openlepton.ops.masks import Rle, rle_of_mask

coco = pytest.importorskip("pycocotools.coco")


def paint(path, height=20, width=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((height, width, 3), 90, np.uint8))[1].tobytes())


IMAGES = [
    {"id": 397133, "file_name": "a.png", "height": 20, "width": 40},
    {"id": 5, "file_name": "深/b c.png", "height": 20, "width": 40},
    {"id": 9, "file_name": "c.png", "height": 20, "width": 40},
]
CATEGORIES = [
    {"id": 18, "name": "dog"},
    {"id": 3, "name": "cat", "supercategory": "animal"},
    {"id": 90, "name": "toothbrush"},
]
RUNS = rle_of_mask(np.arange(800).reshape(20, 40) % 7 == 0).text()
ANNOTATIONS = [
    {"id": 82445, "image_id": 5, "category_id": 3, "bbox": [1.5, 2.25, 10.1, 7.77], "area": 33.3, "iscrowd": 0,
     "segmentation": [[1.5, 2.25, 11.6, 2.25, 11.6, 10.02], [3, 3, 4, 3, 4, 4, 3, 4]]},
    {"id": 17, "image_id": 397133, "category_id": 90, "bbox": [0, 0, 40, 20], "area": 100, "iscrowd": 1,
     "segmentation": {"counts": [100, 100, 600], "size": [20, 40]}},
    {"id": 18, "image_id": 397133, "category_id": 18, "bbox": [473.07 - 470, 0.1, 36.65, 17.3], "area": 3.5, "iscrowd": 0,
     "segmentation": {"counts": RUNS, "size": [20, 40]}},
    {"id": 900100, "image_id": 5, "category_id": 18, "bbox": [0, 0, 4, 4], "area": 16, "ignore": 1},
]  # fmt: skip


def write(
    root, *, images=IMAGES, annotations=ANNOTATIONS, categories=CATEGORIES, name="annotations/instances_val2017.json"
):
    for each in IMAGES:
        paint(root / "val2017" / each["file_name"])
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"info": {}, "images": images, "annotations": annotations, "categories": categories})
    (root / name).write_text(text, "utf-8")
    return root / name


@pytest.fixture
def root(tmp_path):
    write(tmp_path)
    return tmp_path


def kinds(problems):
    return [problem.kind for problem in problems]


@pytest.mark.filterwarnings("ignore:__array__")  # of pycocotools, against NumPy 2
def test_everything_that_pycocotools_reads_is_read_the_same(root):
    theirs = coco.COCO(root / "annotations" / "instances_val2017.json")
    dataset = open_dataset(root)
    split = dataset["val"]
    assert dataset.layout == "coco"
    assert dataset.category_ids == tuple(sorted(theirs.cats)) == (3, 18, 90)
    assert dataset.classes == ("cat", "dog", "toothbrush")
    assert [sample.image_id for sample in split] == list(theirs.imgs)
    for sample in split:
        facts = theirs.loadAnns(theirs.getAnnIds(sample.image_id))
        objects = sample.objects
        assert objects.ids.tolist() == [fact["id"] for fact in facts]
        assert [dataset.category_ids[row] for row in objects.class_ids] == [fact["category_id"] for fact in facts]
        assert objects.areas.tolist() == [fact["area"] for fact in facts]
        assert objects.crowd.tolist() == [bool(fact.get("iscrowd", 0)) for fact in facts]
        assert objects.boxes[:, :2].tolist() == [fact["bbox"][:2] for fact in facts]
        sides = (objects.boxes[:, 2:] - objects.boxes[:, :2]).tolist()
        assert sides == [pytest.approx(fact["bbox"][2:], rel=1e-15) for fact in facts]
        for shape, fact in zip(objects.shapes, facts, strict=True):
            if isinstance(shape, Rle):
                assert (shape.mask() == theirs.annToMask(fact)).all()
            else:
                assert [part.reshape(-1).tolist() for part in shape] == fact.get("segmentation", [])


def test_images_lie_in_the_folder_of_the_split_and_ignore_is_difficult(root):
    split = open_dataset(root)["val"]
    assert split.image(1) == root / "val2017" / "深" / "b c.png"
    assert split.image(1).is_file()
    assert split[1].objects.difficult.tolist() == [False, True]
    assert split.annotation(2).objects.boxes.shape == (0, 4)


def test_without_shapes_only_boxes_are_kept(root):
    split = open_dataset(root, shapes=False)["val"]
    assert split[1].objects.shapes is None
    assert split[1].objects.boxes.tolist() == open_dataset(root)["val"][1].objects.boxes.tolist()


def test_one_file_can_be_opened_alone_and_a_split_pickles(root):
    split = open_dataset(root / "annotations" / "instances_val2017.json")["val"]
    again = pickle.loads(pickle.dumps(split))
    assert again[1].objects.shapes[0][1].tolist() == [[3, 3], [4, 3], [4, 4], [3, 4]]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"bbox": [1, 2, 3]}, "row-malformed"),
        ({"bbox": [1, 2, 3, "4"]}, "row-malformed"),
        ({"bbox": [1, 2, 3, float("nan")]}, "row-malformed"),
        ({"bbox": [1, 2, 3, 10**400]}, "row-malformed"),
        ({"bbox": [1, 2, 3, True]}, "row-malformed"),
        ({"bbox": None}, "row-malformed"),
        ({"bbox": [1, 2, 3, 0]}, "box-degenerate"),
        ({"bbox": [1, 2, -3, 4]}, "box-degenerate"),
        ({"category_id": 4}, "class-unknown"),
        ({"category_id": None}, "class-unknown"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_left_out_and_named_by_its_id(root, change, kind):
    write(root, annotations=[ANNOTATIONS[3], {**ANNOTATIONS[0], **change}])
    found = open_dataset(root)["val"].annotation(1)
    assert found.objects.ids.tolist() == [900100]
    assert kinds(found.problems) == [kind]
    assert "annotation 82445" in str(found.problems[0])
    assert "instances_val2017.json" in str(found.problems[0])


@pytest.mark.parametrize(
    "shape",
    [
        [[1, 2, 3]],
        [[1, 2, 3, 4]],
        [["a"] * 6],
        [[1, 2, 3, 4, 5, float("inf")]],
        [{"a": 1}],
        "text",
        {"counts": [1, 2], "size": [20, 40]},
        {"counts": [[800]], "size": [20, 41]},
        {"counts": [10**30], "size": [20, 40]},
        {"counts": "!!", "size": [20, 40]},
        {"counts": [1 << 62], "size": [1 << 31, 1 << 31]},
        {"counts": [800]},
    ],
)
def test_an_outline_that_cannot_be_used_leaves_the_box(root, shape):
    write(root, annotations=[{**ANNOTATIONS[0], "segmentation": shape}])
    found = open_dataset(root)["val"].annotation(1)
    assert found.objects.ids.tolist() == [82445]
    assert found.objects.shapes in {None, ((),)}
    assert kinds(found.problems) == ["outline-malformed"]


def test_what_belongs_to_no_image_is_reported_of_the_data_set(root):
    bad = [
        {**IMAGES[0], "id": 5},
        {"id": 6},
        7,
        {"id": 8, "file_name": "../../../x.png"},
        {"id": 10, "file_name": "/etc/x.png"},
    ]
    write(root, images=[*IMAGES, *bad], annotations=[*ANNOTATIONS, {**ANNOTATIONS[0], "image_id": 999}, "x"])
    dataset = open_dataset(root)
    assert len(dataset["val"]) == 3
    assert kinds(dataset.problems) == [
        "image-listed-twice", "row-malformed", "row-malformed", "path-outside", "path-outside", "row-malformed", "row-malformed",
    ]  # fmt: skip


def test_a_name_may_climb_within_the_data_set(root):
    images = [{**each, "file_name": f"../val2017/{each['file_name']}"} for each in IMAGES]
    write(root, images=images)
    assert open_dataset(root)["val"].image(0) == root / "val2017" / "a.png"


def test_a_category_that_is_called_like_another_and_never_used_is_left_out(root):
    write(root, categories=[{"id": 0, "name": "dog"}, *CATEGORIES])
    assert open_dataset(root).category_ids == (3, 18, 90)
    write(
        root,
        categories=[{"id": 0, "name": "dog"}, *CATEGORIES],
        annotations=[{**ANNOTATIONS[0], "category_id": 0}, *ANNOTATIONS],
    )
    with pytest.raises(DataInvalid, match="'dog' occurs twice"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "not JSON"),
        ('{"images": [], "categories": {}}', "not COCO"),
        ('{"images": [], "categories": [{"id": "a", "name": "b"}]}', "expected id and name"),
        ('{"images": [], "categories": [], "annotations": {}}', "annotations: expected a list"),
        ('{"images": [], "categories": []}', "no class names"),
        ('{"images": ' + "[" * 200_000, "not JSON"),
        ('"images"', "not COCO"),
    ],
)
def test_a_file_that_is_not_coco_is_refused(root, text, message):
    (root / "annotations" / "instances_val2017.json").write_text(text, "utf-8")
    with pytest.raises(DataInvalid, match=message):
        open_dataset(root)


def test_a_file_without_images_is_empty(root):
    write(root, images=[], annotations=[])
    with pytest.raises(DataEmpty):
        open_dataset(root)


def test_files_that_disagree_about_a_category_are_refused(root):
    write(root, name="annotations/instances_train2017.json", categories=[{"id": 3, "name": "dog"}])
    with pytest.raises(DataInvalid, match="category 3 is"):
        open_dataset(root)


def test_captions_beside_instances_are_not_read(root):
    (root / "annotations" / "captions_val2017.json").write_text('{"images": broken', "utf-8")
    (root / "package.json").write_text("{}", "utf-8")
    assert list(open_dataset(root).splits) == ["val"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("annotations/instances_val2017.json", "val2017"),
        ("train/_annotations.coco.json", "train"),
        ("_annotations.coco.json", "all"),
        ("annotations/train.json", "train"),
        ("my_labels.json", "my_labels"),
    ],
)
def test_a_file_is_called_after_its_split(name, split):
    assert _raw_split(name) == split


def test_ids_boxes_areas_and_shapes_survive_being_written(root, tmp_path):
    report = convert_dataset(open_dataset(root), tmp_path / "again", "coco")
    assert (report.objects, report.images, report.problems) == (4, {"val": 3}, ())
    before, after = open_dataset(root), open_dataset(tmp_path / "again")
    assert (after.classes, after.category_ids) == (before.classes, before.category_ids)
    for one, other in zip(before["val"], after["val"], strict=True):
        assert one.image_id == other.image_id
        for column in ("boxes", "areas"):
            assert getattr(one.objects, column) == pytest.approx(getattr(other.objects, column), abs=1e-4)
        for column in ("ids", "class_ids", "crowd", "difficult"):
            assert getattr(one.objects, column).tolist() == getattr(other.objects, column).tolist()
        for shape, again in zip(one.objects.shapes or (), other.objects.shapes or (), strict=True):
            if isinstance(shape, Rle):
                assert shape.counts.tolist() == again.counts.tolist()
            else:
                assert [part.tolist() for part in shape] == [part.tolist() for part in again]
