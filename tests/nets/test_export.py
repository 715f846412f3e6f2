"""The exported graph against the network it came from."""

import copy

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from openlepton.errors import ParityFailed, UsageError
from openlepton.nets import export, yolov5

TOLERANCE = {"boxes": 0.01, "scores": 1e-5}
SHAPES = [(1, 3, 64, 96), (3, 3, 128, 64)]


def calm(network: nn.Module) -> nn.Module:
    """Run a few random batches through, so that the norms know their maps and the logits are of a sensible size."""
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.rand(2, 3, 128, 128))
    return network.eval()


@pytest.fixture(scope="module")
def network() -> yolov5.Yolov5:
    torch.manual_seed(0)
    network = yolov5.build("n", 5)
    calm(network)
    return network


@pytest.fixture(scope="module")
def graph(network: yolov5.Yolov5) -> bytes:
    return export.export_onnx(network, (64, 64))


def test_graph_equals_the_network_at_any_size_and_batch(network: yolov5.Yolov5, graph: bytes) -> None:
    difference = export.parity(network, graph, SHAPES, tolerance=TOLERANCE)
    assert difference.largest["boxes"] < 2e-3
    assert 0 < difference.largest["scores"] < 1e-5
    assert difference.inputs == "random images 1x3x64x96, 3x3x128x64"


def test_graph_states_the_contract(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes["images"] == ["B", 3, "H", "W"]
    assert shapes["boxes"][0] == shapes["scores"][0] == "B"
    assert set(shapes) == {"images", "boxes", "scores"}
    assert {opset.domain for opset in model.opset_import} == {""}
    assert not any(initializer.external_data for initializer in model.graph.initializer)


def test_export_is_repeatable_to_the_byte(network: yolov5.Yolov5, graph: bytes) -> None:
    assert export.export_onnx(network, (64, 64)) == graph


def test_export_leaves_the_network_alone(network: yolov5.Yolov5) -> None:
    assert isinstance(network.detect, yolov5.Detect)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_half_weights_halve_the_file_and_compute_in_single(network: yolov5.Yolov5, graph: bytes) -> None:
    half = export.export_onnx(network, (64, 64), weights="float16")
    assert 0.5 < len(half) / len(graph) < 0.53
    images = np.random.default_rng(0).random((1, 3, 96, 96), dtype=np.float32)
    wanted, got = (export.open_graph(data).run(None, {"images": images}) for data in (graph, half))
    assert got[1].dtype == np.float32
    assert np.abs(got[0] - wanted[0]).max() < 0.5  # pixels
    assert 0 < np.abs(got[1] - wanted[1]).max() < 2e-3


@pytest.mark.slow
def test_weights_that_come_from_half_precision_lose_nothing(network: yolov5.Yolov5) -> None:
    halved = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in halved.parameters():
            parameter.copy_(parameter.half().float())
    single, half = (export.export_onnx(halved, (64, 64), weights=kind) for kind in ("float32", "float16"))
    differences = [export.parity(halved, graph, SHAPES, tolerance=TOLERANCE).largest for graph in (single, half)]
    assert differences[1]["boxes"] < 2 * differences[0]["boxes"] + 1e-4
    assert differences[1]["scores"] < 2 * differences[0]["scores"] + 1e-8


def test_channels_that_a_norm_silences_stay_silent(network: yolov5.Yolov5) -> None:
    silenced = copy.deepcopy(network)
    with torch.no_grad():
        silenced.model[1].bn.weight[:4] = 0  # nothing to divide by
    graph = export.export_onnx(silenced, (64, 64), weights="float16")
    export.parity(silenced, graph, SHAPES, tolerance={"boxes": 0.5, "scores": 1e-3})


def test_weights_beyond_half_precision_are_refused(network: yolov5.Yolov5) -> None:
    large = copy.deepcopy(network)
    with torch.no_grad():
        large.detect.m[0].weight[0, 0] = 70_000
    with pytest.raises(UsageError, match=r"m\.0\.0\.weight does not fit float16; export it as float32"):
        export.export_onnx(large, (64, 64), weights="float16")


def test_a_graph_with_other_weights_fails_parity(network: yolov5.Yolov5, graph: bytes) -> None:
    torch.manual_seed(1)
    other = yolov5.build("n", 5).eval()
    with pytest.raises(
        ParityFailed, match=r"boxes: differs by [\d.e+]+ for images \(1, 3, 64, 96\), at most 0.01 allowed"
    ):
        export.parity(other, graph, SHAPES, tolerance=TOLERANCE)


def test_a_graph_of_other_classes_fails_parity(graph: bytes) -> None:
    with pytest.raises(ParityFailed, match=r"scores: the network gives \(1, 378, 6\), the graph \(1, 378, 5\)"):
        export.parity(yolov5.build("n", 6).eval(), graph, SHAPES[:1], tolerance={"boxes": 1e9, "scores": 1})


def test_nan_fails_parity(network: yolov5.Yolov5) -> None:
    broken = yolov5.build("n", 5).eval()
    broken.load_state_dict(network.state_dict())
    with torch.no_grad():
        broken.detect.m[0].bias.fill_(float("nan"))
    with pytest.raises(ParityFailed, match="differs by nan"):
        export.parity(broken, export.export_onnx(broken, (64, 64)), SHAPES, tolerance=TOLERANCE)


def test_parity_wants_a_network_in_evaluation_mode(graph: bytes) -> None:
    with pytest.raises(UsageError, match="evaluation mode"):
        export.parity(yolov5.build("n", 5).train(), graph, SHAPES, tolerance=TOLERANCE)


def test_unknown_weight_types_are_refused(network: yolov5.Yolov5) -> None:
    with pytest.raises(UsageError, match="expected float32 or float16, got 'int8'"):
        export.export_onnx(network, weights="int8")  # type: ignore[arg-type]


class Far(nn.Module):
    """A detector of one box as far away as asked, and farther by the share `off`."""

    outputs = ("boxes", "scores")

    def __init__(self, far: float, off: float = 0.0) -> None:
        super().__init__()
        self.far, self.off = far, off

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))[:, None, None] * 0 + self.far * (1 + self.off)

    def decode(self, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return raw.expand(-1, 1, 4), raw * 0

    def fused(self) -> "Far":
        return self


@pytest.mark.parametrize(
    ("far", "off", "passes"), [(100, 4e-4, True), (100, 6e-4, False), (1e6, 4e-5, True), (1e6, 6e-5, False)]
)
def test_a_box_beyond_a_thousand_pixels_may_differ_in_proportion(far: float, off: float, passes: bool) -> None:
    graph, other = export.export_onnx(Far(far).eval(), (32, 32)), Far(far, off).eval()
    if passes:
        found = export.parity(other, graph, [(1, 3, 32, 32)], tolerance={"boxes": 0.05, "scores": 1e-4})
        assert found.largest["boxes"] == pytest.approx(0.04, rel=0.02)
    else:
        with pytest.raises(ParityFailed, match=r"boxes: differs by 0\.06"):
            export.parity(other, graph, [(1, 3, 32, 32)], tolerance={"boxes": 0.05, "scores": 1e-4})
