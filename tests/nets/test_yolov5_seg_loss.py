"""The loss of masks against its definition written out, cell by cell."""

import math

import pytest
import torch
from torch import Tensor

from openlepton.errors import ShapeError
from openlepton.nets import yolov5_seg
from openlepton.nets.losses import LossConfig
from openlepton.nets.yolov5_seg_loss import MaskTargets, mask_loss


def by_definition(coeffs: Tensor, proto: Tensor, box: Tensor, truth: Tensor) -> float:
    """Return the loss of one mask on a grid."""
    coeffs, proto = coeffs.detach(), proto.detach()
    x, y, w, h = box.tolist()
    total = 0.0
    for row in range(proto.shape[1]):
        for column in range(proto.shape[2]):
            if x - w / 2 <= column + 0.5 < x + w / 2 and y - h / 2 <= row + 0.5 < y + h / 2:
                p = 1 / (1 + math.exp(-float(coeffs @ proto[:, row, column])))
                total -= math.log(p) if truth[row, column] else math.log(1 - p)
    return total / max(w * h, 1)


@pytest.mark.parametrize("largest", [4.0, 40.0])  # few cells of masks, which are taken one by one; many, all at once
def test_a_mask_costs_the_cross_entropy_inside_its_box(largest: float) -> None:
    torch.manual_seed(0)
    P, B, h, w = 12, 3, 24, 32
    coeffs, protos = torch.randn(P, 32) / 4, torch.randn(B, 32, h, w)
    image = torch.randint(B, (P,))
    sides = torch.rand(P, 2) * largest + 1
    boxes = torch.cat((torch.rand(P, 2) * torch.tensor([w, h]), sides), 1)
    owners, owner = torch.randint(0, 4, (B, h, w)), torch.randint(1, 4, (P,))
    got = mask_loss(coeffs, protos, image, boxes, owners, owner)
    wanted = [by_definition(coeffs[k], protos[image[k]], boxes[k], owners[image[k]] == owner[k]) for k in range(P)]
    torch.testing.assert_close(got, torch.tensor(wanted), rtol=1e-4, atol=1e-5)


def test_a_box_between_the_centres_of_cells_takes_the_cell_it_is_nearest_to() -> None:
    coeffs, protos = torch.ones(1, 32), torch.zeros(1, 32, 4, 4)
    protos[0, :, 1, 2] = 1.0
    owners = torch.zeros(1, 4, 4, dtype=torch.int64)
    owners[0, 1, 2] = 7
    box = torch.tensor([[2.2, 1.3, 0.3, 0.2]])
    loss = mask_loss(coeffs, protos, torch.tensor([0]), box, owners, torch.tensor([7]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-32)), abs=1e-6)


def test_masks_weigh_as_boxes_do_and_count_for_each_image_alike() -> None:
    torch.manual_seed(1)
    network = yolov5_seg.build("n", 2)
    raw = network(torch.rand(2, 3, 64, 64))
    boxes = torch.tensor([[0, 0, 20, 20, 12, 14], [0, 1, 40, 40, 30, 20], [1, 1, 30, 30, 16, 16.0]])
    owners = torch.zeros(2, 16, 16, dtype=torch.int64)
    owners[0, 4:7, 4:7], owners[0, 8:12, 7:13], owners[1, 6:9, 6:9] = 1, 2, 3
    loss = network.criterion(LossConfig(), 64)
    total, parts = loss(raw, MaskTargets(boxes, owners))
    assert loss.parts == ("box", "obj", "cls", "mask")
    assert total.item() == pytest.approx(2 * parts.sum().item())
    _, doubled = network.criterion(LossConfig(box=0.1), 64)(raw, MaskTargets(boxes, owners))
    assert doubled[3].item() == pytest.approx(2 * parts[3].item())
    # By hand: for each level, the mean over each image's answering cells, and over the images.
    maps, protos = raw
    _, answers = loss.detection.terms(maps, boxes)
    wanted = 0.0
    for found, own in answers:
        for image in range(2):
            mine = (found.image == image).nonzero()[:, 0].tolist()
            each = [
                by_definition(
                    own[k, 7:], protos[image], boxes[found.target[k], 2:] / 4, owners[image] == found.target[k] + 1
                )
                for k in mine
            ]
            wanted += sum(each) / max(len(each), 1) / 2
    assert parts[3].item() == pytest.approx(0.05 * wanted, rel=1e-4)


def test_an_image_without_objects_has_no_loss_of_masks() -> None:
    network = yolov5_seg.build("n", 1)
    raw = network(torch.rand(2, 3, 64, 64))
    empty = MaskTargets(torch.zeros(0, 6), torch.zeros(2, 16, 16, dtype=torch.int64))
    total, parts = network.criterion(LossConfig(), 64)(raw, empty)
    assert parts[[0, 2, 3]].tolist() == [0, 0, 0]
    total.backward()


@pytest.mark.slow
def test_learning_one_image_brings_its_masks_out() -> None:
    torch.manual_seed(0)
    network = yolov5_seg.build("n", 1).train()
    images = torch.zeros(1, 3, 64, 64)
    images[0, :, 8:40, 8:24], images[0, :, 40:56, 32:64] = 1.0, 0.6
    boxes = torch.tensor([[0, 0, 16, 24, 16, 32], [0, 0, 48, 48, 32, 16.0]])
    owners = torch.zeros(1, 16, 16, dtype=torch.int64)
    owners[0, 2:10, 2:6], owners[0, 10:14, 8:16] = 1, 2
    loss = network.criterion(LossConfig(), 64)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    first = last = 0.0
    for _ in range(30):
        total, parts = loss(network(images), MaskTargets(boxes, owners))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        last = parts[3].item()
        first = first or last
    assert last < 0.1 * first


def test_owners_of_another_size_are_refused() -> None:
    network = yolov5_seg.build("n", 1)
    raw = network(torch.rand(1, 3, 64, 64))
    with pytest.raises(ShapeError, match=r"owners: expected \(1, 16, 16\), got \(1, 8, 8\)"):
        network.criterion(LossConfig(), 64)(raw, MaskTargets(torch.zeros(0, 6), torch.zeros(1, 8, 8).long()))
