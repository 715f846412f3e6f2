"""What every detector that can be trained must do: every weight learns, and a few steps are enough for four images."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from openlepton.card import ImageInput
from openlepton.data.datasets import open_dataset
from openlepton.images import write_image
from openlepton.nets import yolov1, yolov3, yolov5, yolox
from openlepton.nets.losses import LossConfig
from openlepton.train import evaluate
from openlepton.train.evaluate import NetworkRuntime, Pair
from openlepton.vision.detect import Detect

SMALL: dict[str, Callable[[], Any]] = {
    "P5": partial(yolov5.Yolov5, yolov5.Config(depth=0.33, width=0.25, classes=2)),
    "P5 v5": partial(yolov5.Yolov5, yolov5.Config(depth=0.33, width=0.25, classes=2, layout="v5")),
    "P6": partial(yolov5.Yolov5, yolov5.Config(depth=0.33, width=0.125, classes=2, anchors=yolov5.ANCHORS_P6)),
    "YOLOv3": partial(yolov3.build, "darknet53", 2, width=1 / 8),
    "YOLOv3 tiny": partial(yolov3.build, "tiny", 2, width=1 / 4),
    "YOLOv1": partial(yolov1.build, "paper", 2, width=1 / 8, size=128),
    "YOLOv1 local": partial(yolov1.build, "local", 2, width=1 / 8, size=128),
    "YOLOv1 tiny": partial(yolov1.build, "tiny", 2, width=1 / 4, size=128),
    "YOLOX": partial(yolox.Yolox, yolox.Config(depth=0.33, width=0.25, classes=2)),
    "YOLOX depthwise": partial(yolox.Yolox, yolox.Config(depth=0.33, width=0.25, classes=2, depthwise=True)),
}
TARGETS = torch.tensor([[0, 0, 40, 40, 60, 50], [1, 1, 90, 70, 30, 90], [1, 0, 64, 64, 12, 14.0]])


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_reaches_every_weight(name):
    torch.manual_seed(0)
    network = SMALL[name]().train()
    images = torch.rand(2, 3, 128, 128)
    # Something for every level, so that every output of the head has a box to learn from.
    large = torch.tensor([[0, 1, 64, 64, 120, 120.0]])
    total, _ = network.criterion(LossConfig(), 128)(network(images), torch.cat((TARGETS, large)))
    total.backward()
    without = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


SIDE = 128
YOLOV5 = LossConfig(box=0.2, obj=100.0, cls=20.0)
STEPS: dict[str, tuple[int, float]] = {
    "YOLOv1": (60, 0.001),  # neither batch norm nor its rates
    "YOLOv1 local": (30, 0.002),
    "YOLOv1 tiny": (20, 0.003),
    "YOLOX": (30, 0.005),  # what it finds decides what it learns, so it begins slowly
    "YOLOX depthwise": (30, 0.005),
}
"""How many, and the learning rate of the first, where that is not ten and 0.01."""
CORNERS = ((4, 4), (68, 4), (4, 68), (68, 68))


@pytest.fixture
def four(tmp_path):
    """Four images with one square each, in another corner and by turns in another class."""
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("red\ngreen\n", encoding="utf-8")
    images, targets = torch.full((4, 3, SIDE, SIDE), 115 / 255), []
    for index, (x, y) in enumerate(CORNERS):
        kind, picture = index % 2, np.full((SIDE, SIDE, 3), 115, np.uint8)
        picture[y : y + 56, x : x + 56] = ((230, 25, 25), (25, 230, 50))[kind]
        images[index] = torch.from_numpy(picture).permute(2, 0, 1) / 255
        targets.append([index, kind, x + 28, y + 28, 56, 56])
        write_image(tmp_path / "images" / "val" / f"{index}.png", picture)
        row = f"{kind} {(x + 28) / SIDE} {(y + 28) / SIDE} {56 / SIDE} {56 / SIDE}\n"
        (tmp_path / "labels" / "val" / f"{index}.txt").write_text(row, encoding="utf-8")
    return images, torch.tensor(targets, dtype=torch.float32), open_dataset(tmp_path)["val"]


DEEP = {name for name in SMALL if name not in ("P5", "YOLOv1 tiny")}
OVERFIT = [pytest.param(name, marks=[pytest.mark.slow] * (name in DEEP)) for name in SMALL]


@pytest.mark.parametrize("name", OVERFIT)
def test_a_few_steps_overfit_four_images(name, four):
    """To AP50 = 1 by the evaluator, from one of twelve fresh starts: how few large steps end depends on where they begin.

    Half of the starts get there at the least, others on another processor, whose sums are rounded otherwise.
    """
    images, targets, split = four
    steps, rate = STEPS.get(name, (10, 0.01))
    scores = []
    for seed in range(12):
        torch.manual_seed(seed)
        network = SMALL[name]().train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.9  # a few steps are too few for statistics that change by 3 % a step
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        loss = network.criterion(YOLOV5 if name.startswith("P") else LossConfig(), SIDE)
        optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.5, 0.99))
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            total, _ = loss(network(images), targets)
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)  # as the trainer does
            optimizer.step()
        task = Detect(ImageInput(size=SIDE, resize="letterbox", multiple=network.multiple), split.classes)
        scores.append(evaluate(Pair(task, NetworkRuntime(network.eval())), split, batch=4).report.ap50)
        if scores[-1] == 1:
            break
    assert max(scores) == 1, scores
