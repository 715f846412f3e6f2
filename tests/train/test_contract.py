"""What every detector that can be trained must do: every weight learns, and a few steps are enough for four images."""

import numpy as np
import pytest
import torch
from torch import nn

from openlepton.card import ImageInput
from openlepton.data.datasets import open_dataset
from openlepton.images import write_image
from openlepton.nets import yolov5
from openlepton.nets.losses import LossConfig
from openlepton.nets.yolov5_loss import Yolov5Loss
from openlepton.train import evaluate
from openlepton.train.evaluate import NetworkRuntime, Pair
from openlepton.vision.detect import Detect

SMALL = {
    "P5": yolov5.Config(depth=0.33, width=0.25, classes=2),
    "P5 v5": yolov5.Config(depth=0.33, width=0.25, classes=2, layout="v5"),
    "P6": yolov5.Config(depth=0.33, width=0.125, classes=2, anchors=yolov5.ANCHORS_P6),
}
TARGETS = torch.tensor([[0, 0, 40, 40, 60, 50], [1, 1, 90, 70, 30, 90], [1, 0, 64, 64, 12, 14.0]])


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_reaches_every_weight(name):
    torch.manual_seed(0)
    network = yolov5.Yolov5(SMALL[name]).train()
    images = torch.rand(2, 3, 128, 128)
    # Something for every level, so that every output of the head has a box to learn from.
    large = torch.tensor([[0, 1, 64, 64, 120, 120.0]])
    total, _ = Yolov5Loss(network.config, LossConfig(), 128)(network(images), torch.cat((TARGETS, large)))
    total.backward()
    without = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


SIDE = 128
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


@pytest.mark.parametrize("name", SMALL)
def test_ten_steps_overfit_four_images(name, four):
    """To AP50 = 1 by the evaluator, from one of four fresh starts: how ten large steps end depends on where they begin."""
    images, targets, split = four
    scores = []
    for seed in range(4):
        torch.manual_seed(seed)
        network = yolov5.Yolov5(SMALL[name]).train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.9  # ten steps are too few for statistics that change by 3 % a step
        loss = Yolov5Loss(network.config, LossConfig(box=0.2, obj=100.0, cls=20.0), SIDE)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, betas=(0.5, 0.99))
        for step in range(10):
            optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 10)
            total, _ = loss(network(images), targets)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        task = Detect(ImageInput(size=SIDE, resize="letterbox", multiple=network.multiple), split.classes)
        scores.append(evaluate(Pair(task, NetworkRuntime(network.eval())), split, batch=4).report.ap50)
        if scores[-1] == 1:
            break
    assert max(scores) == 1, scores
