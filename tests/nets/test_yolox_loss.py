"""SimOTA and the loss against the paper's rules written as plain loops, and against numbers worked out by hand."""

import math
from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from openlepton.errors import ShapeError
from openlepton.nets import yolox
from openlepton.nets.losses import LossConfig
from openlepton.nets.yolox_loss import YoloxLoss, assign, cells, iou
from openlepton.ops import boxes as plain_boxes

NOTHING = torch.zeros(0, 6)


def loss(classes: int = 3, **weights: float) -> YoloxLoss:
    return YoloxLoss(yolox.Config(0.33, 0.25, classes), LossConfig(**weights))


def maps(classes: int = 3, batch: int = 1, size: int = 64, seed: int | None = None) -> list[Tensor]:
    shapes = [(batch, 5 + classes, size // s, size // s) for s in (8, 16, 32)]
    if seed is None:
        return [torch.zeros(shape) for shape in shapes]
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def objects(count: int, seed: int, batch: int = 1, classes: int = 3, size: int = 64) -> Tensor:
    rng = np.random.default_rng(seed)
    rows = np.column_stack(
        (
            rng.integers(batch, size=count),
            rng.integers(classes, size=count),
            rng.uniform(0, size, (count, 2)),
            rng.uniform(3, size, (count, 2)),
        )
    )
    return torch.tensor(rows, dtype=torch.float32)


def decoded(levels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes of centre and size, logits, centres and sides of the cells, for the first image."""
    raw = torch.cat([level.flatten(2) for level in levels], 2).transpose(1, 2)[0]
    corners, sides = cells(levels)
    boxes = torch.cat(((raw[:, :2] + corners) * sides, raw[:, 2:4].exp() * sides), 1)
    return boxes, raw[:, 4:], (corners + 0.5) * sides, sides[:, 0]


def slow_iou(a: list[float], b: list[float]) -> float:
    w = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    h = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    shared = max(w, 0) * max(h, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def by_loops(targets: Tensor, levels: list[Tensor]) -> dict[int, int]:
    """Which cell answers for which object, cell by cell in double precision."""
    boxes, logits, centres, sides = (value.double().tolist() for value in decoded(levels))
    cost: dict[tuple[int, int], float] = {}
    overlap: dict[tuple[int, int], float] = {}
    candidates = set()
    for m, (_, _, x, y, w, h) in enumerate(targets.tolist()):
        for n, (cx, cy) in enumerate(centres):
            inside = abs(cx - x) < w / 2 and abs(cy - y) < h / 2
            near = abs(cx - x) < 2.5 * sides[n] and abs(cy - y) < 2.5 * sides[n]
            if inside or near:
                candidates.add(n)
            cost[m, n] = 0 if inside and near else 1e5
    for m, (_, label, *box) in enumerate(targets.tolist()):
        for n in candidates:
            overlap[m, n] = slow_iou(box, boxes[n])
            sure = [1 / (1 + math.exp(-logit)) for logit in logits[n]]
            shares = [math.sqrt(sure[0] * share) for share in sure[1:]]
            cost[m, n] += sum(-log(p if k == label else 1 - p) for k, p in enumerate(shares))
            cost[m, n] -= 3 * log(overlap[m, n] + 1e-8)
    claims: dict[int, list[int]] = {}
    for m in range(len(targets)):
        best = sorted((overlap[m, n] for n in candidates), reverse=True)[:10]
        for n in sorted(candidates, key=lambda n: cost[m, n])[: max(int(sum(best)), 1)]:
            claims.setdefault(n, []).append(m)
    return {
        n: own[0] if len(own) == 1 else min(range(len(targets)), key=lambda m: cost[m, n]) for n, own in claims.items()
    }


@pytest.mark.parametrize("count", [1, 2, 7, 25])
@pytest.mark.parametrize("seed", range(3))
def test_cells_answer_for_the_objects_that_loops_give_them(count: int, seed: int) -> None:
    levels, targets = maps(seed=seed), objects(count, seed)
    boxes, logits, centres, sides = decoded(levels)
    found = assign(targets, boxes, logits, centres, sides)
    assert dict(zip(found.cells.tolist(), found.objects.tolist(), strict=True)) == by_loops(targets, levels)
    overlaps = [
        slow_iou(targets[m, 2:].tolist(), boxes[n].tolist()) for n, m in zip(found.cells, found.objects, strict=True)
    ]
    assert found.overlaps.tolist() == pytest.approx(overlaps, abs=1e-6)


def test_an_image_without_objects_has_no_answering_cell() -> None:
    found = assign(NOTHING, *decoded(maps(seed=0)))
    assert [len(part) for part in found] == [0, 0, 0]


def test_an_object_far_outside_has_no_answering_cell() -> None:
    found = assign(torch.tensor([[0.0, 0, 900, 900, 10, 10]]), *decoded(maps(seed=0)))
    assert len(found.cells) == 0


def test_without_objects_only_objectness_counts() -> None:
    total, parts = loss()(maps(batch=2), NOTHING)
    assert parts.tolist() == pytest.approx([0, 2 * 84 * log(2), 0])
    assert float(total) == pytest.approx(2 * 2 * 84 * log(2))


def test_a_single_object_by_hand() -> None:
    # Every cell finds a box of its own size at its corner. The object is the 8 by 8 box of the cell in row 4, column 4:
    # overlaps of its neighbours are below 1, their sum with its own 1 is 1 + 4/3 + 4/7 and a little, so three cells answer.
    targets = torch.tensor([[0.0, 1, 32, 32, 8, 8]])
    levels = maps()
    found = assign(targets, *decoded(levels))
    assert found.cells[found.overlaps == 1].tolist() == [4 * 8 + 4]
    total, parts = loss()(levels, targets)
    count, overlaps = len(found.cells), found.overlaps.tolist()
    box = 5 * sum(1 - overlap**2 for overlap in overlaps) / count
    assert parts.tolist() == pytest.approx([box, 84 * log(2) / count, 3 * log(2)], rel=1e-6)
    assert float(total) == pytest.approx(float(parts.sum()))


def test_the_class_is_wanted_as_surely_as_the_box_overlaps() -> None:
    levels, targets = maps(), torch.tensor([[0.0, 1, 32, 32, 8, 16]])
    for level in levels:
        level[:, 6] = 2.0
    found = assign(targets, *decoded(levels))
    share = 1 / (1 + math.exp(-2))
    each = [-o * log(share) - (1 - o) * log(1 - share) + 2 * log(2) for o in found.overlaps.tolist()]
    assert float(loss()(levels, targets)[1][2]) == pytest.approx(sum(each) / len(each), rel=1e-5)


def test_weights_count_in_proportion_to_their_defaults() -> None:
    levels, targets = maps(batch=2, seed=1), objects(9, 1, batch=2)
    _, usual = loss()(levels, targets)
    _, other = loss(box=0.1, obj=0.5, cls=2.0)(levels, targets)
    assert other.tolist() == pytest.approx((usual * torch.tensor([2, 0.5, 4])).tolist())


def test_objects_count_in_any_order() -> None:
    levels, targets = maps(batch=2, seed=2), objects(30, 2, batch=2)
    forwards, backwards = loss()(levels, targets)[1], loss()(levels, targets.flip(0))[1]
    assert forwards.tolist() == pytest.approx(backwards.tolist(), rel=1e-5)


def test_overlap_is_that_of_the_boxes_of_detections() -> None:
    a, b = objects(50, 3)[:, 2:], objects(40, 4)[:, 2:]
    corners = [torch.cat((x[:, :2] - x[:, 2:] / 2, x[:, :2] + x[:, 2:] / 2), 1).numpy() for x in (a, b)]
    np.testing.assert_allclose(iou(a[:, None], b[None]).numpy(), plain_boxes.iou(*corners), atol=1e-5)


def test_gradients_are_finite_without_objects() -> None:
    torch.manual_seed(0)
    network = yolox.build("nano", 3).train()
    total, _ = loss()(network(torch.rand(2, 3, 64, 64)), NOTHING)
    total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("targets", [torch.zeros(6), torch.zeros(2, 5)])
def test_targets_of_another_shape_are_refused(targets: Tensor) -> None:
    with pytest.raises(ShapeError, match=r"targets: expected \(N, 6\)"):
        loss()(maps(), targets)
