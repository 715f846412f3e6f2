"""YOLOv5 with masks: sizes as published, decode as the formulas say, the form for inference equal to the trained one."""

import pytest
import torch
from torch import nn

from openlepton.nets import yolov5_seg
from openlepton.nets.yolov5_heads import Prototypes, Segment
from openlepton.nets.yolov5_seg import Yolov5Seg

COUNTS = {  # trained parameters, tensors of the state
    "n": (1_991_549, 367),
    "s": (7_621_277, 367),
    "m": (21_990_397, 499),
    "l": (47_924_957, 631),
    "x": (88_819_517, 763),
}


@pytest.fixture(scope="module")
def small() -> Yolov5Seg:
    """Three classes; batch norms with statistics as if trained, so that fusing has something to do."""
    torch.manual_seed(0)
    network = yolov5_seg.build("n", 3).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return network


@pytest.mark.parametrize("size", COUNTS)
def test_parameters_are_as_many_as_published(size: str) -> None:
    with torch.device("meta"):
        network = yolov5_seg.build(size)
    assert (sum(p.numel() for p in network.parameters()), len(network.state_dict())) == COUNTS[size]


def test_state_has_the_names_of_the_field() -> None:
    state = yolov5_seg.build("n").state_dict()
    assert tuple(state["model.24.m.0.weight"].shape) == (3 * (5 + 80 + 32), 64, 1, 1)
    assert tuple(state["model.24.proto.cv1.conv.weight"].shape) == (64, 64, 3, 3)
    assert tuple(state["model.24.proto.cv3.bn.running_var"].shape) == (32,)


def test_coefficients_are_the_raw_channels_after_the_classes_in_the_order_of_the_rows() -> None:
    network = yolov5_seg.build("n", 2)
    torch.manual_seed(1)
    maps = [torch.randn(2, 3 * 39, 64 // stride, 96 // stride) for stride in (8, 16, 32)]
    protos = torch.randn(2, 32, 16, 24)
    boxes, scores, coeffs, passed = network.decode((maps, protos))
    assert passed is protos
    row = 0
    for level in maps:
        for anchor in range(3):
            for y in range(level.shape[2]):
                for x in range(level.shape[3]):
                    raw = level[1, anchor * 39 : anchor * 39 + 39, y, x]
                    assert torch.equal(coeffs[1, row], raw[7:])
                    torch.testing.assert_close(scores[1, row], raw[4].sigmoid() * raw[5:7].sigmoid())
                    row += 1
    assert boxes.shape == (2, row, 4)


def test_prototypes_are_enlarged_to_the_nearest_between_their_convolutions() -> None:
    torch.manual_seed(2)
    protos = Prototypes(8, 16, act="silu").eval()
    x = torch.randn(1, 8, 5, 7)
    big = protos.cv1(x).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(protos(x), protos.cv3(protos.cv2(big)))
    assert protos(x).shape == (1, 32, 10, 14)


def test_fused_network_computes_the_same_and_leaves_the_other_alone(small: Yolov5Seg) -> None:
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    images = torch.rand(2, 3, 96, 160)
    fused = small.fused()
    with torch.no_grad():
        wanted, got = small.decode(small(images)), fused.decode(fused(images))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    for a, b, tolerance in zip(wanted, got, (2e-3, 2e-5, 1e-4, 1e-4), strict=True):
        torch.testing.assert_close(b, a, atol=tolerance, rtol=1e-4)
    after = small.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert isinstance(small.detect, Segment)


def test_untrained_head_has_the_prior_of_detectors_and_leaves_coefficients_alone() -> None:
    torch.manual_seed(0)
    bias = yolov5_seg.build("n", 20).detect.m[0].bias.view(3, 57)
    assert (bias[:, 4] < -6).all()
    assert (bias[:, 5:25] < -2.5).all()
    assert bias[:, 25:].abs().max() <= 1 / 8  # torch's own, within one over the root of 64 channels
