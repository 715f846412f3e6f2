"""The networks against published sizes and Darknet itself; decode, loss and the article's class term worked out by hand."""

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from openlepton.errors import ShapeError, UsageError
from openlepton.nets import yolov1
from openlepton.nets.darknet_files import weights_in
from openlepton.nets.losses import LossConfig
from openlepton.nets.yolov1 import CONVS, Config, Local, Yolov1Loss, class_error, corners, parts

OLD_HEADER, HEADER = 16, 20  # bytes


@pytest.mark.parametrize(
    ("kind", "file", "convolutions", "numbers"),
    [("local", 789_312_988, 24, 1715), ("tiny", 108_399_816, 8, 1470)],
)
def test_networks_are_as_large_as_the_released_files(kind: str, file: int, convolutions: int, numbers: int) -> None:
    with torch.device("meta"):
        network = yolov1.build(kind)
    assert OLD_HEADER + 4 * weights_in(network) == file
    assert HEADER + 4 * weights_in(network) == file + 4
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == convolutions
    assert network.config.numbers == numbers


def test_the_papers_network_has_24_convolutions_and_two_connected_layers() -> None:
    with torch.device("meta"):
        network = yolov1.build("paper")
    cin, convolutions = 3, 0
    for kernel, cout, _ in CONVS:
        if kernel:
            convolutions += kernel * kernel * cin * cout + cout
            cin = cout
    connected = 7 * 7 * 1024 * 4096 + 4096 + 4096 * 1470 + 1470
    assert sum(parameter.numel() for parameter in network.parameters()) == convolutions + connected == 271_703_550
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 24
    assert [module.out_features for module in network.modules() if isinstance(module, nn.Linear)] == [4096, 1470]
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.5]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_two_boxes_of_20_classes_make_98_rows() -> None:
    network = yolov1.Yolov1(Config(((3, 4, 64),), "direct", norm=False))
    boxes, scores = network.decode(torch.zeros(1, 1470))
    assert boxes.shape == (1, 98, 4)
    assert scores.shape == (1, 98, 20)


def test_a_local_layer_has_a_kernel_for_every_place() -> None:
    torch.manual_seed(0)
    local, x = Local(2, 5, 3), torch.randn(4, 2, 3, 3)
    nn.init.normal_(local.bias)
    found = local(x)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    for row in range(3):
        for column in range(3):
            kernels = local.weight[row * 3 + column].view(5, 2, 3, 3)
            patch = padded[:, :, row : row + 3, column : column + 3]
            sums = patch.flatten(1) @ kernels.flatten(1).T + local.bias[:, row, column]
            expected = torch.where(sums > 0, sums, 0.1 * sums)
            torch.testing.assert_close(found[:, :, row, column], expected, atol=1e-5, rtol=1e-5)


# decode


def small(classes: int = 2, boxes: int = 2) -> Config:
    """Two by two cells of 64 pixels, without a network worth its name."""
    return Config(((3, 4, 64),), "direct", norm=False, boxes=boxes, classes=classes, size=128)


Numbers = Mapping[tuple[int, int], Any]


def numbers_of(config: Config, classes: Numbers, confidences: Numbers, places: Numbers) -> Tensor:
    """The vector in which these numbers stand and all others are 0; places are written by cell and box."""
    cells, C, B = config.side**2, config.classes, config.boxes
    vector = torch.zeros(1, config.numbers)
    for (cell, kind), value in classes.items():
        vector[0, cell * C + kind] = value
    for (cell, box), value in confidences.items():
        vector[0, cells * C + cell * B + box] = value
    for (cell, box), value in places.items():
        start = cells * (C + B) + (cell * B + box) * 4
        vector[0, start : start + 4] = torch.tensor(value)
    return vector


