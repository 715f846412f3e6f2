import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest
import safetensors.numpy

import openlepton
from openlepton.arrays import Tensors
from openlepton.card import ImageInput
from openlepton.data.datasets import open_dataset
from openlepton.errors import DataEmpty, UsageError
from openlepton.hub.convert import build_network
from openlepton.images import write_image
from openlepton.train import evaluate
from openlepton.train.evaluate import NetworkRuntime, Pair, network_factory
from openlepton.vision.detect import Detect

COLOURS = np.array([(220, 30, 30), (30, 200, 60)], np.float32) / 255


@dataclass
class SeesColours:
    """A runtime that finds red and green squares by their colour, exactly; `names` in the order of its scores."""

    order: tuple[int, ...] = (0, 1)
    score: float = 0.9
    kinds: int = 2

    def __call__(self, inputs) -> Tensors:
        boxes, scores = [], []
        for image in inputs["images"]:
            rows = np.zeros((2, 4), np.float32)
            found = np.zeros((2, len(self.order)), np.float32)
            for kind, colour in enumerate(COLOURS[: self.kinds]):
                seen = np.abs(image - colour[:, None, None]).max(0) < 0.02
                if seen.any():
                    y, x = np.nonzero(seen)
                    rows[kind] = x.min(), y.min(), x.max() + 1, y.max() + 1
                    found[kind, self.order.index(kind)] = self.score
            boxes.append(rows)
            scores.append(found)
        return {"boxes": np.stack(boxes), "scores": np.stack(scores)}


def task(*names: str) -> Detect:
    return Detect(ImageInput(size=64, resize="letterbox"), names)


@pytest.fixture
def apart(tmp_path):
    """Four images in which no square hides another."""
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("red\ngreen\n", encoding="utf-8")
    for index in range(4):
        image, rows = np.full((64, 64, 3), 114, np.uint8), ""
        for kind, x in enumerate((2, 36)):
            image[10 : 30 + index, x : x + 20] = np.round(COLOURS[kind] * 255)
            rows += f"{kind} {(x + 10) / 64} {(20 + index / 2) / 64} {20 / 64} {(20 + index) / 64}\n"
        write_image(tmp_path / "images" / "val" / f"{index}.png", image)
        (tmp_path / "labels" / "val" / f"{index}.txt").write_text(rows, encoding="utf-8")
    return open_dataset(tmp_path)["val"]


def test_a_detector_that_finds_everything_has_full_marks(apart):
    done = evaluate(Pair(task("red", "green"), SeesColours()), apart)
    assert (done.report.ap, done.report.ap50, done.report.images) == (1, 1, 4)
    assert [one.objects for one in done.report.classes] == [4, 4]


def test_scores_below_the_threshold_of_prediction_count(apart):
    done = evaluate(Pair(replace(task("red", "green"), min_score=0.5), SeesColours(score=0.01)), apart)
    assert done.report.ap == 1


def test_classes_are_matched_by_name_not_by_number(apart):
    assert evaluate(Pair(task("Green", "RED"), SeesColours(order=(1, 0))), apart).report.ap == 1
    # The detector calls red green: both classes get nothing.
    assert evaluate(Pair(task("green", "red"), SeesColours()), apart).report.ap50 == 0


def test_a_class_that_only_one_side_knows_is_not_found_or_not_counted(apart):
    more = evaluate(Pair(task("red", "green", "blue"), SeesColours(order=(0, 1, 2))), apart).report
    assert [one.name for one in more.classes] == ["red", "green"]
    assert more.ap == 1
    fewer = evaluate(Pair(task("red"), SeesColours(order=(0,), kinds=1)), apart).report
    assert [one.ap for one in fewer.classes] == [1, 0]
    with pytest.raises(UsageError, match="no class in common"):
        evaluate(Pair(task("cat", "dog"), SeesColours()), apart)


def test_batches_and_threads_change_nothing(squares):
    split = open_dataset(squares)["val"]
    pair = Pair(task("red", "green"), SeesColours())
    one = evaluate(pair, split)
    many = evaluate(pair, split, batch=3, workers=2)
    assert one.report == replace(many.report, timing=one.report.timing)
    for a, b in zip(one.found, many.found, strict=True):
        assert np.array_equal(a.boxes, b.boxes)
    assert one.images == many.images


def test_an_image_that_cannot_be_read_is_left_out_and_named(squares, tmp_path):
    shutil.copytree(squares, tmp_path / "data")
    (tmp_path / "data" / "images" / "val" / "1.png").write_bytes(b"no picture")
    done = evaluate(Pair(task("red", "green"), SeesColours()), open_dataset(tmp_path / "data")["val"])
    assert done.report.images == 3
    assert "1.png" in str(done.unreadable[0])
    for image in (tmp_path / "data" / "images" / "val").iterdir():
        image.write_bytes(b"")
    with pytest.raises(DataEmpty, match="none of its 4 images"):
        evaluate(Pair(task("red", "green"), SeesColours()), open_dataset(tmp_path / "data")["val"])


def test_a_limit_takes_the_first_images(squares):
    done = evaluate(Pair(task("red", "green"), SeesColours()), open_dataset(squares)["train"], limit=3)
    assert [path.name for path in done.images] == ["0.png", "1.png", "2.png"]


def test_a_classifier_is_refused(squares):
    with pytest.raises(UsageError, match="expected a detector"):
        evaluate(openlepton.load("efficientnet-lite0"), open_dataset(squares)["val"])


def test_the_speed_is_split(squares):
    timing = evaluate(Pair(task("red", "green"), SeesColours()), open_dataset(squares)["val"]).report.timing
    assert min(timing.prepare_ms, timing.infer_ms, timing.finish_ms) > 0


def test_a_network_in_training_is_refused():
    from openlepton.nets import yolov5

    with pytest.raises(UsageError, match="evaluation mode"):
        NetworkRuntime(yolov5.build("n", classes=2).train())


def test_the_graph_is_as_accurate_as_the_network(able, squares):
    """Within 0.1 points of AP, both measured by the same lines, for a detector that has learned something."""
    split = open_dataset(squares)["train"]
    state = safetensors.numpy.load((able.best / "model.safetensors").read_bytes())
    _, network = build_network(state)
    graph = evaluate(openlepton.load(able.best), split).report
    torched = evaluate(openlepton.load(able.best, runtime=network_factory(network)), split).report
    assert graph.ap50 > 0.6
    assert abs(graph.ap - torched.ap) < 0.001
    assert abs(graph.ap50 - torched.ap50) < 0.001
