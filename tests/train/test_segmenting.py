"""The lesson of instance segmentation: one set of objects in every form that is read gives one set of targets; and a training."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from openlepton.card import open_folder  # noqa: E402
from openlepton.data.augment import PRESETS  # noqa: E402
from openlepton.data.datasets import open_dataset  # noqa: E402
from openlepton.data.loader import training_batches  # noqa: E402
from openlepton.errors import UsageError  # noqa: E402
from openlepton.images import write_image  # noqa: E402
from openlepton.ops.masks import rle_of_mask, rles_of_ids  # noqa: E402
from openlepton.ops.polygons import joined  # noqa: E402
from openlepton.predictor import load  # noqa: E402
from openlepton.results import Detections  # noqa: E402
from openlepton.train import TrainConfig, fit  # noqa: E402
from openlepton.train.detecting import image_input  # noqa: E402
from openlepton.train.evaluate import Pair  # noqa: E402
from openlepton.train.lessons import lesson_for, lesson_of  # noqa: E402
from openlepton.train.segmenting import Segmenting  # noqa: E402
from openlepton.vision.segment import Segment  # noqa: E402

SIDE = 64
LESSON = Segmenting()


def ids_of(seed: int) -> np.ndarray:
    """Three objects: a disc, a ring, whose hole is background, and one in two pieces."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((SIDE, SIDE), np.uint8)
    x, y = (int(value) for value in rng.integers(0, 8, 2))
    cv2.circle(ids, (12 + x, 14 + y), 9, 1, -1)
    cv2.circle(ids, (46, 20 + y), 14, 2, -1)
    cv2.circle(ids, (46, 20 + y), 7, 0, -1)
    ids[46 : 60 - y, 4:14] = ids[46 : 60 - y, 18 + x : 30 + x] = 3
    return ids


def write(root: Path, form: str) -> Path:
    """Write a data set of six images, four of them to train on, in one form."""
    splits = {"train": range(4), "val": range(4, 6)}
    for split, indices in splits.items():
        folder = root / "images" if form == "png" else root / "images" / split
        folder.mkdir(parents=True, exist_ok=True)
        for index in indices:
            ids = ids_of(index)
            picture = np.stack([ids * 60 + 40, 255 - ids * 50, np.full_like(ids, 90)], -1)
            write_image(folder / f"{index}.png", picture)
    if form == "png":
        (root / "masks").mkdir()
        (root / "classes.txt").write_text("thing\n")
        for split, indices in splits.items():
            (root / f"{split}.txt").write_text("".join(f"images/{index}.png\n" for index in indices))
            for index in indices:
                cv2.imwrite(str(root / "masks" / f"{index}.png"), ids_of(index).astype(np.uint16))
    elif form == "yolo":
        (root / "classes.txt").write_text("thing\n")
        for split, indices in splits.items():
            (root / "labels" / split).mkdir(parents=True)
            for index in indices:
                outlines = [joined(mask.polygons()) / SIDE for mask in rles_of_ids(ids_of(index)).values()]
                rows = [" ".join(["0", *(f"{v:.6f}" for v in outline.reshape(-1))]) for outline in outlines]
                (root / "labels" / split / f"{index}.txt").write_text("\n".join(rows))
    else:
        (root / "annotations").mkdir()
        for split, indices in splits.items():
            images, annotations = [], []
            for index in indices:
                images.append({"id": index + 1, "file_name": f"{index}.png", "width": SIDE, "height": SIDE})
                for mask in rles_of_ids(ids_of(index)).values():
                    x1, y1, x2, y2 = mask.box()
                    shape = mask.to_dict()
                    if form == "coco runs":
                        shape["counts"] = mask.counts.tolist()
                    if form == "coco polygons":
                        shape = [part.reshape(-1).tolist() for part in mask.polygons()]
                    annotations.append(
                        {
                            "id": len(annotations) + 1, "image_id": index + 1, "category_id": 1, "segmentation": shape,
                            "bbox": [x1, y1, x2 - x1, y2 - y1], "area": mask.area, "iscrowd": 0,
                        }
                    )  # fmt: skip
            whole = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
            (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(whole))
    return root