def test_the_vector_is_grouped_by_kind_not_by_cell() -> None:
    vector = torch.arange(4 * (2 + 2 * 5), dtype=torch.float32)[None]
    classes, confidences, places = parts(vector, small())
    assert classes[0].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert confidences[0].tolist() == [[8, 9], [10, 11], [12, 13], [14, 15]]
    assert places[0, 0].tolist() == [[16, 17, 18, 19], [20, 21, 22, 23]]
    assert places[0, 3, 1].tolist() == [44, 45, 46, 47]


def test_decode_does_what_the_formulas_say() -> None:
    network = yolov1.Yolov1(small())
    # Cell 2 is the first of the second row; its second box lies at a quarter and a half of it, half and a quarter of the image.
    vector = numbers_of(
        small(), {(2, 0): 0.25, (2, 1): 0.5}, {(2, 1): 0.8}, {(2, 1): (0.25, 0.5, sqrt(0.5), -sqrt(0.25))}
    )
    boxes, scores = network.decode(vector)
    row = 2 * 2 + 1
    assert boxes[0, row].tolist() == pytest.approx([16 - 32, 96 - 16, 16 + 32, 96 + 16], abs=1e-4)
    assert scores[0, row].tolist() == pytest.approx([0.2, 0.4])
    assert not scores[0, :row].any()


def test_scores_that_are_no_probabilities_are_cut_off() -> None:
    network = yolov1.Yolov1(small())
    vector = numbers_of(small(), {(0, 0): 1.5, (0, 1): -0.5}, {(0, 0): 0.9, (0, 1): 0.4}, {})
    _, scores = network.decode(vector)
    assert scores[0, :2].flatten().tolist() == pytest.approx([1.0, 0.0, 0.6, 0.0])


