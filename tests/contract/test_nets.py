"""What every network in the table promises, whoever wrote it."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from openlepton.nets import NETS
from openlepton.nets.blocks import Summed
from openlepton.nets.export import export_onnx, parity

DETECTORS = [name for name, net in NETS.items() if net.task in ("detect", "segment")]
NARROW = {name: {"width": 1 / 16} for name in NETS if name.startswith(("yolov1", "yolov3"))}
"""What makes small networks of those whose depth is that of the large ones, and whose size costs memory."""
QUICK = (
    "yolov1-local",
    "yolov1-tiny",
    "yolov3-tiny",
    "yolov5n",
    "yolov5n6",
    "yolov5n-seg",
    "yolox-nano",
    "efficientnet-lite0",
    "unet-lite0",
)
SMALL = [name for name in NETS if name in QUICK]
SIZE = 128  # a multiple of every network's stride
TOLERANCE = {"boxes": 0.02, "scores": 1e-4, "coeffs": 1e-3, "protos": 1e-3}


def sized(name: str) -> dict[str, Any]:
    return {"size": SIZE} if NETS[name].fixed_size else {}


def build(name: str, classes: int) -> Any:
    """A network without storage, so that the largest costs nothing."""
    with torch.device("meta"):
        return NETS[name].build(classes=classes, **sized(name)).eval()


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
        boxes = getattr(network.config, "boxes", 1)  # of a cell
        rows = cells * (len(network.config.anchors[0]) if hasattr(network.config, "anchors") else boxes)
        wanted = {"boxes": (2, rows, 4), "scores": (2, rows, 3)}
        if NETS[name].task == "segment":
            wanted |= {"coeffs": (2, rows, 32), "protos": (2, 32, SIZE // 4, SIZE // 4)}
        assert shapes == wanted
    elif NETS[name].task == "semantic":
        assert shapes == {"scores": (2, 3, SIZE // 2, SIZE // 2)}
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
    layer = re.escape([key for key in few if ".proto." not in key][-1].rsplit(".", 1)[0])
    last = re.sub(r"\d+", r"\\d+", layer) + r"\.\w+"  # of any level
    assert all(re.fullmatch(last, key) for key in changed)


@pytest.mark.parametrize("name", NETS)
def test_every_parameter_is_trained_and_every_norm_is_fused_away(name: str) -> None:
    network = build(name, 3)
    assert all(parameter.requires_grad for parameter in network.parameters())
    fused = network.fused()
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in fused.modules())
    norms = sum(m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    # Nine taps on pixels that come in fours are four times four.
    more = sum(m.weight.numel() * 7 // 16 + 3 * m.out_channels / 4 for m in fused.modules() if isinstance(m, Summed))
    # Of each norm's weight and bias a bias stays.
    assert sum(p.numel() for p in fused.parameters()) == sum(p.numel() for p in network.parameters()) - norms + more


@pytest.mark.parametrize("name", SMALL)
def test_the_graph_equals_the_network(name: str) -> None:
    torch.manual_seed(0)
    network: Any = NETS[name].build(classes=3, **sized(name), **NARROW.get(name, {})).train()
    with torch.no_grad():
        network(torch.rand(4, 3, SIZE, SIZE))  # the norms learn what their maps look like
    network.eval()
    any_size = NETS[name].task != "classify" and not NETS[name].fixed_size
    graph = export_onnx(network, (SIZE, SIZE), any_size=any_size)
    shapes = [(1, 3, SIZE, SIZE), (3, 3, SIZE, SIZE)] + ([(2, 3, 64, 192)] if any_size else [])
    found = parity(network, graph, shapes, tolerance=TOLERANCE)
    assert set(found.largest) == set(network.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETS if name not in SMALL])
def test_the_graph_of_a_large_network_equals_it(name: str) -> None:
    test_the_graph_equals_the_network(name)
