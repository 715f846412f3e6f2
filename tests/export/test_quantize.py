"""int8 and bfloat16: what is rounded, how far, and that means stay where they were."""

from pathlib import Path

import numpy as np
import pytest

import openlepton
from openlepton.export import export, quantize, ranges
from openlepton.hub.index import find
from openlepton.runtimes.onnx_check import check_onnx

onnx = pytest.importorskip("onnx")

NUCLEI = Path(__file__).parent.parent / "fixtures" / "nuclei"
DEFAULT = "yolox-nano-voc20"


def test_weights_lose_at_most_half_a_step_of_their_channel():
    weights = (
        np.random.default_rng(0).normal(size=(8, 4, 3, 3)).astype(np.float32)
        * np.logspace(-3, 2, 8, dtype="f")[:, None, None, None]
    )
    whole, scale = quantize.rounded_weights(weights)
    assert whole.dtype == np.int8
    assert np.abs(whole).max((1, 2, 3)).tolist() == [64] * 8
    assert (np.abs(whole * scale[:, None, None, None] - weights) <= 0.5001 * scale[:, None, None, None]).all()


def test_a_channel_of_zeros_stays_one():
    whole, scale = quantize.rounded_weights(np.zeros((2, 3, 1, 1), np.float32))
    assert not whole.any()
    assert (scale > 0).all()


def test_a_range_is_cut_where_that_rounds_best():
    counts = np.zeros(ranges.BINS)
    counts[100:160] = 1000
    assert ranges.best_range(-0.28, 10, counts)[1] < 2, "nothing is beyond 0.6"
    counts[-1] = 1
    low, high = ranges.best_range(-0.28, 10, counts)
    assert high < 10, "one outlier among sixty thousand is cut"
    assert -0.28 <= low <= 0
    assert ranges.best_range(-1, 1, np.ones(ranges.BINS))[1] == pytest.approx(1), "nothing to gain where all is alike"
    assert ranges.best_range(0, 0, np.zeros(ranges.BINS)) == (0, 1)


def test_ranges_and_means_are_those_of_what_flows():
    model = onnx.load_from_string(quantize.widened(find("yolov5n-bccd").read("model.onnx")))
    images = [{"images": np.full((1, 3, 64, 64), shade, np.float32)} for shade in (0.25, 0.75)]
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    found = ranges.flows(model, {"images", first.output[0]}, images)
    assert found["images"].mean == pytest.approx([0.5] * 3)
    assert found["images"].low == 0
    assert 0.74 < found["images"].high <= 0.76
    assert found["images"].scale * 255 == pytest.approx(found["images"].high)
    assert found[first.output[0]].mean.shape == (first_channels(model, first),)


def first_channels(model, node):
    return next(value.dims[0] for value in model.graph.initializer if value.name == node.input[1])


@pytest.fixture(scope="module")
def pixel():
    """A 1x1 convolution with wide weights, and images that are not centred."""
    numbers = np.random.default_rng(0)
    weight = numbers.standard_t(2, (6, 16, 1, 1)).astype(np.float32)
    bias = numbers.normal(size=6).astype(np.float32)
    values = [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(bias, "b")]
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, size, "H", "W"])
        for name, size in (("x", 16), ("y", 6))
    ]
    node = onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], name="c")
    graph = onnx.helper.make_graph([node], "g", ports[:1], ports[1:], values)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    images = [{"x": numbers.gamma(2, 1, (1, 16, 24, 24)).astype(np.float32)} for _ in range(4)]
    return model, images


def test_rounding_moves_no_channel_on_average(pixel):
    model, images = pixel
    known = ranges.flows(model, {"x"}, images)
    data = quantize._rounded(model, {"c"}, known)

    def means(graph):
        return np.mean([values["y"].mean((0, 2, 3)) for values in quantize._outputs(graph, images)], 0)

    exact, rounded = means(model.SerializeToString()), means(data)
    changed = onnx.load_from_string(data)
    for value in changed.graph.initializer:
        if value.name.endswith("_bias"):
            value.CopyFrom(
                onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(model.graph.initializer[1]), value.name)
            )
    plain = means(changed.SerializeToString())
    assert np.abs(rounded - exact).max() < 0.25 * np.abs(plain - exact).max()


