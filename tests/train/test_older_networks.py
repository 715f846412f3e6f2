"""YOLOv1 and YOLOv3 through the whole of a training: data, checkpoints, model folder, evaluation, detection."""

from dataclasses import replace

import numpy as np
import pytest

from openlepton.card import open_folder
from openlepton.data.datasets import open_dataset
from openlepton.errors import UsageError
from openlepton.images import read_image
from openlepton.predictor import load
from openlepton.train import evaluate, fit, resume


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "resize", "multiple", "strides", "rows"),
    [("yolov3-tiny", "letterbox", 32, (16, 32), 3 * (16 + 4)), ("yolov1-tiny", "stretch", 64, (64,), 2)],
)
def test_an_older_network_trains_to_a_folder_that_detects(config, squares, model, resize, multiple, strides, rows):
    trained = fit(replace(config, model=model, epochs=1))
    folder = open_folder(trained.best)
    facts = folder.card.input
    assert (facts.resize, facts.size, facts.multiple) == (resize, 64, multiple)
    assert folder.card.architecture == model
    assert folder.card.detect is not None
    assert folder.card.detect.strides == strides
    assert len(folder.card.detect.anchors) == (2 if model == "yolov3-tiny" else 0)

    detect = load(trained.best, min_score=0.0)
    images = np.zeros((1, 3, 64, 64), np.float32)
    outputs = detect.runtime({"images": images})
    assert outputs["boxes"].shape == (1, rows, 4)
    assert outputs["scores"].shape == (1, rows, 2)
    wide = np.zeros((40, 80, 3), np.uint8)
    seen, frame = detect.task.prepare(wide)
    assert seen["images"].shape == ((3, 64, 64) if resize == "stretch" else (3, 32, 64))
    assert frame.scale_xy == ((0.8, 1.6) if resize == "stretch" else (0.8, 0.8))
    assert frame.pad_xy == (0, 0)
    assert detect(wide).image_hw == (40, 80)

    split = open_dataset(squares)["val"]
    measured = evaluate(load(trained.best), split)
    assert measured.report.ap50 == pytest.approx(trained.report.ap50, abs=1e-9)

    longer = resume(trained.folder, changes={"epochs": 2})
    assert [row["epoch"] for row in longer.history] == [1, 2]
    assert set(longer.history[1]) >= {"train/box", "train/obj", "train/cls"}
    assert load(longer.best)(read_image(split.image(0))).names == ("red", "green")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multi_scale": 0.3}, "multi_scale: yolov1-tiny sees images of one size alone"),
        ({"size": 96}, "size: expected a multiple of 64, got 96"),
    ],
)
def test_a_network_of_one_size_refuses_others(config, changes, message):
    with pytest.raises(UsageError, match=message):
        fit(replace(config, model="yolov1-tiny", **changes))
