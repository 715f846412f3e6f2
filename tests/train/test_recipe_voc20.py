"""The arithmetic of the recipes of the default detector: published kernels, the teacher's part, the average, the joins."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from openlepton.nets import yolox
from openlepton.nets.losses import LossConfig

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture
def recipes(monkeypatch):
    """The two scripts; they import each other as neighbours."""
    monkeypatch.syspath_prepend(str(RECIPES))
    import voc20
    import yolox_nano

    yield voc20, yolox_nano
    for name in ("voc20_composite", "voc20_yolov5", "voc20", "yolox_nano", "train_detectors"):
        sys.modules.pop(name, None)


def test_the_kernel_for_rgb_equals_focus_and_the_kernel_for_bgr(recipes):
    torch.manual_seed(0)
    weight, images = torch.randn(4, 12, 3, 3), torch.rand(2, 3, 16, 24)
    bgr = images.flip(1)
    squares = (bgr[..., ::2, ::2], bgr[..., 1::2, ::2], bgr[..., ::2, 1::2], bgr[..., 1::2, 1::2])
    wanted = functional.conv2d(torch.cat(squares, 1), weight, padding=1)
    found = functional.conv2d(images, recipes[1]._as_rgb(weight), stride=2, padding=2)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_the_teachers_part_is_zero_and_flat_where_both_agree_and_positive_elsewhere(recipes):
    torch.manual_seed(0)
    theirs = [torch.randn(2, 8, side, side) for side in (8, 4, 2)]
    loss = recipes[0].TaughtLoss(yolox.build("nano", 3).criterion(LossConfig(), 64), 0.5)
    ours = [level.clone().requires_grad_() for level in theirs]
    parts = loss.against(ours, theirs)
    assert parts.tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    parts[1:].sum().backward()
    assert max(float(level.grad.abs().max()) for level in ours) < 1e-6
    assert (loss.against([level + 0.5 for level in theirs], theirs) > 0.01).all()


def test_a_taught_network_begins_as_its_teacher_and_keeps_its_statistics(recipes):
    torch.manual_seed(0)
    teacher = yolox.build("nano", 3).eval()
    network = recipes[0].Taught(teacher, 0.5).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        ours, theirs = network(torch.rand(2, 3, 64, 64))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours, theirs, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.state_dict().keys() == teacher.state_dict().keys()


def test_the_average_goes_from_the_start_towards_every_end(recipes):
    start, ends = {"a": torch.tensor([1.0, 2.0])}, [{"a": torch.tensor([3.0, 2.0])}, {"a": torch.tensor([1.0, 6.0])}]
    assert recipes[0].between(start, ends, 0.25)["a"].tolist() == [1.5, 3.0]
    assert start["a"].tolist() == [1, 2]


def test_a_joined_network_begins_as_its_teacher_and_what_it_learns_is_all_of_its_state(recipes):
    import voc20_composite

    torch.manual_seed(0)
    teacher, images = yolox.build("nano", 3).eval(), torch.rand(2, 3, 64, 96)
    network = voc20_composite.Joined(teacher, 0.5)
    network.standardise([images, images.flip(0)])
    with torch.no_grad():
        ours, theirs = network.train()(images)
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours, theirs, strict=True))
        for value in network.feeds.parameters():
            nn.init.normal_(value, std=3.0)
        ours, again = network(images)
    for a, b, c in zip(ours, theirs, again, strict=True):
        assert (b - c).abs().max() < 0.01 * (a - b).abs().max()  # the teacher is what it was
    assert network.state_dict().keys() - teacher.state_dict().keys() == {
        f"{part}.{index}.{name}"
        for index in range(3)
        for part, names in (
            ("feeds", ("weight", "bias")),
            ("norms", ("running_mean", "running_var", "num_batches_tracked")),
        )
        for name in names
    }
