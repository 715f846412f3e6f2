"""The loss against numbers worked out by hand, and against the same formulas written as plain loops."""

import math
from math import log, pi

import pytest
import torch
from torch import Tensor

from openlepton.errors import ShapeError, UsageError
from openlepton.nets import yolov5
from openlepton.nets.losses import LossConfig
from openlepton.nets.yolov5 import Config
from openlepton.nets.yolov5_loss import Yolov5Loss, assign, ciou

STRIDES = (8, 16, 32)
BALANCE = (4.0, 1.0, 0.4)


def config(classes: int = 3) -> Config:
    return Config(0.33, 0.25, classes)


def random_maps(classes: int, batch: int = 2, size: tuple[int, int] = (64, 96)) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(batch, 3 * (5 + classes), size[0] // s, size[1] // s, dtype=torch.float64) for s in STRIDES]


def empty_maps(classes: int, size: int = 64, batch: int = 1) -> list[Tensor]:
    return [torch.zeros(batch, 3 * (5 + classes), size // s, size // s) for s in STRIDES]


NOTHING = torch.zeros(0, 6)


# who answers for an object


def test_an_object_is_its_own_cell_and_the_two_nearest() -> None:
    # 16 by 16 pixels at (34, 27) are 2 by 2 cells at (4.25, 3.375) of stride 8: left of and above the middle of its cell
    found = assign(torch.tensor([[1.0, 2.0, 34, 27, 16, 16]]), torch.tensor([[2.0, 2.0]]), 8, (8, 8), 4.0)
    cells = {(int(y), int(x)): box.tolist() for y, x, box in zip(found.row, found.column, found.boxes, strict=True)}
    assert cells == {
        (3, 4): [0.25, 0.375, 2, 2],
        (3, 3): [1.25, 0.375, 2, 2],
        (2, 4): [0.25, 1.375, 2, 2],
    }
    assert found.image.tolist() == [1, 1, 1]
    assert found.classes.tolist() == [2, 2, 2]


def test_right_and_below_are_chosen_past_the_middle() -> None:
    found = assign(torch.tensor([[0.0, 0, 38, 30, 16, 16]]), torch.tensor([[2.0, 2.0]]), 8, (8, 8), 4.0)
    assert sorted(zip(found.row.tolist(), found.column.tolist(), strict=True)) == [(3, 4), (3, 5), (4, 4)]


def test_cells_beyond_the_border_are_never_chosen() -> None:
    corners = torch.tensor([[0.0, 0, 2, 2, 16, 16], [0.0, 0, 62, 62, 16, 16]])
    found = assign(corners, torch.tensor([[2.0, 2.0]]), 8, (8, 8), 4.0)
    assert sorted(zip(found.row.tolist(), found.column.tolist(), strict=True)) == [(0, 0), (7, 7)]


@pytest.mark.parametrize(("width", "fits"), [(15.9, True), (16.0, False), (1.01, True), (1.0, False)])
def test_anchors_answer_for_less_than_four_times_their_size(width: float, fits: bool) -> None:
    found = assign(torch.tensor([[0.0, 0, 36, 36, width, 4]]), torch.tensor([[4.0, 4.0]]), 1, (64, 64), 4.0)
    assert bool(len(found.image)) is fits


def by_loops(
    maps: list[Tensor], targets: Tensor, shape: Config, weights: LossConfig, size: int = 640
) -> tuple[float, float, float]:
    """Box, objectness and class loss of one image, written out cell by cell in double precision."""
    C, box, obj, cls = shape.classes, 0.0, 0.0, 0.0

    def bce(logit: float, target: float) -> float:
        return max(logit, 0) - logit * target + math.log1p(math.exp(-abs(logit)))

    for raw, anchors, stride, balance in zip(maps, shape.anchors, STRIDES, BALANCE, strict=True):
        B, _, H, W = raw.shape
        logits = raw.double().view(B, 3, 5 + C, H, W)
        wanted = torch.zeros(B, 3, H, W, dtype=torch.float64)
        overlaps, classes = [], []
        for image, label, x, y, w, h in targets.double().tolist():
            gx, gy = x / stride, y / stride
            for a, (aw, ah) in enumerate(anchors):
                if max(w / aw, aw / w, h / ah, ah / h) >= weights.max_ratio:
                    continue
                cells = [(int(gx), int(gy))]
                cells += [(int(gx) - 1, int(gy))] if gx % 1 < 0.5 and gx > 1 else []
                cells += [(int(gx), int(gy) - 1)] if gy % 1 < 0.5 and gy > 1 else []
                cells += [(int(gx) + 1, int(gy))] if (W - gx) % 1 < 0.5 and W - gx > 1 else []
                cells += [(int(gx), int(gy) + 1)] if (H - gy) % 1 < 0.5 and H - gy > 1 else []
                for cx, cy in cells:
                    t = logits[int(image), a, :, cy, cx]
                    s = t.sigmoid().tolist()
                    guess = (
                        s[0] * 2 - 0.5,
                        s[1] * 2 - 0.5,
                        (s[2] * 2) ** 2 * aw / stride,
                        (s[3] * 2) ** 2 * ah / stride,
                    )
                    overlap = slow_ciou(guess, (gx - cx, gy - cy, w / stride, h / stride))
                    overlaps.append(overlap)
                    wanted[int(image), a, cy, cx] = max(float(wanted[int(image), a, cy, cx]), overlap, 0)
                    classes += [
                        bce(logit, 1 - weights.smoothing / 2 if k == label else weights.smoothing / 2)
                        for k, logit in enumerate(t[5:].tolist())
                    ]
        if overlaps:
            box += sum(1 - overlap for overlap in overlaps) / len(overlaps)
            cls += sum(classes) / len(classes) if C > 1 else 0.0
        pairs = zip(logits[:, :, 4].flatten().tolist(), wanted.flatten().tolist(), strict=True)
        obj += sum(bce(logit, target) for logit, target in pairs) / wanted.numel() * balance
    return box * weights.box, obj * weights.obj * (size / 640) ** 2, cls * weights.cls * C / 80


def slow_ciou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    w = min(ax + aw / 2, bx + bw / 2) - max(ax - aw / 2, bx - bw / 2)
    h = min(ay + ah / 2, by + bh / 2) - max(ay - ah / 2, by - bh / 2)
    shared = max(w, 0) * max(h, 0)
    iou = shared / (aw * ah + bw * bh - shared)
    around_w = max(ax + aw / 2, bx + bw / 2) - min(ax - aw / 2, bx - bw / 2)
    around_h = max(ay + ah / 2, by + bh / 2) - min(ay - ah / 2, by - bh / 2)
    v = 4 / pi**2 * (math.atan(bw / bh) - math.atan(aw / ah)) ** 2
    return iou - ((ax - bx) ** 2 + (ay - by) ** 2) / (around_w**2 + around_h**2) - v * v / (1 - iou + v + 1e-7)


def random_targets(count: int, batch: int = 2, classes: int = 3) -> Tensor:
    torch.manual_seed(count)
    unit = torch.rand(count, 6)
    scale = torch.tensor([batch, classes, 96, 64, 70, 60])
    targets = unit * scale + torch.tensor([0, 0, 0, 0, 3, 3])
    targets[:, :2] = targets[:, :2].floor()
    return targets


@pytest.mark.parametrize("weights", [LossConfig(), LossConfig(box=0.1, obj=0.7, cls=0.3, max_ratio=2, smoothing=0.2)])
@pytest.mark.parametrize("count", [1, 8, 40])
def test_the_loss_is_what_loops_over_all_cells_give(count: int, weights: LossConfig) -> None:
    maps, targets = random_maps(3), random_targets(count)
    total, parts = Yolov5Loss(config(), weights)(maps, targets)
    expected = by_loops(maps, targets, config(), weights)
    assert parts.tolist() == pytest.approx(expected, rel=2e-5)
    assert float(total) == pytest.approx(2 * sum(expected), rel=2e-5)  # two images


# each term by hand


def test_without_objects_only_objectness_counts() -> None:
    total, parts = Yolov5Loss(config(), LossConfig())(empty_maps(3), NOTHING)
    assert parts.tolist() == pytest.approx([0, log(2) * (4 + 1 + 0.4), 0])
    assert float(total) == pytest.approx(log(2) * 5.4)


def test_the_loss_is_summed_over_images() -> None:
    one, _ = Yolov5Loss(config(), LossConfig())(empty_maps(3), NOTHING)
    four, _ = Yolov5Loss(config(), LossConfig())(empty_maps(3, batch=4), NOTHING)
    assert float(four) == pytest.approx(4 * float(one))


def test_objectness_grows_with_the_area_of_the_images() -> None:
    _, parts = Yolov5Loss(config(), LossConfig(), size=1280)(empty_maps(3), NOTHING)
    assert parts.tolist() == pytest.approx([0, log(2) * 5.4 * 4, 0])


def test_six_levels_weigh_less_each() -> None:
    network = yolov5.build("n6", 3)
    maps = [torch.zeros(1, 24, 64 // s, 64 // s) for s in (8, 16, 32, 64)]
    _, parts = Yolov5Loss(network.config, LossConfig())(maps, NOTHING)
    assert parts.tolist() == pytest.approx([0, log(2) * (4 + 1 + 0.25 + 0.06) * 3 / 4, 0])


def test_a_single_object_by_hand() -> None:
    # An object as large as the finest level's first anchor, in the very middle of a cell: one cell, one anchor by max_ratio.
    # Logits of zero guess the cell's middle and the anchor's size: complete IoU is 1, its cell's objectness wants 1.
    targets = torch.tensor([[0.0, 1, 36, 36, 10, 13]])
    total, parts = Yolov5Loss(config(), LossConfig(max_ratio=1.2))(empty_maps(3), targets)
    obj = log(2) * 5.4  # cross-entropy at a logit of zero is ln 2 whatever it wants
    cls = log(2) * 0.5 * 3 / 80
    assert parts.tolist() == pytest.approx([0, obj, cls], abs=1e-6)
    assert float(total) == pytest.approx(obj + cls)


def test_a_confident_answer_in_the_right_cell_costs_next_to_nothing() -> None:
    maps = empty_maps(3)
    for level in maps:
        level.view(1, 3, 8, *level.shape[2:])[:, :, 4] = -20
    own = maps[0].view(1, 3, 8, 8, 8)[0, 0, :, 4, 4]
    own[4:] = torch.tensor([20.0, -20, 20, -20])
    right = torch.tensor([[0.0, 1, 36, 36, 10, 13]])
    _, parts = Yolov5Loss(config(), LossConfig(max_ratio=1.2))(maps, right)
    assert parts.tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    wrong = right.clone()
    wrong[0, 1] = 2
    _, parts = Yolov5Loss(config(), LossConfig(max_ratio=1.2))(maps, wrong)
    assert parts.tolist() == pytest.approx(
        [0, 0, 40 / 3 * 0.5 * 3 / 80], abs=1e-5
    )  # two of three classes are off by 20


def test_one_class_has_no_class_loss() -> None:
    _, parts = Yolov5Loss(config(1), LossConfig())(empty_maps(1), torch.tensor([[0.0, 0, 36, 36, 10, 13]]))
    assert float(parts[2]) == 0
    assert float(parts[0]) > 0


def test_focal_loss_pays_less_for_what_is_easy() -> None:
    maps = empty_maps(3)
    for level in maps:
        level += 2.0
    _, parts = Yolov5Loss(config(), LossConfig(focus=1.5))(maps, NOTHING)
    share = 1 / (1 + math.exp(-2))  # certain of what is not there
    each = -log(1 - share) * 0.75 * share**1.5
    assert float(parts[1]) == pytest.approx(each * 5.4, rel=1e-5)


def test_objects_in_one_cell_count_in_any_order() -> None:
    targets = random_targets(60)
    targets[30:, 2:4] = targets[:30, 2:4]
    loss, maps = Yolov5Loss(config(), LossConfig()), random_maps(3)
    forwards, backwards = loss(maps, targets)[1], loss(maps, targets.flip(0))[1]
    assert forwards.tolist() == pytest.approx(backwards.tolist(), rel=1e-6)


# complete IoU

FOUR_PI = 4 / pi**2
SHAPE = FOUR_PI * (math.atan(2) - math.atan(1)) ** 2


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (1, 0, 2, 2), 1 / 3 - 1 / 13),  # around both: 3 by 2
        ((0, 0, 2, 2), (4, 0, 2, 2), 0 - 16 / 40),  # apart: 6 by 2
        ((0, 0, 2, 2), (0, 0, 4, 2), 1 / 2 - SHAPE**2 / (1 - 1 / 2 + SHAPE)),  # another shape
        ((0, 0, 2, 2), (0, 0, 4, 4), 1 / 4),
    ],
)
def test_complete_iou_by_hand(a: tuple[float, ...], b: tuple[float, ...], expected: float) -> None:
    found = ciou(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))
    assert float(found) == pytest.approx(expected, abs=1e-6)


# learning


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    network = yolov5.build("n", 3).train()
    targets = random_targets(20)
    total, _ = Yolov5Loss(network.config, LossConfig())(network(torch.rand(2, 3, 64, 96)), targets)
    total.backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_gradients_are_finite_without_objects() -> None:
    torch.manual_seed(0)
    network = yolov5.build("n", 3).train()
    total, _ = Yolov5Loss(network.config, LossConfig())(network(torch.rand(2, 3, 64, 64)), NOTHING)
    total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.slow
def test_what_the_loss_asks_for_decodes_to_the_object() -> None:
    network = yolov5.build("n", 3)
    maps = [level.requires_grad_() for level in empty_maps(3)]  # learned directly, whatever network would give them
    loss, optimiser = Yolov5Loss(network.config, LossConfig()), torch.optim.Adam(maps, 0.2)
    for _ in range(300):
        total, _ = loss(maps, torch.tensor([[0.0, 1, 35, 27, 20, 26]]))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    with torch.no_grad():
        boxes, scores = network.decode(maps)
    best = scores[0].amax(1).argmax()
    assert int(scores[0, best].argmax()) == 1
    assert float(scores[0, best].max()) > 0.9
    assert boxes[0, best].tolist() == pytest.approx([25, 14, 45, 40], abs=0.5)


@pytest.mark.parametrize("targets", [torch.zeros(6), torch.zeros(2, 5)])
def test_targets_of_another_shape_are_refused(targets: Tensor) -> None:
    with pytest.raises(ShapeError, match=r"targets: expected \(N, 6\)"):
        Yolov5Loss(config(), LossConfig())(empty_maps(3), targets)


@pytest.mark.parametrize("changes", [{"box": -1}, {"max_ratio": 1}, {"smoothing": 1}, {"focus": -1}])
def test_weights_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="loss: expected weights of 0 or more"):
        LossConfig(**changes)
