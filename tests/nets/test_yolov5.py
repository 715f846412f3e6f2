"""The networks against published and calculated figures, and decode against the formulas written out."""

import math

import pytest
import torch
from torch import Tensor, nn

from openlepton.errors import UsageError
from openlepton.nets import yolov5
from openlepton.nets.yolov5 import ANCHORS_P5, Focus, Yolov5

COUNTS = {  # trained, batch norms fused, tensors of the state
    "n": (1_872_157, 1_867_405, 349),
    "s": (7_235_389, 7_225_885, 349),
    "m": (21_190_557, 21_172_173, 481),
    "l": (46_563_709, 46_533_693, 613),
    "x": (86_749_405, 86_705_005, 745),
    "n6": (3_246_940, None, 459),
    "s6": (12_626_620, None, 459),
    "m6": (35_731_932, None, 627),
    "l6": (76_770_172, None, 795),
    "x6": (140_794_780, None, 963),
}
LAYERS = {
    "n": "1760 4672 4800 18560 29184 73984 156928 295424 296448 164608 33024 0 0 90880 8320 0 0 22912 36992 0 74496 "
    "147712 0 296448 115005",
    "s": "3520 18560 18816 73984 115712 295424 625152 1180672 1182720 656896 131584 0 0 361984 33024 0 0 90880 147712 0 "
    "296448 590336 0 1182720 229245",
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def small() -> Yolov5:
    """Three classes; batch norms with statistics as if trained, so that fusing has something to do."""
    torch.manual_seed(0)
    network = yolov5.build("n", 3).eval()
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
        network = yolov5.build(size)
    trained, fused, tensors = COUNTS[size]
    assert count(network) == trained
    assert len(network.state_dict()) == tensors
    if fused is not None:  # each batch norm has a weight and a bias, of which only a bias stays
        norms = sum(module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm2d))
        assert trained - norms == fused


@pytest.mark.parametrize("size", ["n", "s"])
def test_fusing_leaves_as_many_parameters_as_published(size: str) -> None:
    assert count(yolov5.build(size).fused()) == COUNTS[size][1]


@pytest.mark.parametrize("size", LAYERS)
def test_every_layer_has_its_parameters(size: str) -> None:
    layers = yolov5.build(size).model
    assert [count(layer) for layer in layers] == [int(word) for word in LAYERS[size].split()]


@pytest.mark.parametrize("classes", [1, 2, 20, 365])
def test_classes_change_only_the_head(classes: int) -> None:
    # three anchors at 64, 128 and 256 channels, each output with a bias
    assert count(yolov5.build("n", classes)) == 1_872_157 - 3 * (80 - classes) * (64 + 128 + 256 + 3)


def test_v5_layout_has_the_published_parameters() -> None:
    assert count(yolov5.build("s", layout="v5")) == 7_276_605


def test_state_has_the_names_of_the_field() -> None:
    state = yolov5.build("n").state_dict()
    shapes = {name: tuple(state[name].shape) for name in state}
    assert shapes["model.0.conv.weight"] == (16, 3, 6, 6)
    assert shapes["model.0.bn.running_var"] == (16,)
    assert shapes["model.2.m.0.cv2.conv.weight"] == (16, 16, 3, 3)
    assert shapes["model.9.cv2.bn.num_batches_tracked"] == ()
    assert shapes["model.24.anchors"] == (3, 3, 2)
    assert shapes["model.24.m.2.weight"] == (255, 256, 1, 1)
    assert list(shapes)[-7:] == [
        "model.24.anchors",
        *(f"model.24.m.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")),
    ]


def test_anchors_are_kept_in_cells() -> None:
    anchors = yolov5.build("n").detect.anchors
    assert anchors[0].tolist() == [[1.25, 1.625], [2.0, 3.75], [4.125, 2.875]]
    assert anchors[2, 2].tolist() == [373 / 32, 326 / 32]


def test_untrained_head_expects_eight_objects_in_an_image() -> None:
    torch.manual_seed(0)
    network = yolov5.build("n", 20)
    for conv, stride in zip(network.detect.m, (8, 16, 32), strict=True):
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        bound = 1 / math.sqrt(conv.in_channels)  # torch draws biases within it
        bias = conv.bias.view(3, 25)
        assert (bias[:, 4] - math.log(8 / (640 / stride) ** 2)).abs().max() <= bound
        assert (bias[:, 5:] - math.log(0.6 / (20 - 0.99999))).abs().max() <= bound