FORMS = ("png", "yolo", "coco text", "coco runs", "coco polygons")


def config_for(root: Path, **changes: object) -> TrainConfig:
    given = {"data": str(root), "out": "", "model": "yolov5n-seg", "size": SIDE, "batch": 4, "threads": 1} | changes
    return TrainConfig(**given)  # type: ignore[arg-type]


def targets_of(root: Path, augment: str = "none", scale: float = 1.0):
    config = config_for(root, augment=PRESETS[augment])
    _, train = LESSON.data(config, lambda event: None)
    reader = LESSON.reader(config, train, lambda event: None)
    (batch,) = training_batches(reader, 0, batch_size=4, config=config.augment, seed=3, workers=0)
    return batch, LESSON.targets(batch, torch.device("cpu"), scale)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_outlines_gives_the_same_targets(form, tmp_path):
    batch, found = targets_of(write(tmp_path, form))
    assert found.boxes.shape == (12, 6)
    assert found.owners.shape == (4, SIDE // 4, SIDE // 4)
    for image, index in enumerate(batch.indices.tolist()):
        ids = ids_of(index)
        cells = ids[2::4, 2::4]  # the centre of a cell is a corner of pixels: take the object where all four agree
        corners = [ids[1::4, 1::4], ids[1::4, 2::4], ids[2::4, 1::4]]
        sure = np.all([cells == corner for corner in corners], axis=0)
        rows = np.flatnonzero(batch.rows == image)
        wanted = np.where(cells > 0, rows[0] + cells, 0)
        assert np.array_equal(found.owners[image].numpy()[sure], wanted[sure])
        assert sure.mean() > 0.8
    assert (found.owners == 2).sum() < (found.owners == 2).any(0).sum() * 4  # a ring has a hole


@pytest.mark.parametrize("form", ["yolo", "coco text", "coco polygons"])
def test_augmented_targets_are_the_same_whatever_the_form(form, tmp_path):
    _, wanted = targets_of(write(tmp_path / "a", "png"), "high")
    _, found = targets_of(write(tmp_path / "b", form), "high")
    if (
        form != "yolo"
    ):  # one polygon alone: of two pieces, of which one leaves the picture, the bridge reaches to its edge
        torch.testing.assert_close(found.boxes, wanted.boxes, atol=1e-3, rtol=0)
    assert (found.owners != wanted.owners).float().mean() < 0.01


def test_targets_follow_a_batch_that_was_resized(tmp_path):
    batch, plain = targets_of(write(tmp_path, "png"))
    larger = LESSON.targets(batch, torch.device("cpu"), 1.5)
    assert larger.owners.shape == (4, 24, 24)
    torch.testing.assert_close(larger.boxes[:, 2:], plain.boxes[:, 2:] * 1.5)
    for row in range(1, 13):
        share = (larger.owners == row).sum() / 24**2 - (plain.owners == row).sum() / 16**2
        assert abs(share) < 0.03


def test_an_image_without_objects_has_empty_targets(tmp_path):
    root = write(tmp_path, "yolo")
    for path in (root / "labels" / "train").iterdir():
        path.write_text("0 0.5 0.5 0.2 0.2\n" if path.stem == "0" else "")
    batch, found = targets_of(root)
    (image,) = np.flatnonzero(batch.indices == 0)
    assert len(found.boxes) == 1
    assert found.owners.any(2).any(1).nonzero()[:, 0].tolist() == [image]
    assert (found.owners[image] == 1).sum() in (9, 12, 16)  # an object that has only a box fills it


class Oracle:
    """A runtime that does not look: the detections are what the task is told to find."""

    def __init__(self, truth: list[Detections]) -> None:
        self.truth = iter(truth)

    def __call__(self, inputs):
        h, w = (side // 4 for side in inputs["images"].shape[2:])
        return {
            "boxes": np.zeros((1, 1, 4), np.float32), "scores": np.zeros((1, 1, 2), np.float32),
            "coeffs": np.zeros((1, 1, 32), np.float32), "protos": np.zeros((1, 32, h, w), np.float32),
        }  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_what_is_there_found_again_has_an_ap_of_one(form, tmp_path, monkeypatch):
    split = open_dataset(write(tmp_path, form))["val"]
    truth = []
    for sample in split:
        masks = sample.objects.masks(sample.size_hw)
        boxes, ids = sample.objects.boxes, sample.objects.class_ids
        truth.append(Detections(boxes, np.full(3, 0.9), ids, ("thing",), sample.size_hw, masks))
    oracle = Oracle(truth)
    task = Segment(LESSON.facts(config_for(tmp_path), lesson_network(), ("thing",))["input"], ("thing",))
    monkeypatch.setattr(Segment, "finish", lambda self, outputs, frame: next(oracle.truth))
    measured = LESSON.evaluate(Pair(task, oracle), split)
    assert measured.metrics == dict.fromkeys(measured.metrics, 1.0)
    assert set(measured.metrics) == {"mask AP50-95", "mask AP50", "mask AP75", "box AP50-95", "box AP50"}
    assert measured.fitness == pytest.approx(2)


def test_a_class_without_a_name_is_the_one_class_that_a_model_knows(tmp_path):
    root = write(tmp_path, "png")
    (root / "classes.txt").unlink()
    split = open_dataset(root)["val"]
    assert split.classes == ("object",)
    input_facts = image_input(config_for(tmp_path), lesson_network())
    measured = LESSON.evaluate(Pair(Segment(input_facts, ("nucleus",)), Oracle([])), split)
    assert measured.images == 2
    with pytest.raises(UsageError, match="no class in common"):
        LESSON.evaluate(Pair(Segment(input_facts, ("nucleus", "debris")), Oracle([])), split)


def lesson_network():
    from openlepton.nets import NETS

    with torch.device("meta"):
        return NETS["yolov5n-seg"].build(classes=1)


def test_an_empty_split_of_detections_is_measured_without_a_crash(tmp_path):
    split = open_dataset(write(tmp_path, "png"))["val"]
    task = Segment(LESSON.facts(config_for(tmp_path), lesson_network(), ("thing",))["input"], ("thing",))
    measured = LESSON.evaluate(Pair(task, Oracle([])), split)
    assert measured.metrics["mask AP50"] == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = write(tmp_path_factory.mktemp("data"), "png")
    out = tmp_path_factory.mktemp("runs") / "run"
    config = config_for(root, out=str(out), epochs=2, precision="float32", warmup_steps=1, workers=0)
    return fit(replace(config, augment=PRESETS["high"], closing_epochs=1))


@pytest.mark.slow
def test_a_training_leaves_a_segmenter(trained):
    assert trained.task == "segment"
    card = open_folder(trained.best).card
    assert (card.task, card.architecture, card.labels) == ("segment", "yolov5n-seg", ("thing",))
    assert {metric.name for metric in card.metrics} >= {"mask AP50-95", "mask AP50", "box AP50"}
    found = load(trained.best, min_score=0.0)(np.zeros((40, 50, 3), np.uint8))
    assert found.masks is not None
    assert len(found.masks) == len(found)
    header = (trained.folder / "results.csv").read_text().splitlines()[0].split(",")
    assert {"train/mask", "val/mask_ap50", "val/box_ap50"} <= set(header)
    assert {path.name for path in trained.folder.glob("*.png")} >= {"batch0.png", "predictions.png", "confusion.png"}


def test_segmenters_are_taught_and_measured_by_this_lesson():
    assert isinstance(lesson_of("yolov5s-seg"), Segmenting)
    assert isinstance(lesson_for("segment"), Segmenting)


def test_objects_without_outlines_are_masked_by_their_boxes_and_runs_of_another_size_are_fitted():
    from openlepton.data.samples import Objects

    half = rle_of_mask(np.ones((5, 10), bool))
    objects = Objects(np.array([[2, 3, 6, 8], [0, 0, 20, 10]]), np.zeros(2, int), ((), half))
    boxed, fitted = objects.masks((10, 20))
    assert boxed.box() == (2, 3, 6, 8)
    assert boxed.area == 20
    assert (fitted.size_hw, fitted.area) == ((10, 20), 200)
    assert [mask.area for mask in Objects(np.array([[2, 3, 6, 8]]), np.zeros(1, int)).masks((10, 20))] == [20]
