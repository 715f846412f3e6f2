"""Weights that come back out of a graph: what the network computed before, it computes again."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from openlepton.errors import CheckpointMismatch
from openlepton.hub.index import models
from openlepton.nets import NETS
from openlepton.nets.export import export_onnx
from openlepton.nets.restore import restore, settle
from openlepton.runtimes.onnx import OnnxRuntime
from openlepton.train.start import build, read_weights, take_over

SIDE = 64
LEARNED: dict[str, dict[str, Any]] = {
    "yolov5n": {"width": 1 / 8},
    "yolov5n layout v5": {"width": 1 / 8, "layout": "v5"},
    "yolov5n-cls": {"width": 1 / 8},
    "yolov5n-seg": {"width": 1 / 8},
    "yolox-nano": {"width": 1 / 8},
    "yolov3-tiny": {"width": 1 / 16},
    "efficientnet-lite0": {"width": 0.25, "depth": 0.3},
    "unet-lite0": {},
}


def fresh(name: str, seed: int, classes: int = 3) -> Any:
    torch.manual_seed(seed)
    return NETS[name.split()[0]].build(classes=classes, **LEARNED[name])


def learned(name: str, classes: int = 3) -> Any:
    """A network whose norms have seen something, and scale and shift."""
    network = fresh(name, 0, classes).train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(-1.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
                module.momentum = 0.5
        for _ in range(3):
            network(torch.rand(4, 3, SIDE, SIDE))
    return network.eval()


def outputs_of(network: Any, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        raw = network(images)
    maps: list[torch.Tensor] = []
    waiting = [raw]
    while waiting:
        one = waiting.pop()
        if isinstance(one, torch.Tensor):
            maps.append(one)
        else:
            waiting += list(one)
    return maps


def assert_same(network: Any, other: Any, images: torch.Tensor, tolerance: float = 1e-4) -> None:
    for a, b in zip(outputs_of(network, images), outputs_of(other, images), strict=True):
        scale = float(a.abs().max())
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(scale, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_every_weight_comes_back_from_a_graph_in_single_precision(name: str) -> None:
    network, other = learned(name), fresh(name, 1)
    graph = export_onnx(network, (SIDE, SIDE), any_size=False)
    taken = other.load_state_dict(restore(graph, other), strict=False)
    assert all(
        key.endswith(("running_mean", "running_var", "num_batches_tracked", "anchors")) for key in taken.missing_keys
    )
    images = torch.rand(2, 3, SIDE, SIDE)
    assert_same(network, other.eval(), images)
    norms = [path for path, module in other.named_modules() if isinstance(module, nn.BatchNorm2d)]
    settle(other, norms, [images, torch.rand(3, 3, SIDE, SIDE)])
    assert_same(network, other, torch.rand(2, 3, SIDE, SIDE))


def test_weights_stored_in_half_precision_come_back_as_they_were_rounded_and_their_scales_apart() -> None:
    network, other = learned("yolov5n"), fresh("yolov5n", 1)
    state = restore(export_onnx(network, (SIDE, SIDE), weights="float16"), other)
    wanted = {key: value for key, value in network.state_dict().items() if key in state}
    assert len(wanted) == len(state)
    for key, value in wanted.items():
        if value.ndim == 4 and "model.24" not in key:
            torch.testing.assert_close(
                state[key], value.half().float(), rtol=1e-3, atol=1e-7
            )  # divided by its scale again


def test_settled_norms_know_the_images_and_change_nothing_even_in_training() -> None:
    network = learned("efficientnet-lite0")
    other = fresh("efficientnet-lite0", 1)
    other.load_state_dict(restore(export_onnx(network, (SIDE, SIDE), any_size=False), other), strict=False)
    images = torch.rand(8, 3, SIDE, SIDE)
    norms = [path for path, module in other.named_modules() if isinstance(module, nn.BatchNorm2d)]
    settle(other, norms, [images])
    before = outputs_of(other.eval(), images)[0]
    for module in other.train().modules():
        if hasattr(module, "survival"):
            module.survival = 1.0  # nothing else is left to chance
    during = other.classifier(other.features(images)).detach()
    torch.testing.assert_close(during, before, rtol=0, atol=2e-2 * float(before.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", [one for one in models() if one.card.input is not None], ids=lambda folder: folder.card.name
)
def test_every_model_that_ships_can_be_trained_on(folder: Any) -> None:
    card = folder.card
    anchors = card.detect.anchors if card.detect is not None else ()
    network = build(card.architecture, len(card.labels), anchors, size=card.input.size)
    weights, source = read_weights(card.name)
    taken = take_over(network, weights, source)
    assert {name.rpartition(".")[2] for name in taken.left} <= {
        "running_mean", "running_var", "num_batches_tracked", "anchors"
    }  # fmt: skip
    assert len(taken.unsettled) == sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    side = card.input.size if card.input.resize != "letterbox" else 128
    images = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
    wanted = OnnxRuntime(folder, threads=1)({"images": images})
    with torch.no_grad():
        results = network.eval().decode(network(torch.from_numpy(images)))
    results = (results,) if isinstance(results, torch.Tensor) else results
    for name, result in zip(network.outputs, results, strict=True):
        np.testing.assert_allclose(result.numpy(), wanted[name], rtol=0, atol=0.01 if name == "boxes" else 1e-4)


@pytest.mark.slow
def test_the_graph_of_another_network_is_refused() -> None:
    graph = export_onnx(learned("unet-lite0"), (SIDE, SIDE))
    with pytest.raises(CheckpointMismatch, match=r"classifier.weight is \(3, 24, 1, 1\), expected \(5, 24, 1, 1\)"):
        restore(graph, fresh("unet-lite0", 0, classes=5))
    with pytest.raises(CheckpointMismatch, match=r"expected \(8, 32, 1, 1\)"):
        restore(graph, fresh("efficientnet-lite0", 0))
