"""The networks against published figures, and decode against the formulas written out."""

import math

import pytest
import torch
from torch import Tensor, nn

from openlepton.errors import UsageError
from openlepton.nets import yolox

PUBLISHED = {"nano": 0.91, "tiny": 5.06, "s": 9.0, "m": 25.3, "l": 54.2, "x": 99.1}
"""Millions of parameters, arXiv:2107.08430, tables 3 and 4."""


def maps(classes: int, batch: int = 1, size_hw: tuple[int, int] = (64, 96)) -> list[Tensor]:
    height, width = size_hw
    return [torch.zeros(batch, 5 + classes, height // s, width // s) for s in (8, 16, 32)]


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_as_many_as_published(size: str) -> None:
    with torch.device("meta"):
        network = yolox.build(size)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED[size], rel=0.01)


def test_nano_has_a_depthwise_convolution_for_every_one_of_three_by_three() -> None:
    with torch.device("meta"):
        network = yolox.build("nano")
    wide = [conv for conv in network.modules() if isinstance(conv, nn.Conv2d) and conv.kernel_size != (1, 1)]
    assert [conv.kernel_size for conv in wide if conv.groups == 1] == [(6, 6)]
    assert all(conv.groups == conv.in_channels == conv.out_channels for conv in wide[1:])


def test_classes_begin_at_one_in_a_hundred() -> None:
    head = yolox.build("nano", 3).head
    biases = [conv.bias for conv in (*head.objectness, *head.classes)]
    assert all(torch.sigmoid(bias).detach().numpy() == pytest.approx(0.01) for bias in biases)


def test_a_cell_is_decoded_as_the_formulas_say() -> None:
    levels = maps(3)
    levels[1][0, :, 2, 5] = torch.tensor([0.25, -0.5, math.log(3), math.log(0.5), 1.0, -1.0, 2.0, 0.0])
    boxes, scores = yolox.build("nano", 3).decode(levels)
    cell = 8 * 12 + 2 * 6 + 5  # after the finest level's 8 by 12; the third row of 6, the sixth column
    x, y, w, h = (5 + 0.25) * 16, (2 - 0.5) * 16, 3 * 16, 0.5 * 16
    assert boxes[0, cell].tolist() == pytest.approx([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    sure = [1 / (1 + math.exp(-logit)) / (1 + math.exp(-1)) for logit in (-1, 2, 0)]
    assert scores[0, cell].tolist() == pytest.approx(sure)


def test_rows_come_level_by_level_and_a_zero_is_the_corner_of_its_cell() -> None:
    boxes, scores = yolox.build("nano", 2).decode(maps(2, size_hw=(64, 64)))
    assert boxes.shape == (1, 64 + 16 + 4, 4)
    assert torch.equal(scores, torch.full((1, 84, 2), 0.25))
    assert boxes[0, 9].tolist() == [8 - 4, 8 - 4, 8 + 4, 8 + 4]
    assert boxes[0, 64 + 1].tolist() == [16 - 8, -8, 16 + 8, 8]
    assert boxes[0, 83].tolist() == [32 - 16, 32 - 16, 32 + 16, 32 + 16]


def test_fusing_changes_nothing() -> None:
    torch.manual_seed(0)
    network = yolox.build("nano", 3).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        for a, b in zip(network(images), network.fused()(images), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_the_stages_are_the_network_and_begin_with_the_backbone() -> None:
    network = yolox.build("nano", 3)
    stages, backbone = network.stages
    assert sum(p.numel() for s in stages for p in s.parameters()) == sum(p.numel() for p in network.parameters())
    assert [id(stage) for stage in stages[:backbone]] == [
        id(part) for part in (network.stem, network.dark2, network.dark3, network.dark4, network.dark5)
    ]


def test_an_unknown_size_or_no_class_is_refused() -> None:
    with pytest.raises(UsageError, match="expected one of nano, tiny, s, m, l, x, got 'n'"):
        yolox.build("n")
    with pytest.raises(UsageError, match="classes: expected at least 1"):
        yolox.build("nano", 0)
