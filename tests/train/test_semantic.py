"""The lesson of semantic segmentation: a training from class ids and one from instances, and what is measured and refused."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from openlepton.arrays import UNKNOWN  # noqa: E402
from openlepton.card import open_folder  # noqa: E402
from openlepton.cli import run  # noqa: E402
from openlepton.errors import DataEmpty, UsageError  # noqa: E402
from openlepton.images import write_image  # noqa: E402
from openlepton.predictor import load  # noqa: E402
from openlepton.results import Segmentation  # noqa: E402
from openlepton.train import TrainConfig, fit, suited  # noqa: E402
from openlepton.train.evaluate import Pair  # noqa: E402
from openlepton.train.lessons import lesson_for  # noqa: E402
from openlepton.train.semantic import AUGMENTATIONS, SemanticLesson  # noqa: E402
from openlepton.vision.semantic import Semantic  # noqa: E402

LESSON = SemanticLesson()
NAMES = ("background", "disc", "square")
COLOURS = np.array([[110, 110, 110], [210, 60, 40], [40, 90, 220]], np.uint8)
SIDE = 64


def class_map_of(rng: np.random.Generator) -> np.ndarray:
    """Return class ids of a disc and a square."""
    ids = np.zeros((SIDE, SIDE), np.uint8)
    x, y = (int(value) for value in rng.integers(14, 24, 2))
    cv2.circle(ids, (x, y), 12, 1, -1)
    x, y = (int(value) for value in rng.integers(34, 40, 2))
    cv2.rectangle(ids, (x, y), (x + 20, y + 20), 2, -1)
    return ids


def write(root: Path, splits: dict[str, int], seed: int = 0) -> Path:
    """Write images and maps of class ids."""
    rng = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(NAMES), "utf-8")
    for split, count in splits.items():
        rows = []
        for index in range(count):
            ids = class_map_of(rng)
            noise = rng.integers(-15, 16, (SIDE, SIDE, 3))
            write_image(
                root / "images" / f"{split}{index}.png",
                (COLOURS[ids].astype(int) + noise).clip(0, 255).astype(np.uint8),
            )
            cv2.imwrite(str(root / "masks" / f"{split}{index}.png"), ids)
            rows.append(f"images/{split}{index}.png\n")
        (root / f"{split}.txt").write_text("".join(rows), "utf-8")
    return root


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shapes"), {"train": 8, "val": 3})


def config_for(root: Path, out: Path, **changes: object) -> TrainConfig:
    given = {"batch": 4, "nominal_batch": 4, "epochs": 10, "lr": 4e-3, "warmup_epochs": 0.0, "warmup_steps": 2}
    given |= {"size": SIDE, "threads": 1, "workers": 0, "precision": "float32", "ema_decay": 0.9, "ema_ramp": 5.0}
    return suited("semantic", data=str(root), out=str(out), **(given | changes))


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    return fit(config_for(shapes, tmp_path_factory.mktemp("runs") / "run", freeze="4", evaluate_every=5))


@pytest.mark.slow
def test_a_training_learns_the_class_of_each_pixel(trained, shapes):
    assert trained.report.miou > 0.8
    card = open_folder(trained.best).card
    assert (card.task, card.architecture, card.labels) == ("semantic", "unet-lite0", NAMES)
    assert card.semantic.background == 0
    assert {metric.name for metric in card.metrics} == {"mIoU", "pixel accuracy", *(f"IoU {name}" for name in NAMES)}
    truth = cv2.imread(str(shapes / "masks" / "val0.png"), cv2.IMREAD_UNCHANGED)
    found = load(trained.best)(shapes / "images" / "val0.png")
    assert isinstance(found, Segmentation)
    assert (found.class_map == truth).mean() > 0.9
    header = (trained.folder / "results.csv").read_text().splitlines()[0].split(",")
    assert {"train/cls", "train/dice", "val/miou", "val/accuracy"} <= set(header)
    assert {path.name for path in trained.folder.glob("*.png")} >= {"batch0.png", "predictions.png", "confusion.png"}


@pytest.mark.slow
def test_the_card_is_reproduced_by_the_command(trained, shapes, capfd):
    assert run(["evaluate", str(trained.best), str(shapes), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    stated = {metric.name: metric.value for metric in open_folder(trained.best).card.metrics}
    assert found["miou"] == pytest.approx(stated["mIoU"], abs=5e-5)
    assert [row["class"] for row in found["classes"]] == list(NAMES)
    for row in found["classes"]:
        assert row["iou"] == pytest.approx(stated[f"IoU {row['class']}"], abs=5e-5)


class Knowing:
    """A runtime that says what the class maps of a split say, on a grid of two pixels a cell."""

    def __init__(self, split, names):
        self.maps = iter([split.annotation(index).class_map for index in range(len(split))])
        self.names = names

    def __call__(self, inputs):
        ids = next(self.maps)[::2, ::2]
        return {"scores": (np.arange(len(self.names))[:, None, None] == ids)[None].astype(np.float32)}


def pair_of(split, names, root, out):
    task = Semantic(LESSON.facts(config_for(root, out), network(), names)["input"], tuple(names), 0)
    return Pair(task, Knowing(split, names))


def network():
    from openlepton.nets import NETS

    with torch.device("meta"):
        return NETS["unet-lite0"].build(classes=3)


def test_who_knows_all_has_an_iou_that_cells_of_two_pixels_allow(shapes, tmp_path):
    split = LESSON.open(shapes)["val"]
    measured = LESSON.evaluate(pair_of(split, NAMES, shapes, tmp_path), split)
    assert 0.9 < measured.metrics["mIoU"] < 1
    assert measured.fitness == measured.metrics["mIoU"]
    assert measured.images == 3


def test_classes_are_matched_by_name_and_those_that_the_data_do_not_show_refused(shapes, tmp_path):
    split = LESSON.open(shapes)["val"]
    measured = LESSON.evaluate(pair_of(split, ("Background", "DISC", "Square"), shapes, tmp_path), split)
    assert measured.metrics["IoU disc"] > 0.9
    swapped = LESSON.evaluate(pair_of(split, ("background", "square", "disc"), shapes, tmp_path), split)
    assert swapped.metrics["IoU disc"] == 0
    with pytest.raises(UsageError, match="the model finds sky, which the data set does not know"):
        LESSON.evaluate(pair_of(split, ("background", "sky", "disc"), shapes, tmp_path), split)


def test_pixels_that_are_not_known_do_not_count(shapes, tmp_path):
    root = write(tmp_path, {"train": 1, "val": 2})
    path = root / "masks" / "val0.png"
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    ids[:, :32] = UNKNOWN
    cv2.imwrite(str(path), ids)
    split = LESSON.open(root)["val"]
    measured = LESSON.evaluate(pair_of(LESSON.open(root)["val"], NAMES, root, tmp_path), split)
    assert measured.report.confusion.sum() == 2 * SIDE * SIDE - 32 * SIDE


def test_instances_are_learned_as_background_object_and_boundary(tmp_path):
    root = write(tmp_path / "data", {"train": 2, "val": 1})
    (root / "classes.txt").write_text("thing\n", "utf-8")
    dataset, train = LESSON.data(config_for(root, tmp_path / "run"), lambda event: None)
    assert dataset.classes == ("background", "thing", "boundary")
    found = np.unique(train.annotation(0).class_map)
    assert found.tolist() == [0, 1, 2]


def test_a_class_without_a_pixel_is_an_error_before_anything_is_written(tmp_path):
    root = write(tmp_path / "data", {"train": 2, "val": 1})
    (root / "classes.txt").write_text("\n".join((*NAMES, "sky")), "utf-8")
    with pytest.raises(DataEmpty, match="split train has no pixel of class sky"):
        fit(config_for(root, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", [{"mixup": 0.5}, {"copy_paste": 0.5}])
def test_variations_that_give_a_pixel_two_classes_are_refused(shapes, tmp_path, change):
    config = config_for(shapes, tmp_path, augment=replace(AUGMENTATIONS["low"], **change))
    with pytest.raises(UsageError, match="each pixel has one class"):
        LESSON.augmentation(config, closing=False)


def test_segmenters_of_pixels_are_taught_and_measured_by_this_lesson():
    assert isinstance(lesson_for("semantic"), SemanticLesson)
    with pytest.raises(UsageError, match="expected a semantic segmenter, got a model for classify"):
        LESSON.evaluate(load("efficientnet-lite0"), [])