def test_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match="images: the network sees 128 x 128 pixels, got"):
        yolov1.Yolov1(small())(torch.zeros(1, 3, 128, 192))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("large", {}, "kind: expected one of paper, local, tiny"),
        ("tiny", {"classes": 0}, "classes, boxes: expected at least 1, got 0, 2"),
        ("tiny", {"size": 300}, "size: expected a multiple of 64, got 300"),
    ],
)
def test_impossible_networks_are_refused(kind: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        yolov1.build(kind, **changes)


# the loss

NOTHING = torch.zeros(0, 6)
OBJECT = torch.tensor([[0.0, 1, 80, 96, 32, 64]])
"""In cell 3 of 2 x 2 cells of 64 pixels, at (0.25, 0.5) of it; a quarter and a half of the image."""
HIT = (0.25, 0.5, sqrt(0.25), sqrt(0.5))


def test_without_objects_only_confidence_counts_and_half() -> None:
    vector = numbers_of(small(), {(0, 0): 0.7}, {(1, 0): 0.4, (3, 1): -0.2}, {(1, 0): (1.0, 2, 3, 4)})
    total, terms = Yolov1Loss(small())(vector, NOTHING)
    assert terms.tolist() == pytest.approx([0, 0, 0.5 * (0.16 + 0.04), 0])
    assert float(total) == pytest.approx(0.1)


def test_a_perfect_answer_costs_nothing() -> None:
    vector = numbers_of(small(), {(3, 1): 1.0}, {(3, 0): 1.0}, {(3, 0): HIT})
    total, terms = Yolov1Loss(small())(vector, OBJECT)
    assert float(total) == pytest.approx(0, abs=1e-10)
    assert terms.tolist() == pytest.approx([0, 0, 0, 0], abs=1e-10)


def test_an_answer_by_hand() -> None:
    # The second box is as high as the object and twice as wide, with the same centre: IoU 1/2. The first lies elsewhere.
    wide = (0.25, 0.5, sqrt(0.5), sqrt(0.5))
    vector = numbers_of(
        small(),
        {(3, 0): 0.3, (3, 1): 0.6, (0, 0): 0.9},
        {(3, 0): 0.4, (3, 1): 0.8, (0, 1): 0.2},
        {(3, 0): (0.9, 0.9, 0.1, 0.1), (3, 1): wide},
    )
    total, terms = Yolov1Loss(small())(vector, OBJECT)
    box = 5 * (sqrt(0.5) - sqrt(0.25)) ** 2  # lambda_coord, the roots of the widths
    obj = (0.8 - 0.5) ** 2  # the confidence against the IoU
    noobj = 0.5 * (0.4**2 + 0.2**2)  # lambda_noobj, the box that does not answer and the empty cell's
    cls = 0.3**2 + (1 - 0.6) ** 2  # only in the cell that holds the object
    assert terms.tolist() == pytest.approx([box, obj, noobj, cls], rel=1e-5)
    assert float(total) == pytest.approx(box + obj + noobj + cls, rel=1e-5)


def test_the_overlap_is_a_target_not_a_path_for_gradients() -> None:
    vector = numbers_of(small(), {}, {(3, 0): 0.8}, {(3, 0): (0.25, 0.5, sqrt(0.5), sqrt(0.5))}).requires_grad_()
    total, _ = Yolov1Loss(small())(vector, OBJECT)
    total.backward()
    assert vector.grad is not None
    _, confidences, places = parts(vector.grad, small())
    assert confidences[0, 3].tolist() == pytest.approx([2 * (0.8 - 0.5), 0], abs=1e-6)
    assert places[0, 3, 0].tolist() == pytest.approx([0, 0, 10 * (sqrt(0.5) - 0.5), 0], abs=1e-5)
    assert not places[0, :3].any()
    assert not places[0, 3, 1].any()


def test_where_no_box_overlaps_the_closest_answers() -> None:
    far, near = (0.9, 0.95, 0.05, 0.05), (0.7, 0.5, 0.1, 0.1)
    vector = numbers_of(small(), {}, {}, {(3, 0): far, (3, 1): near})
    boxes = corners(parts(vector, small())[2], small())[0, 3]
    assert float(boxes[1, 0]) > 80 + 16  # right of the object
    _, terms = Yolov1Loss(small())(vector, OBJECT)
    expected = sum((a - b) ** 2 for a, b in zip(near, HIT, strict=True))
    assert float(terms[0]) == pytest.approx(5 * expected, rel=1e-5)
    assert float(terms[1]) == 0  # its confidence is told that it overlaps with nothing


def test_of_two_objects_in_a_cell_the_first_counts() -> None:
    both = torch.cat((OBJECT, torch.tensor([[0.0, 0, 100, 100, 20, 20]])))
    vector = numbers_of(small(), {(3, 1): 1.0}, {(3, 0): 1.0}, {(3, 0): HIT})
    assert float(Yolov1Loss(small())(vector, both)[0]) == pytest.approx(0, abs=1e-10)
    assert float(Yolov1Loss(small())(vector, both.flip(0))[0]) > 1


def test_images_of_a_batch_have_their_own_objects() -> None:
    vector = numbers_of(small(), {(3, 1): 1.0}, {(3, 0): 1.0}, {(3, 0): HIT})
    targets = torch.cat((OBJECT, OBJECT))
    targets[1, 0] = 1
    total, terms = Yolov1Loss(small())(torch.cat((vector, torch.zeros_like(vector))), targets)
    # Of the second image everything is 0: a box without sides at the cell's corner, which overlaps with nothing.
    box = 5 * sum(value**2 for value in HIT)
    assert terms.tolist() == pytest.approx([box / 2, 0, 0, 1 / 2], rel=1e-5)
    assert float(total) == pytest.approx(box + 1, rel=1e-5)


def test_an_object_at_the_border_belongs_to_the_last_cell() -> None:
    targets = torch.tensor([[0.0, 0, 128, 128, 10, 10]])
    vector = numbers_of(small(), {(3, 0): 1.0}, {(3, 0): 1.0}, {(3, 0): (1, 1, sqrt(10 / 128), sqrt(10 / 128))})
    assert float(Yolov1Loss(small())(vector, targets)[0]) == pytest.approx(0, abs=1e-9)


def test_weights_are_in_proportion_to_the_papers() -> None:
    torch.manual_seed(0)
    vector = torch.randn(1, small().numbers)
    _, plain = Yolov1Loss(small())(vector, OBJECT)
    _, heavy = Yolov1Loss(small(), LossConfig(box=0.1, obj=3.0, cls=0.25))(vector, OBJECT)
    assert heavy.tolist() == pytest.approx((plain * torch.tensor([2, 3, 3, 0.5])).tolist())


def by_loops(numbers: Tensor, targets: Tensor, config: Config) -> float:
    """Equation 3 of the paper, written out cell by cell and box by box in double precision."""
    S, B, C, size = config.side, config.boxes, config.classes, config.size
    total = 0.0
    for image, vector in enumerate(numbers.double().numpy()):
        p = vector[: S * S * C].reshape(S * S, C)
        confidence = vector[S * S * C : S * S * (C + B)].reshape(S * S, B)
        place = vector[S * S * (C + B) :].reshape(S * S, B, 4)
        held: dict[int, list[float]] = {}
        for row in targets.double().tolist():
            if row[0] == image:
                held.setdefault(int(row[3] // 64) * S + int(row[2] // 64), row)
        for i in range(S * S):
            if i not in held:
                total += 0.5 * float((confidence[i] ** 2).sum())
                continue
            _, kind, x, y, w, h = held[i]
            overlaps, distances = [], []
            for j in range(B):
                px, py = (place[i, j, 0] + i % S) * 64, (place[i, j, 1] + i // S) * 64
                pw, ph = place[i, j, 2] ** 2 * size, place[i, j, 3] ** 2 * size
                wide = max(min(px + pw / 2, x + w / 2) - max(px - pw / 2, x - w / 2), 0)
                high = max(min(py + ph / 2, y + h / 2) - max(py - ph / 2, y - h / 2), 0)
                overlaps.append(wide * high / (pw * ph + w * h - wide * high))
                distances.append((px - x) ** 2 + (py - y) ** 2 + (pw - w) ** 2 + (ph - h) ** 2)
            responsible = int(np.argmax(overlaps)) if max(overlaps) > 0 else int(np.argmin(distances))
            wanted = (x / 64 - i % S, y / 64 - i // S, sqrt(w / size), sqrt(h / size))
            for j in range(B):
                if j == responsible:
                    total += 5 * float(((place[i, j] - wanted) ** 2).sum())
                    total += (confidence[i, j] - overlaps[j]) ** 2
                else:
                    total += 0.5 * confidence[i, j] ** 2
            total += sum((p[i, k] - (k == int(kind))) ** 2 for k in range(C))
    return total


@pytest.mark.parametrize("count", [1, 6, 40])
def test_the_loss_is_equation_three(count: int) -> None:
    config = Config(((3, 4, 64),), "direct", norm=False, boxes=3, classes=4, size=192)
    torch.manual_seed(count)
    numbers = torch.rand(2, config.numbers)
    targets = torch.rand(count, 6) * torch.tensor([2, 4, 192, 192, 90, 90]) + torch.tensor([0, 0, 0, 0, 5, 5])
    targets[:, :2] = targets[:, :2].floor()
    total, terms = Yolov1Loss(config)(numbers, targets)
    assert float(total) == pytest.approx(by_loops(numbers, targets, config), rel=1e-5)
    assert float(terms.sum()) == pytest.approx(float(total) / 2, rel=1e-6)


@pytest.mark.parametrize("targets", [torch.zeros(6), torch.zeros(2, 5)])
def test_targets_of_another_shape_are_refused(targets: Tensor) -> None:
    with pytest.raises(ShapeError, match=r"targets: expected \(N, 6\)"):
        Yolov1Loss(small())(torch.zeros(1, small().numbers), targets)


# the class term, L = sum_i L_i


def test_five_objects_of_ten_classes() -> None:
    """The example of docs/yolo-loss.md: five cells hold an object, and say 0.1 of each of ten classes."""
    truth = torch.eye(10)[[3, 0, 7, 7, 9]]
    predicted = torch.full((5, 10), 0.1)
    each = (1 - 0.1) ** 2 + 9 * 0.1**2
    assert each == pytest.approx(0.9)
    assert float(class_error(predicted, truth, torch.ones(5))) == pytest.approx(5 * each)
    assert float(class_error(predicted, truth, torch.ones(5), weight=5.0)) == pytest.approx(25 * each)


def test_classes_of_empty_cells_cost_nothing() -> None:
    torch.manual_seed(0)
    truth = torch.eye(10)[[3, 0, 7, 7, 9]]
    predicted = torch.rand(5, 10)
    holds = torch.tensor([True, False, True, False, False])
    expected = sum((float(predicted[i, j]) - float(truth[i, j])) ** 2 for i in (0, 2) for j in range(10))
    assert float(class_error(predicted, truth, holds)) == pytest.approx(expected, rel=1e-6)


def test_the_class_term_is_the_last_of_the_loss() -> None:
    torch.manual_seed(0)
    vector = torch.randn(1, small().numbers)
    holds = torch.tensor([False, False, False, True])
    truth = torch.zeros(4, 2)
    truth[3, 1] = 1
    _, terms = Yolov1Loss(small())(vector, OBJECT)
    assert float(terms[3]) == pytest.approx(float(class_error(parts(vector, small())[0][0], truth, holds)), rel=1e-6)


def test_the_gradient_of_the_class_term_is_twice_the_difference() -> None:
    predicted = torch.tensor([[0.2, 0.7], [0.4, 0.9]], requires_grad=True)
    class_error(predicted, torch.tensor([[0.0, 1], [1, 0]]), torch.tensor([1, 0]), weight=3.0).backward()
    assert predicted.grad is not None
    assert predicted.grad.flatten().tolist() == pytest.approx([6 * 0.2, 6 * -0.3, 0, 0])


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="class_error: expected"):
        class_error(torch.zeros(5, 10), torch.zeros(5, 9), torch.ones(5))


# learning


def test_an_untrained_network_without_norms_keeps_the_size_of_its_maps() -> None:
    torch.manual_seed(0)
    network = yolov1.build("paper", 2, width=1 / 8, size=128).eval()
    with torch.no_grad():
        features = network.features(torch.rand(2, 3, 128, 128))
    assert 0.01 < float(features.std()) < 10  # as torch begins them they would be a billionth


@pytest.mark.parametrize("kind", ["paper", "local", "tiny"])
def test_gradients_reach_every_parameter(kind: str) -> None:
    torch.manual_seed(0)
    network = yolov1.build(kind, 2, width=1 / 8, size=128, boxes=2).train()
    cells = [
        (image, cell % 2, cell // 2) for image in (0, 1) for cell in range(4)
    ]  # an object in every one of two images
    targets = torch.tensor(
        [[i, (x + y + i) % 2, 32 + x * 64, 32 + y * 64, 20 + 60 * i, 40] for i, x, y in cells]
    ).float()
    reached: dict[str, Tensor] = {name: torch.zeros(()) for name, _ in network.named_parameters()}
    for _ in range(4):  # which box answers depends on what it says, and dropout leaves some out
        network.zero_grad()
        network.criterion(LossConfig(), 128)(network(torch.rand(2, 3, 128, 128)), targets)[0].backward()
        reached = {
            name: reached[name] + p.grad.abs().sum() for name, p in network.named_parameters() if p.grad is not None
        }
    assert all(value.isfinite() and value > 0 for value in reached.values())
    assert len(reached) == len(list(network.parameters()))
