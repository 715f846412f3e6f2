import math

import pytest
import torch
from torch import nn

from openlepton.nets import yolov5
from openlepton.train.config import TrainConfig
from openlepton.train.schedule import (
    Averaged,
    decline,
    make_optimizer,
    optimizer_state,
    pace,
    set_optimizer_state,
    set_pace,
)

CONFIG = TrainConfig(data="d", out="o", epochs=100, batch=16)


def test_the_rate_falls_along_a_line_to_its_final_share():
    assert decline(CONFIG, 0) == 1
    assert decline(CONFIG, 50) == pytest.approx(1 - 0.5 * 0.99)
    assert decline(CONFIG, 99) == pytest.approx(1 - 0.99 * 0.99)


def test_the_rate_falls_along_half_a_cosine():
    config = TrainConfig(data="d", out="o", epochs=100, schedule="cosine", final_lr=0.2)
    assert decline(config, 0) == 1
    assert decline(config, 50) == pytest.approx(0.6)
    assert decline(config, 25) == pytest.approx(1 - 0.8 * (1 - math.cos(math.pi / 4)) / 2)


def test_warmup_goes_from_its_own_values_to_those_of_training():
    start = pace(CONFIG, 0, 0, batches=50)
    assert (start.lr_bias, start.lr, start.momentum, start.accumulate) == (0.1, 0.0, 0.8, 1)
    middle = pace(CONFIG, 1, 25, batches=50)  # 75 of 150 batches, in the second epoch
    rate = 0.01 * (1 - 0.01 * 0.99)
    assert middle.lr == pytest.approx(rate / 2)
    assert middle.lr_bias == pytest.approx((0.1 + rate) / 2)
    assert middle.momentum == pytest.approx((0.8 + 0.937) / 2)
    assert middle.accumulate == 2  # halfway from 1 to 64 / 16
    after = pace(CONFIG, 3, 0, batches=50)
    assert after.lr == after.lr_bias == pytest.approx(0.01 * (1 - 0.03 * 0.99))
    assert (after.momentum, after.accumulate) == (0.937, 4)


def test_warmup_lasts_at_least_a_hundred_batches():
    assert pace(CONFIG, 9, 9, batches=10).momentum < 0.937  # three epochs would be thirty batches
    assert pace(CONFIG, 10, 0, batches=10).momentum == 0.937


def test_only_kernels_decay():
    network = yolov5.build("n", classes=2)
    optimizer = make_optimizer(network, CONFIG)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0, 5e-4]
    assert all(name.endswith(".bias") for name in groups[0])
    assert all(name.endswith(".bn.weight") for name in groups[1])
    assert all(name.endswith(("conv.weight", "m.0.weight", "m.1.weight", "m.2.weight")) for name in groups[2])
    assert sum(map(len, groups)) == len(names) == 177


def test_decay_is_scaled_to_the_images_of_a_step():
    network = yolov5.build("n", classes=2)
    assert make_optimizer(network, TrainConfig(data="d", out="o", batch=128)).param_groups[-1]["weight_decay"] == 1e-3
    # 24 images do not divide 64: three batches make a step of 72.
    decay = make_optimizer(network, TrainConfig(data="d", out="o", batch=24)).param_groups[-1]["weight_decay"]
    assert decay == pytest.approx(5e-4 * 72 / 64)


def test_biases_have_their_own_rate():
    optimizer = make_optimizer(yolov5.build("n", classes=2), CONFIG)
    set_pace(optimizer, pace(CONFIG, 0, 0, batches=50))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.0, 0.0]
    assert {group["momentum"] for group in optimizer.param_groups} == {0.8}


def test_the_average_follows_its_formula():
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 0.0)
    averaged = Averaged(network, decay=0.9999, ramp=2000)
    expected = 0.0
    for step in range(1, 6):
        nn.init.constant_(network.weight, float(step))
        averaged.update(network)
        decay = 0.9999 * (1 - math.exp(-step / 2000))
        expected = decay * expected + (1 - decay) * step
    assert averaged.state["weight"].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_optimiser_goes_on_after_its_state_was_moved_whatever_the_layout_of_memory(name):
    """Fused steps walk through memory: a state kept in another layout than its weights would be applied to other weights."""

    def made():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 3))
        network = network.to(memory_format=torch.channels_last)
        return network, make_optimizer(network, TrainConfig(data="d", out="o", optimizer=name, batch=64))

    def step(network, optimizer, seed):
        images = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        network(images.contiguous(memory_format=torch.channels_last)).square().sum().backward()
        optimizer.step()

    first, its = made()
    step(first, its, 1)
    saved = {key: value.detach().contiguous().clone() for key, value in optimizer_state(first, its).items()}
    weights = {key: value.clone() for key, value in first.state_dict().items()}
    step(first, its, 2)
    second, other = made()
    second.load_state_dict(weights)
    set_optimizer_state(second, other, saved)
    step(second, other, 2)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