def test_raw_maps_have_a_channel_for_every_number() -> None:
    maps = yolov5.build("n", 7).eval()(torch.zeros(2, 3, 64, 96))
    assert [tuple(level.shape) for level in maps] == [(2, 36, 8, 12), (2, 36, 4, 6), (2, 36, 2, 3)]


def test_a_square_of_640_gives_25200_rows() -> None:
    network = yolov5.build("n", 1)
    boxes, scores = network.decode([torch.zeros(1, 18, 640 // stride, 640 // stride) for stride in (8, 16, 32)])
    assert boxes.shape == (1, 25_200, 4)
    assert scores.shape == (1, 25_200, 1)


def test_decode_does_what_the_formulas_say() -> None:
    network = yolov5.build("n", 4)
    torch.manual_seed(1)
    maps = [torch.randn(2, 27, 64 // stride, 96 // stride) * 2 for stride in (8, 16, 32)]
    boxes, scores = network.decode(maps)
    row = 0
    for level, stride in enumerate((8, 16, 32)):
        for anchor in range(3):
            for y in range(64 // stride):
                for x in range(96 // stride):
                    t = torch.sigmoid(maps[level][1, anchor * 9 : anchor * 9 + 9, y, x].double())
                    aw, ah = ANCHORS_P5[level][anchor]
                    cx, cy = (2 * t[0] - 0.5 + x) * stride, (2 * t[1] - 0.5 + y) * stride
                    w, h = (2 * t[2]) ** 2 * aw, (2 * t[3]) ** 2 * ah
                    expected = torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
                    torch.testing.assert_close(boxes[1, row].double(), expected, atol=1e-4, rtol=1e-6)
                    torch.testing.assert_close(scores[1, row].double(), t[4] * t[5:], atol=1e-6, rtol=1e-6)
                    row += 1
    assert boxes.shape[1] == scores.shape[1] == row


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (2, 3, 96, 160)])
def test_fused_network_computes_the_same(small: Yolov5, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape)
    fused = small.fused()
    with torch.no_grad():
        wanted, got = small.decode(small(images)), fused.decode(fused(images))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    torch.testing.assert_close(got[0], wanted[0], atol=2e-3, rtol=1e-5)
    torch.testing.assert_close(got[1], wanted[1], atol=2e-5, rtol=1e-4)


def test_fusing_leaves_the_network_alone(small: Yolov5) -> None:
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    small.fused()
    after = small.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_focus_is_a_six_by_six_convolution() -> None:
    torch.manual_seed(2)
    focus = Focus(3, 16).eval().double()
    images = torch.rand(2, 3, 32, 48, dtype=torch.float64)
    fused = focus.fused()
    assert fused.conv.weight.shape == (16, 3, 6, 6)
    torch.testing.assert_close(fused(images), focus(images), atol=1e-12, rtol=0)


def test_sppf_equals_spp_of_5_9_13() -> None:
    torch.manual_seed(3)
    chained = yolov5.SPPF(16, 16).eval()
    beside = yolov5.SPP(16, 16, (5, 9, 13)).eval()
    beside.load_state_dict(chained.state_dict())
    x: Tensor = torch.randn(1, 16, 20, 20)
    assert torch.equal(beside(x), chained(x))


def test_six_pyramid_levels_go_to_stride_64() -> None:
    network = yolov5.build("n6", 2).eval()
    assert network.multiple == 64
    maps = network(torch.zeros(1, 3, 128, 64))
    assert [tuple(level.shape) for level in maps] == [(1, 21, 16, 8), (1, 21, 8, 4), (1, 21, 4, 2), (1, 21, 2, 1)]
    assert network.decode(maps)[0].shape == (1, 3 * (128 + 32 + 8 + 2), 4)


@pytest.mark.parametrize(
    ("size", "changes", "message"),
    [
        ("q", {}, "size: expected one of n, s, m, l, x"),
        ("n", {"classes": 0}, "classes: expected at least 1, got 0"),
        ("n", {"anchors": (((1, 1),),)}, "anchors: expected three or four levels"),
        ("n", {"anchors": (((1, 1),), ((1, 1), (2, 2)), ((1, 1),))}, "same number of anchors"),
    ],
)
def test_impossible_networks_are_refused(size: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        yolov5.build(size, **changes)
