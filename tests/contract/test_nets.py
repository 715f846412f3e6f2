"""What every network in the table promises, whoever wrote it."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from openlepton.nets import NETS
from openlepton.nets.export import export_onnx, parity

DETECTORS = [name for name, net in NETS.items() if net.task == "detect"]
SMALL = [name for name in NETS if name in ("yolov5n", "yolov5n6", "yolox-nano", "efficientnet-lite0")]
SIZE = 128  # a multiple of every network's stride
TOLERANCE = {"boxes": 0.02, "scores": 1e-4}


def build(name: str, classes: int) -> Any:
    """A network without storage, so that the largest costs nothing."""
    with torch.device("meta"):
        return NETS[name].build(classes=classes).eval()


@pytest.mark.parametrize("name", NETS)
def test_outputs_keep_the_contract_in_name_and_shape(name: str) -> None:
    network = build(name, 3)
    with torch.device("meta"):
        results = network.decode(network(torch.rand(2, 3, SIZE, SIZE)))
    results = results if isinstance(results, tuple) else (results,)
    assert len(results) == len(network.outputs)
    shapes = {output: tuple(result.shape) for output, result in zip(network.outputs, results, strict=True)}
    if name in DETECTORS:
        cells = sum((SIZE // stride) ** 2 for stride in network.config.strides)
        rows = cells * (len(network.config.anchors[0]) if hasattr(network.config, "anchors") else 1)
        assert shapes == {"boxes": (2, rows, 4), "scores": (2, rows, 3)}
    else:
        assert shapes == {"scores": (2, 3)}


@pytest.mark.parametrize("name", NETS)
def test_classes_change_nothing_but_the_last_layer(name: str) -> None:
    few, many = (
        {key: tuple(tensor.shape) for key, tensor in build(name, classes).state_dict().items()} for classes in (2, 90)
    )
    changed = {key for key in few if few[key] != many[key]}
    assert few.keys() == many.keys()
    assert changed
    last = re.sub(r"(\.m)?(\.\d+)?\.\w+$", "", list(few)[-1])  # without the number of a level's convolution
    assert all(key.startswith(last) for key in changed)


@pytest.mark.parametrize("name", NETS)
def test_every_parameter_is_trained_and_every_norm_is_fused_away(name: str) -> None:
    network = build(name, 3)
    assert all(parameter.requires_grad for parameter in network.parameters())
    fused = network.fused()
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in fused.modules())
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_the_graph_equals_the_network(name: str) -> None:
    torch.manual_seed(0)
    network: Any = NETS[name].build(classes=3).train()
    with torch.no_grad():
        network(torch.rand(4, 3, SIZE, SIZE))  # the norms learn what their maps look like
    network.eval()
    any_size = name in DETECTORS
    graph = export_onnx(network, (SIZE, SIZE), any_size=any_size)
    shapes = [(1, 3, SIZE, SIZE), (3, 3, SIZE, SIZE)] + ([(2, 3, 64, 192)] if any_size else [])
    found = parity(network, graph, shapes, tolerance=TOLERANCE)
    assert set(found.largest) == set(network.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETS if name not in SMALL])
def test_the_graph_of_a_large_network_equals_it(name: str) -> None:
    test_the_graph_equals_the_network(name)
