"""The networks against published figures and Darknet itself; decode and loss against numbers worked out by hand."""

import math
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from openlepton.errors import ShapeError, UsageError
from openlepton.nets import yolov3
from openlepton.nets.blocks import Conv
from openlepton.nets.darknet_files import read_weights, weights_in
from openlepton.nets.losses import LossConfig
from openlepton.nets.yolov3 import ANCHORS, ANCHORS_TINY, Config, Pools, Yolov3Loss

DARKNET = Path(__file__).parents[1] / "fixtures" / "darknet"
HEADER = 20  # bytes


@pytest.mark.parametrize(
    ("kind", "learned", "file", "convolutions", "rows"),
    [
        ("darknet53", 61_949_149, 248_007_048, 75, 10_647),
        ("tiny", 8_852_366, 35_434_956, 13, 2_535),
        ("spp", 62_998_749, 252_209_544, 76, 10_647),
    ],
)
def test_networks_are_as_large_as_the_published_files(
    kind: str, learned: int, file: int, convolutions: int, rows: int
) -> None:
    with torch.device("meta"):
        network = yolov3.build(kind)
    outputs = 3 * (5 + 80)
    boxes, scores = network.decode([torch.zeros(1, outputs, 416 // s, 416 // s) for s in network.config.strides])
    assert sum(parameter.numel() for parameter in network.parameters()) == learned
    assert HEADER + 4 * weights_in(network) == file
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == convolutions
    assert boxes.shape == (1, rows, 4)
    assert scores.shape == (1, rows, 80)


def test_twenty_classes_make_the_published_file_of_pascal_voc() -> None:
    with torch.device("meta"):
        assert HEADER + 4 * weights_in(yolov3.build("darknet53", 20)) == 246_714_648


def test_tiny_finds_what_darknet_finds_with_the_same_weights() -> None:
    """A narrow one, which the original program ran on a processor: there batch norm adds 1e-6 to the deviation."""
    network = yolov3.build("tiny", 4, width=1 / 8).eval()
    read_weights(network, DARKNET / "yolov3-tiny-slim.weights")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.copy_((module.running_var.sqrt() + 1e-6) ** 2 - module.eps)
    reference = np.load(DARKNET / "yolov3-tiny-slim.npz")
    images = torch.from_numpy(reference["input"])[None].float() / 255
    with torch.no_grad():
        boxes, scores = (found[0].numpy() for found in network.decode(network(images)))
    H, W = images.shape[2:]
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2 / (W, H), (boxes[:, 2:] - boxes[:, :2]) / (W, H)
    found = np.concatenate((centres, sides), 1)
    threshold = float(reference["thresh"])
    rows = reference["rows"]  # centre, size, objectness, scores
    assert len(rows) == 512
    for row in rows:
        nearest = np.abs(found - row[:4]).max(1).argmin()
        assert found[nearest] == pytest.approx(row[:4], rel=1e-5, abs=1e-5)
        above = np.where(scores[nearest] > threshold, scores[nearest], 0)
        assert above == pytest.approx(row[5:], abs=1e-5)


def test_pools_stand_in_darknets_order() -> None:
    x = torch.zeros(1, 1, 15, 15)
    x[0, 0, 7, 7] = 1
    reach = [int(level.sum()) for level in Pools((5, 9, 13))(x)[0]]
    assert reach == [13 * 13, 9 * 9, 5 * 5, 1]


def test_the_pool_of_tiny_that_keeps_its_size_looks_right_and_down() -> None:
    torch.manual_seed(0)
    tiny = yolov3.build("tiny", 1, width=1 / 8).eval().backbone
    fine, coarse = tiny(torch.rand(1, 3, 96, 64))
    x = tiny.convs[5](torch.nn.functional.max_pool2d(fine, 2))
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1), value=-math.inf)
    expected = tiny.convs[6](torch.nn.functional.max_pool2d(padded, 2, 1))
    assert torch.equal(coarse, expected)


def test_decode_does_what_the_formulas_say() -> None:
    network = yolov3.build("tiny", 4, width=1 / 8)
    torch.manual_seed(1)
    maps = [torch.randn(2, 27, 64 // stride, 96 // stride) * 2 for stride in (16, 32)]
    boxes, scores = network.decode(maps)
    expected_boxes, expected_scores = [], []
    for level, stride in enumerate((16, 32)):
        for anchor, (aw, ah) in enumerate(ANCHORS_TINY[level]):
            for y in range(64 // stride):
                for x in range(96 // stride):
                    t = maps[level][1, anchor * 9 : anchor * 9 + 9, y, x].tolist()
                    p = [1 / (1 + exp(-value)) for value in t]
                    cx, cy, w, h = (p[0] + x) * stride, (p[1] + y) * stride, aw * exp(t[2]), ah * exp(t[3])
                    expected_boxes.append([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
                    expected_scores.append([p[4] * kind for kind in p[5:]])
    torch.testing.assert_close(boxes[1], torch.tensor(expected_boxes), atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(scores[1], torch.tensor(expected_scores), atol=1e-6, rtol=1e-6)


def test_boxes_stay_finite_whatever_the_network_says() -> None:
    network = yolov3.build("tiny", 1, width=1 / 8)
    boxes, scores = network.decode([torch.full((1, 18, 2, 2), 1e4), torch.full((1, 18, 1, 1), -1e4)])
    assert boxes.isfinite().all()
    assert ((scores >= 0) & (scores <= 1)).all()


def test_an_untrained_head_expects_little() -> None:
    torch.manual_seed(0)
    network = yolov3.build("tiny", 3, width=1 / 4).eval()
    with torch.no_grad():
        maps = network(torch.rand(1, 3, 64, 64))
    objectness = torch.cat([raw.view(3, 8, -1)[:, 4].flatten() for raw in maps]).sigmoid()
    assert float(objectness.mean()) == pytest.approx(0.01, abs=0.005)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("huge", {}, "kind: expected one of darknet53, spp, tiny"),
        ("tiny", {"classes": 0}, "classes: expected at least 1, got 0"),
        ("tiny", {"anchors": ANCHORS}, "anchors: expected 2 levels"),
        ("darknet53", {"anchors": ANCHORS_TINY}, "anchors: expected 3 levels"),
        ("tiny", {"anchors": (((1, 1),), ((1, 1), (2, 2)))}, "same number of anchors"),
    ],
)
def test_impossible_networks_are_refused(kind: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        yolov3.build(kind, **changes)


# the loss

NOTHING = torch.zeros(0, 6)
CELLS = 3 * (4 * 4 + 2 * 2)  # boxes of a tiny network on 64 x 64 pixels


def config(classes: int = 3) -> Config:
    return Config("tiny", classes, anchors=ANCHORS_TINY)


def empty_maps(classes: int = 3, batch: int = 1) -> list[Tensor]:
    return [torch.zeros(batch, 3 * (5 + classes), 64 // stride, 64 // stride) for stride in (16, 32)]


def test_without_objects_only_objectness_counts() -> None:
    total, parts = Yolov3Loss(config())(empty_maps(), NOTHING)
    assert parts.tolist() == pytest.approx([0, CELLS * log(2), 0])
    assert float(total) == pytest.approx(CELLS * log(2))


def test_a_single_object_by_hand() -> None:
    # 20 by 30 pixels at (36, 40). Its shape is most like the anchor (23, 27): IoU 20 * 27 / (20 * 30 + 23 * 27 - 20 * 27) = 0.79.
    # That is the second of the finest level, whose cells are 16 pixels: column 2, row 2, at (0.25, 0.5) in the cell.
    targets = torch.tensor([[0.0, 1, 36, 40, 20, 30]])
    total, parts = Yolov3Loss(config())(empty_maps(), targets)
    scale = 2 - 20 * 30 / 64**2
    error = (0.5 - 0.25) ** 2 + (0.5 - 0.5) ** 2 + log(20 / 23) ** 2 + log(30 / 27) ** 2
    assert parts.tolist() == pytest.approx([scale * error / 2, CELLS * log(2), 3 * log(2)], rel=1e-5)
    assert float(total) == pytest.approx(float(parts.sum()))


def test_the_answering_cell_alone_learns_the_object() -> None:
    maps = [level.requires_grad_() for level in empty_maps()]
    total, _ = Yolov3Loss(config())(maps, torch.tensor([[0.0, 1, 36, 40, 20, 30]]))
    total.backward()
    assert maps[0].grad is not None
    gradient = maps[0].grad.view(1, 3, 8, 4, 4)
    scale = 2 - 20 * 30 / 64**2
    # "Our gradient is the ground truth value minus our prediction": of the centre's logits as of all others.
    expected = [scale * 0.25, 0, scale * -log(20 / 23), scale * -log(30 / 27), -0.5, 0.5, -0.5, 0.5]
    assert gradient[0, 1, :, 2, 2].tolist() == pytest.approx(expected, abs=1e-5)
    gradient[0, 1, :, 2, 2] = 0
    assert not gradient[:, :, [0, 1, 2, 3, 5, 6, 7]].any()
    assert gradient[0, 0, 4].flatten().tolist() == pytest.approx([0.5] * 16)


def test_the_anchor_of_the_most_similar_shape_answers() -> None:
    wide, tall = torch.tensor([[0.0, 0, 32, 32, 340, 300]]), torch.tensor([[0.0, 0, 32, 32, 30, 60]])
    for targets, level, anchor in ((wide, 1, 2), (tall, 0, 2)):
        maps = [one.requires_grad_() for one in empty_maps()]
        Yolov3Loss(config())(maps, targets)[0].backward()
        asked = []
        for number, one in enumerate(maps):
            assert one.grad is not None
            side = one.shape[2]
            rows = one.grad.view(3, 8, side, side)[:, 4] < 0
            asked += [(number, *place) for place in rows.nonzero().tolist()]
        assert asked == [(level, anchor, *((1, 1) if level else (2, 2)))]


@pytest.mark.parametrize(("x", "spared"), [(46.0, True), (46.6, False)])
def test_what_lies_well_on_an_object_is_spared(x: float, spared: bool) -> None:
    # An object of 81 x 82, as the first anchor of the coarse level, at (x, 48): the cell to the right and below answers for it.
    # The cell on its left has moved its own box to x = 32, as far as it can: IoU (81 - d) / (81 + d) for a distance d.
    overlap = (81 - (x - 32)) / (81 + (x - 32))
    assert (overlap > 0.7) is spared
    maps = empty_maps()
    maps[1].view(3, 8, 2, 2)[0, 0, 1, 0] = 20.0
    _, parts = Yolov3Loss(config())(maps, torch.tensor([[0.0, 0, x, 48, 81, 82]]))
    assert float(parts[1]) == pytest.approx((CELLS - spared) * log(2), rel=1e-5)
    _, parts = Yolov3Loss(config(), ignore=overlap + 0.001)(maps, torch.tensor([[0.0, 0, x, 48, 81, 82]]))
    assert float(parts[1]) == pytest.approx(CELLS * log(2), rel=1e-5)


def by_loops(maps: list[Tensor], targets: Tensor, classes: int) -> tuple[float, float, float]:
    """Box, objectness and class loss summed over the batch, written out box by box in double precision."""
    box = obj = cls = 0.0

    def bce(logit: float, target: float) -> float:
        return max(logit, 0) - logit * target + math.log1p(math.exp(-abs(logit)))

    def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
        w = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
        h = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
        shared = max(w, 0) * max(h, 0)
        return shared / (a[2] * a[3] + b[2] * b[3] - shared)

    shapes = [anchor for level in ANCHORS_TINY for anchor in level]
    asked: dict[tuple[int, ...], tuple[list[float], set[int]]] = {}
    for image, kind, x, y, w, h in targets.tolist():
        best = max(range(6), key=lambda index: overlap((0, 0, w, h), (0, 0, *shapes[index])))
        stride = (16, 32)[best // 3]
        key = (best // 3, int(image), best % 3, int(y // stride), int(x // stride))
        asked[key] = ([x, y, w, h], asked.get(key, ([], set()))[1] | {int(kind)})
    for level, stride in enumerate((16, 32)):
        B, _, H, W = maps[level].shape
        for image in range(B):
            truth = [tuple(row[2:]) for row in targets.tolist() if row[0] == image]
            for anchor in range(3):
                for r in range(H):
                    for c in range(W):
                        t = maps[level][image].view(3, 5 + classes, H, W)[anchor, :, r, c].tolist()
                        aw, ah = ANCHORS_TINY[level][anchor]
                        sx, sy = (1 / (1 + exp(-v)) for v in t[:2])
                        at = ((sx + c) * stride, (sy + r) * stride, aw * exp(t[2]), ah * exp(t[3]))
                        key = (level, image, anchor, r, c)
                        if key in asked:
                            (x, y, w, h), kinds = asked[key]
                            scale = 2 - w * h / (H * W * stride**2)
                            errors = (
                                sx - (x / stride - c),
                                sy - (y / stride - r),
                                t[2] - log(w / aw),
                                t[3] - log(h / ah),
                            )
                            box += scale * sum(error**2 for error in errors) / 2
                            obj += bce(t[4], 1)
                            cls += sum(bce(t[5 + k], float(k in kinds)) for k in range(classes))
                        elif all(overlap(at, one) <= 0.7 for one in truth):
                            obj += bce(t[4], 0)
    return box, obj, cls


def random_targets(count: int, classes: int = 3) -> Tensor:
    torch.manual_seed(count)
    unit = torch.rand(count, 6)
    targets = unit * torch.tensor([2, classes, 96, 64, 90, 60]) + torch.tensor([0, 0, 0, 0, 4, 4])
    targets[:, :2] = targets[:, :2].floor()
    return targets


@pytest.mark.parametrize("count", [1, 8, 60])
def test_the_loss_is_what_loops_over_all_boxes_give(count: int) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, 24, 64 // stride, 96 // stride) * 0.7 for stride in (16, 32)]
    total, parts = Yolov3Loss(config())(maps, random_targets(count))
    expected = by_loops(maps, random_targets(count), 3)
    assert (parts * 2).tolist() == pytest.approx(expected, rel=1e-5)
    assert float(total) == pytest.approx(sum(expected), rel=1e-5)


def test_some_of_the_boxes_of_that_test_are_spared() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, 24, 64 // stride, 96 // stride) * 0.7 for stride in (16, 32)]
    strict, lax = (Yolov3Loss(config(), ignore=ignore)(maps, random_targets(60))[1][1] for ignore in (1.0, 0.7))
    assert float(strict) > float(lax) + 0.1


def test_weights_are_in_proportion_to_the_papers() -> None:
    targets, maps = random_targets(8), empty_maps(batch=2)
    _, plain = Yolov3Loss(config())(maps, targets)
    _, heavy = Yolov3Loss(config(), LossConfig(box=0.1, obj=3.0, cls=0.25))(maps, targets)
    assert heavy.tolist() == pytest.approx([float(plain[0]) * 2, float(plain[1]) * 3, float(plain[2]) / 2])


def test_smoothing_draws_the_classes_towards_a_half() -> None:
    maps = empty_maps()
    maps[0].view(3, 8, 4, 4)[1, 5:, 2, 2] = torch.tensor([-2.0, 2.0, -2.0])
    _, parts = Yolov3Loss(config(), LossConfig(smoothing=0.2))(maps, torch.tensor([[0.0, 1, 36, 40, 20, 30]]))
    each = 0.9 * log(1 + exp(-2)) + 0.1 * log(1 + exp(2))
    assert float(parts[2]) == pytest.approx(3 * each, rel=1e-5)


def test_gradients_reach_every_parameter_of_the_large_network() -> None:
    torch.manual_seed(0)
    network = yolov3.build("spp", 3, width=1 / 16).train()
    small_to_large = torch.tensor([[0.0, 0, 40, 40, 12, 14], [1, 1, 50, 30, 60, 50], [0, 2, 64, 64, 120, 120]])
    every = torch.tensor([[1.0, 0, 64, 64, w, h] for level in ANCHORS for w, h in level])
    total, _ = network.criterion(LossConfig(), 128)(
        network(torch.rand(2, 3, 128, 128)), torch.cat((small_to_large, every))
    )
    total.backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_stages_begin_at_the_image_and_tell_the_backbone() -> None:
    with torch.device("meta"):
        for kind, parts, backbone in (("darknet53", 9, 6), ("tiny", 9, 7)):
            stages, count = yolov3.build(kind, 1).stages
            assert (len(stages), count) == (parts, backbone)
            assert isinstance(stages[0], Conv)
            assert stages[0].conv.in_channels == 3


@pytest.mark.parametrize("targets", [torch.zeros(6), torch.zeros(2, 5)])
def test_targets_of_another_shape_are_refused(targets: Tensor) -> None:
    with pytest.raises(ShapeError, match=r"targets: expected \(N, 6\)"):
        Yolov3Loss(config())(empty_maps(), targets)