def test_what_convolutions_give_is_not_rounded_and_the_graph_passes_the_checks(pixel):
    model, images = pixel
    graph = onnx.load_from_string(quantize._rounded(model, {"c"}, ranges.flows(model, {"x"}, images))).graph
    assert [node.op_type for node in graph.node] == ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv"]
    assert graph.node[-1].output[0] == "y"
    assert {value.name for value in graph.initializer} == {
        "x_scale", "x_zero", "w_int8", "w_scale", "w_zero", "w_bias",
    }  # fmt: skip


def test_the_first_convolutions_stay_in_float32_when_rounding_them_harms(monkeypatch):
    data = find("yolov5n-bccd").read("model.onnx")
    images = [{"images": np.random.default_rng(0).random((1, 3, 96, 96), dtype=np.float32)}]

    def rounded():
        graph = onnx.load_from_string(quantize.quantized(data, images)).graph
        return [node.input[1].endswith("_rounded") for node in graph.node if node.op_type == "Conv"]

    monkeypatch.setattr(quantize, "MAX_HARM", 1.0)
    every = rounded()
    monkeypatch.setattr(quantize, "MAX_HARM", -1.0)
    fewer = rounded()
    assert sum(every) - sum(fewer) == quantize.KEPT[-1]
    assert not any(fewer[: quantize.KEPT[-1]])


def test_harm_is_that_of_scores_that_count():
    first = [{"boxes": np.zeros(4), "scores": np.array([0.05, 0.5, 0.0, 0.3])}]
    second = [{"boxes": np.ones(4), "scores": np.array([0.01, 0.4, 0.2, 0.3])}]
    assert quantize.harm(first, second) == pytest.approx((0.1 + 0.2 + 0.0) / 3)
    assert quantize.harm(first, first) == 0


@pytest.mark.slow
def test_the_default_detector_finds_in_int8_what_it_finds_in_float32(tmp_path):
    found = export(DEFAULT, "onnx", tmp_path / "m", precision="int8").forms[-1].compared
    assert found.keeps
    assert found.matched > 0.9
    check_onnx((tmp_path / "m" / "int8.onnx").read_bytes(), "int8.onnx")


def test_the_default_detector_says_in_its_card_what_int8_and_bfloat16_lose():
    metrics = {metric.name: metric.value for metric in find(DEFAULT).card.metrics}
    for precision in ("int8", "bfloat16"):
        assert metrics[f"AP50-95 in {precision}"] == pytest.approx(metrics["AP50-95"], abs=0.01)


def test_bfloat16_rounds_as_torch_does():
    torch = pytest.importorskip("torch")
    from openlepton.export.bfloat16 import rounded

    values = np.concatenate(
        [
            np.random.default_rng(0).normal(size=4000) * 10.0 ** np.arange(-20, 20).repeat(100),
            [0, 1 + 2**-8, 1 + 3 * 2**-8],
        ]
    ).astype(np.float32)
    assert np.array_equal(rounded(values), torch.from_numpy(values).bfloat16().float().numpy())


def test_simulated_bfloat16_is_what_torch_computes_in_it():
    pytest.importorskip("torch")
    from openlepton.export.bfloat16 import simulated
    from openlepton.export.forms import Source
    from openlepton.images import read_image
    from openlepton.train.evaluate import NetworkRuntime

    folder = find(DEFAULT)
    image = read_image(openlepton.export.write.PHOTOS / "astronaut.jpg")[:160, 160:320]
    images = [{"images": np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 255}]
    network = Source(folder, (160, 160), ()).network().fused()
    theirs = NetworkRuntime(network, precision="bfloat16")(images[0])["scores"]
    exact, ours = (
        quantize._outputs(graph, images)[0]["scores"]
        for graph in (folder.read("model.onnx"), simulated(folder.read("model.onnx")))
    )
    off = np.abs(ours - exact).max()
    assert off > 1e-3, "bfloat16 changes something"
    assert np.abs(ours - theirs).max() < max(0.5 * off, 0.02)


def test_bfloat16_is_judged_by_what_it_computes_where_there_is_a_processor_for_it(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr("openlepton.export.bfloat16.computed_here", lambda: False)
    card = export("yolov5n-seg-nuclei", "openvino", tmp_path / "m", precision="bfloat16", data=NUCLEI / "images")
    found = card.forms[-1].compared
    assert found.images == "8 images of images, bfloat16 simulated"
    assert found.scores > 1e-3, "in float32 nothing would differ"
    assert found.keeps
